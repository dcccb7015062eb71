"""What a training run leaves on disk: log, curves, checkpoints, and the weights."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zerolabel import __version__
from zerolabel.data.pool import Pool
from zerolabel.errors import StoreError
from zerolabel.jobs.pretraining.live_knn import LiveKnn
from zerolabel.jobs.pretraining.options import Options
from zerolabel.outputs.plots import line_chart
from zerolabel.outputs.report import write_exhibits
from zerolabel.store import write_bytes, write_json
from zerolabel.training import checkpoint, distributed
from zerolabel.training.loop import Look, Trainer
from zerolabel.types import Exhibit

CURVES = {  # value in the log -> title and label of its curve
    "knn": ("Live k-NN, mean patch token", "top-1"),
    "loss": ("Loss", "loss"),
    "image": ("Loss of the images", "loss"),
    "dense": ("Loss of the patches", "loss"),
    "image_cosine": ("Mean cosine of two images", "cosine"),
    "patch_cosine": ("Mean cosine of two patches of an image", "cosine"),
    "used": ("Prototypes in use", "share"),
    "lr": ("Learning rate", "rate"),
}


@dataclass(frozen=True)
class Pretrained:
    """What came out.

    Attributes:
        path: the run directory.
        weights: the teacher's backbone, float16 safetensors.
        steps: steps done.
        images: images seen.
        seconds: time spent training.
        failures: id -> reason, of images that could not be read.
        knn: last live k-NN top-1, 0..1; None without.
    """

    path: Path
    weights: Path
    steps: int
    images: int
    seconds: float
    failures: dict[str, str]
    knn: float | None


class Record:
    """What a run leaves on disk: log, checkpoints, kept teachers and the final weights."""

    def __init__(
        self,
        out: Path,
        trainer: Trainer,
        options: Options,
        pools: Sequence[Pool],
        *,
        shares: Sequence[int],
        amp: bool,
    ) -> None:
        """Go on with what is in the directory, or refuse it if it is another run's."""
        self.out, self.trainer, self.options = out, trainer, options
        length = [options.steps, options.epochs, options.minutes]
        job = {
            "data": [[pool.name, pool.digest] for pool in pools],
            "shares": shares,
            "length": length,
            "init": options.init,
        }
        self.job = json.loads(json.dumps(job))  # as it comes back from a file
        self.failures = {f"{p.name}/{k}": why for p in pools for k, why in p.failures.items()}
        done = checkpoint.load(out / "checkpoint.pt")
        if done is not None:
            _check_job(out, done["job"], self.job)
            trainer.restore(done["trainer"])
        self.facts = {
            "zerolabel": __version__,
            "torch": torch.__version__,
            "device": str(trainer.device),
            "processes": distributed.world(),
            "amp": amp,
            "settings": asdict(trainer.config),
            "job": self.job,
            "images": [[pool.name, len(pool.images)] for pool in pools],
            "failures": self.failures,
        }
        writes = distributed.rank() == 0
        self.live = LiveKnn(options.knn, trainer) if options.knn and writes else None
        self.log = _Log(out / "log.jsonl", upto=trainer.step)
        self.saved = self.kept = time.monotonic()
        seen = trainer.step * trainer.config.batch
        self.look = Look(trainer.step, trainer.total, seen, trainer.seconds, {})

    def keep(self, look: Look, *, stopping: bool) -> None:
        """Write what is due after a step, in the process that writes."""
        self.look, last = look, look.step == look.total
        if distributed.rank():
            return
        if look.values:
            extra = self.live.score(last=last) if self.live else {}
            self.log.add(look, extra)
        now = time.monotonic()
        if now - self.kept > self.options.keep_every > 0:
            _write_backbone(self.trainer, self.out / "teachers" / f"{look.step:07d}.safetensors")
            self.kept = now
        if last or stopping or now - self.saved > self.options.save_every:
            state = {"job": self.job, "trainer": self.trainer.state()}
            checkpoint.save(self.out / "checkpoint.pt", state)
            write_json(self.out / "pretrain.json", {**self.facts, **_where(look)})
            self._draw()
            self.saved = now

    def _draw(self) -> None:
        """Write the page with the curves."""
        rows, look = self.log.rows, self.look
        charts = []
        for name, (title, label) in CURVES.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            if len(points) > 1:
                x, y = zip(*points, strict=True)
                svg = line_chart(x, y, title=title, x_label="step", y_label=label)
                charts.append(Exhibit("svg", title, {"svg": svg}))
        settings = {name: str(value) for name, value in self.facts["settings"].items()}
        charts.append(Exhibit("facts", "Settings", settings))
        total = f"{look.total:,}" if look.total else "a number not yet known of"
        lead = (
            f"{look.step:,} of {total} steps, {look.images:,} images seen, "
            f"{look.images / max(look.seconds, 1e-9):,.0f} images/s on {self.facts['device']}."
        )
        page = self.out / "report" / "index.html"
        write_exhibits(page, title="Pre-training", lead=lead, exhibits=charts)

    def finish(self) -> Pretrained:
        """Write the weights, in the process that writes."""
        weights, look = self.out / "backbone.safetensors", self.look
        if distributed.rank() == 0:
            _write_backbone(self.trainer, weights)
        score = self.live.last if self.live else None
        return Pretrained(
            self.out, weights, look.step, look.images, look.seconds, self.failures, score
        )


class _Log:
    """One JSON line per look; what a resumed run does again is not listed twice."""

    def __init__(self, path: Path, *, upto: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line]
        self.rows = [row for row in rows if row["step"] <= upto]

    def add(self, look: Look, extra: Mapping[str, float]) -> None:
        self.rows.append({**_where(look), **look.values, **extra})
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_bytes(self.path, text.encode())


def _where(look: Look) -> dict[str, Any]:
    seconds = round(look.seconds, 1)
    return {"step": look.step, "total": look.total, "seen": look.images, "seconds": seconds}


def _check_job(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differs = [name for name in now if before.get(name) != now[name]]
    if differs:
        name = differs[0]
        raise StoreError(
            f"{out} holds a run with other {', '.join(differs)} ({name} was {before.get(name)}, "
            f"is {now[name]}). Give the same again, or another --out (and --init to start from "
            "its weights)."
        )


def _write_backbone(trainer: Trainer, path: Path) -> None:
    """Write the teacher's backbone, half the size of float32."""
    from safetensors.torch import save

    state = trainer.teacher.backbone.state_dict()
    write_bytes(path, save({k: v.detach().half().cpu().contiguous() for k, v in state.items()}))
