"""Self-distillation, step by step.

A step's randomness comes from the seed and the number of the step alone, so a run that was
interrupted goes on exactly: no random state needs to be kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from zerolabel.data.pool import Pool
from zerolabel.errors import DataError, StoreError
from zerolabel.networks.transformer import DropPath
from zerolabel.networks.vit import ViT
from zerolabel.training import distributed, monitors
from zerolabel.training.config import Pretrain
from zerolabel.training.objective import Batch, Objective, make_batch
from zerolabel.training.optimiser import clip, groups
from zerolabel.training.sampling import batches_before, plan, seed_of, take
from zerolabel.training.schedule import Cosine, Ramp
from zerolabel.training.twin import follow, make_twins

RATE_FROM, RATE_TO = 10, 40  # steps that are timed when the length of a run is given in minutes
MARGIN = 0.97  # share of the minutes that is planned
WARMUP = 100  # steps, while the length of the run is not known yet
FAR = 10**9  # steps: beyond every run
LOOK = 50  # steps between two looks at the monitors, the only ones that wait for the device


@dataclass(frozen=True)
class Look:
    """What is known of a run at one step.

    Attributes:
        step: steps done.
        total: steps planned; 0 while they are not known yet.
        images: images seen.
        seconds: time spent, over all parts of an interrupted run.
        values: losses, monitors, learning rate; empty at steps where nobody looked.
    """

    step: int
    total: int
    images: int
    seconds: float
    values: dict[str, float]


class Trainer:
    """A student, its teacher, and all that changes from step to step.

    Attributes:
        config: the settings.
        student: trainable.
        teacher: the average of the student; its backbone is the result.
        step: steps done.
        total: steps planned; 0 while they are not known yet.
        seconds: time spent training.
    """

    def __init__(
        self, config: Pretrain, *, device: torch.device, amp: bool, start: ViT | None = None
    ) -> None:
        """Set up a run.

        Args:
            config: the settings.
            device: where everything is.
            amp: compute in bfloat16 where it is safe.
            start: a backbone to go on from.
        """
        self.config, self.device = config, device
        self.student, self.teacher = (twin.to(device) for twin in make_twins(config, start=start))
        self.objective = Objective(config, device=device, amp=amp)
        self.step = self.total = 0
        self.seconds = 0.0
        self._decayed, self._plain = groups(self.student)
        kinds: list[dict[str, Any]] = [{"params": self._decayed}, {"params": self._plain}]
        kinds[1]["weight_decay"] = 0.0
        self.optimiser = torch.optim.AdamW(kinds, fused=True)
        self._generator = torch.Generator(device)
        for module in self.student.modules():
            if isinstance(module, DropPath):
                module.generator = self._generator

    def run(
        self,
        pools: Sequence[Pool],
        *,
        shares: Sequence[int],
        steps: int = 0,
        minutes: float = 0.0,
        look_every: int = LOOK,
    ) -> Iterator[Look]:
        """Train to the end, looking at the losses and monitors now and then.

        Args:
            pools: the images; every step draws from one of them.
            shares: how many of `sum(shares)` steps draw from each.
            steps: length of the run; 0 if it is given in minutes.
            minutes: time for the whole run; its number of steps is fixed once the speed is known.
            look_every: steps between two looks at the values, which wait for the device.

        Yields:
            A look after every step; with values every `look_every` steps and at the end.

        Raises:
            CollapseError: the run is dead.
            DataError: fewer images than a batch.
        """
        self.total = self.total or steps
        order = plan(shares)
        watch = monitors.Watch(
            prototypes=self.config.prototypes if self.config.objective == "dino" else 0,
            warmup=max(2 * WARMUP, int(self.config.warmup * self.total)),
        )
        for pool in pools:
            if len(pool.images) < self.config.batch:
                raise DataError(
                    f"{pool.name} holds {len(pool.images)} images, fewer than a batch of "
                    f"{self.config.batch}. Give a smaller --batch or more images."
                )
        before, began, first = self.seconds, time.perf_counter(), self.step
        timed = began
        while not self.total or self.step < self.total:
            pool = pools[order[self.step % len(order)]]
            out = self.train_step(take(pool, batches_before(order, self.step), self.config))
            done = self.step - first  # in this part: a clock does not outlive an interruption
            if not self.total and done in (RATE_FROM, RATE_TO):
                _wait(self.device)
                now = time.perf_counter()
                if done == RATE_TO:
                    rate = (RATE_TO - RATE_FROM) / (now - timed)
                    left = MARGIN * 60 * minutes - before - (now - began)
                    self.total = self.step + max(1, int(distributed.agree(rate * left)))
                timed = now
            self.seconds = before + time.perf_counter() - began
            look = self.step % look_every == 0 or self.step == self.total
            values = self._values(out) if look else {}
            yield Look(self.step, self.total, self.step * self.config.batch, self.seconds, values)
            if look:
                watch.look(self.step, values)

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """Do one step.

        Args:
            images: uint8 (B, 3, S, S), this process's share of the batch.

        Returns:
            What `Objective.loss` returned.
        """
        c = self.config
        self._generator.manual_seed(seed_of(c.seed, self.step))
        near = images.to(self.device, non_blocking=True)
        return self.learn(make_batch(near, c, generator=self._generator))

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Do one step on views that are made already.

        Args:
            batch: from `make_batch`.

        Returns:
            What `Objective.loss` returned.
        """
        c, at = self.config, self._at
        ramp = Ramp(*c.teacher_temperature, share=c.temperature_share)
        out = self.objective.loss(
            self.student, self.teacher, batch, temperature=ramp.at(self.step, self._end)
        )
        self.optimiser.zero_grad(set_to_none=True)
        out["loss"].backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients([*self._decayed, *self._plain])
        clip([*self._decayed, *self._plain], c.clip)
        if self.step < c.freeze * self._end:
            for name, value in self.student.named_parameters():
                if name.endswith("prototypes"):
                    value.grad = None
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.optimiser.param_groups[0]["weight_decay"] = at(Cosine(*c.decay))
        self.optimiser.step()
        follow(self.teacher, self.student, momentum=at(Cosine(*c.momentum)))
        self.step += 1
        return out

    @property
    def lr(self) -> float:
        """The learning rate of the next step; linear in the batch (DINO, section 3.2)."""
        c = self.config
        warmup = int(c.warmup * self.total) if self.total else WARMUP
        return self._at(Cosine(c.lr * c.batch / 256, c.lr_end, warmup=warmup))

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {
            "config": asdict(self.config),
            "step": self.step,
            "total": self.total,
            "seconds": self.seconds,
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "centres": [centre.value for centre in self.objective.centres],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another run stopped.

        Args:
            state: of a run with the same settings.

        Raises:
            StoreError: it is of a run with other settings.
        """
        mine = asdict(self.config)
        found = {k: tuple(v) if isinstance(v, list) else v for k, v in state["config"].items()}
        if mine != found:
            names = [k for k in {**mine, **found} if mine.get(k) != found.get(k)]
            raise StoreError(
                "The checkpoint is of a run with other settings: "
                + ", ".join(f"{k} was {found.get(k)}, is {mine.get(k)}" for k in names[:3])
                + ". Give the same ones, or another --out (and --init to start from its weights)."
            )
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])
        for centre, value in zip(self.objective.centres, state["centres"], strict=True):
            centre.value.copy_(value)
        self.step, self.total, self.seconds = state["step"], state["total"], state["seconds"]

    @property
    def _end(self) -> int:
        """The last step; far away while it is not known yet."""
        return self.total or FAR

    def _at(self, schedule: Cosine) -> float:
        return schedule.at(self.step, self._end)

    def _values(self, out: dict[str, Tensor]) -> dict[str, float]:
        """Losses, averaged over processes, and monitors of this process."""
        names = [name for name in ("loss", "image", "dense", "koleo") if name in out]
        losses = distributed.total(torch.stack([out[name].detach() for name in names]))
        values = dict(zip(names, (losses / distributed.world()).tolist(), strict=True))
        values |= monitors.measure(out["cls"], out["tokens"])
        if "targets" in out:
            values |= monitors.measure_targets(out["targets"])
        return {**values, "lr": self.optimiser.param_groups[0]["lr"]}


def _wait(device: torch.device) -> None:
    """Let a device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
