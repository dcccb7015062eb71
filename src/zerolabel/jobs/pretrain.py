"""Pre-train a backbone on unlabelled images, and go on exactly where an interrupted run stopped."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zerolabel import __version__
from zerolabel.backbones import pick_device
from zerolabel.data.pool import Pool, load_pool
from zerolabel.errors import StoreError, UsageError
from zerolabel.jobs.live_knn import LiveKnn
from zerolabel.jobs.pretrain_options import Options, settle, use_amp
from zerolabel.networks.vit import ViT
from zerolabel.store import Progress, Store, write_bytes, write_json
from zerolabel.training import checkpoint, distributed
from zerolabel.training.config import Pretrain
from zerolabel.training.loop import Look, Trainer


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


def pretrain(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Train a vision transformer without labels.

    Args:
        sources: folders of images and `.npz` packs.
        out: the run directory; the same command goes on with an interrupted run, exactly.
        options: settings.
        progress: called with (work, items done, items in all).

    Returns:
        Where the weights are.

    Raises:
        UsageError: options that contradict each other, or unknown names.
        DataError: a source that cannot be read.
        StoreError: the directory holds another run, or cannot be written.
        CollapseError: the run is dead; the reason is in the message.
        KeyboardInterrupt: it was interrupted; the checkpoint is written.
    """
    options = options or Options()
    device = distributed.start(pick_device(options.device))
    try:
        config, start = settle(options, device)
        store = Store(out, report=progress if distributed.rank() == 0 else None)
        with _alone(store):
            pools = [load_pool(Path(s), side=options.side, tell=store.report) for s in sources]
            return _train(store, pools, config, start, options, device)
    finally:
        distributed.stop()


def _train(
    store: Store,
    pools: list[Pool],
    config: Pretrain,
    start: ViT | None,
    options: Options,
    device: torch.device,
) -> Pretrained:
    """Train to the end, leaving log, checkpoints and weights in the run directory."""
    steps, shares = _length(options, pools, config), _shares(options, pools)
    amp = use_amp(options.amp, device)
    trainer = Trainer(config, device=device, amp=amp, start=start)
    record = _Record(store.directory, trainer, options, pools, shares=shares, amp=amp)
    with _stop_requests() as stop:
        near = [_near(pool, device) for pool in pools]
        for look in trainer.run(near, shares=shares, steps=steps, minutes=options.minutes):
            total = look.total * config.batch
            store.report("train", look.images, total or look.images + 1)
            if distributed.rank() == 0:
                record.keep(look, stopping=stop.is_set())
            if stop.is_set() and look.step != look.total:
                raise KeyboardInterrupt
    return record.finish()


def _length(options: Options, pools: Sequence[Pool], config: Pretrain) -> int:
    """Steps of the run; 0 if it is given in minutes."""
    images = sum(len(pool.images) for pool in pools)
    steps = options.steps or int(options.epochs * images / config.batch)
    if options.epochs and not steps:
        raise UsageError(f"{options.epochs} epochs of {images} images are not one batch.")
    return steps


def _shares(options: Options, pools: Sequence[Pool]) -> list[int]:
    """Steps of a cycle that draw from each source."""
    shares = list(options.shares) or [1] * len(pools)
    if len(shares) != len(pools) or min(shares) < 1:
        raise UsageError(f"Give one share of at least 1 for each of the {len(pools)} sources.")
    return shares


class _Record:
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
            "data": {pool.name: pool.digest for pool in pools},
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
            "images": {pool.name: len(pool.images) for pool in pools},
            "failures": self.failures,
        }
        writes = distributed.rank() == 0
        self.live = LiveKnn(options.knn, trainer) if options.knn and writes else None
        self.log = _Log(out / "log.jsonl", upto=trainer.step)
        self.saved = self.kept = time.monotonic()
        seen = trainer.step * trainer.config.batch
        self.look = Look(trainer.step, trainer.total, seen, trainer.seconds, {})

    def keep(self, look: Look, *, stopping: bool) -> None:
        """Write what is due after a step."""
        self.look, last = look, look.step == look.total
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
            self.saved = now

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
        kept = [line for line in lines if line and json.loads(line)["step"] <= upto]
        self.text = "".join(f"{line}\n" for line in kept)

    def add(self, look: Look, extra: Mapping[str, float]) -> None:
        self.text += json.dumps({**_where(look), **look.values, **extra}) + "\n"
        write_bytes(self.path, self.text.encode())


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


def _near(pool: Pool, device: torch.device) -> Pool:
    """Keep the images on a GPU that has room for them."""
    if device.type != "cuda" or pool.images.numel() > torch.cuda.mem_get_info(device)[0] // 3:
        return pool
    return replace(pool, images=pool.images.to(device))


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the run directory, in the process that writes."""
    if distributed.rank():
        yield
        return
    with store.lock():
        yield


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn the wish to stop into a flag that is read between two steps."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
