"""A training as a stage: in parts, each of which holds all that the next one needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from zerolabel.store import Arrays, Stage, Store

KEEP, PARTS = 100, 100  # steps after which a training can go on; a long one has so many parts
LOOKS = 200  # most losses that are kept for the curve


class Trainer(Protocol):
    """What learns step by step, and can be put aside."""

    @property
    def step(self) -> int:
        """Steps done."""

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another one stopped."""


def resume(name: str, trainer: Trainer, *, steps: int, store: Store) -> Stage | None:
    """Bring a trainer to where an interrupted training was last kept; None if it was nowhere."""
    ends = _ends(steps)
    before = next((kept for end in ends[::-1] if (kept := store.peek(f"{name}-{end}"))), None)
    if before is not None:
        trainer.restore({key: torch.from_numpy(value) for key, value in before.arrays.items()})
    return before


def train_in_parts(
    name: str, trainer: Trainer, learn: Callable[[], float], *, steps: int, store: Store
) -> dict[str, float]:
    """Train to the end, keeping every part as a stage of the run.

    Args:
        name: of the stage that the training belongs to.
        trainer: its step rises with every call of `learn`.
        learn: does the next step and returns its loss, both a function of the trainer's step.
        steps: length of the training.
        store: keeps the last part; drop it with `forget` once the result is kept.

    Returns:
        From step to loss, averaged since the step before it.
    """
    before = resume(name, trainer, steps=steps, store=store)
    losses: dict[str, float] = dict(before.info["losses"]) if before else {}
    recent: list[float] = list(before.info["recent"]) if before else []
    every, parts, last = max(1, steps // LOOKS), set(_ends(steps)[:-1]), trainer.step
    with store.timed("train"):
        while trainer.step < steps:
            recent.append(learn())
            if trainer.step % every == 0 or trainer.step == steps:
                losses[str(trainer.step)] = sum(recent) / len(recent)
                recent = []
                store.report("train", trainer.step, steps)
            if trainer.step in parts:
                info = {"losses": dict(losses), "recent": list(recent)}
                kept = Stage(arrays_of(trainer.state()), info)
                store.stage(f"{name}-{trainer.step}", partial(lambda stage: stage, kept))
                store.forget(f"{name}-{last}")
                last = trainer.step
    return losses


def trained(
    name: str, work: Callable[[], Stage], *, steps: int, store: Store
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Run a training as a stage, or take up its result, and drop its parts.

    Args:
        name: of the stage, the one that `train_in_parts` was given.
        work: trains; what it returns has weights as arrays and "losses", from step to loss.
        steps: length of the training.
        store: keeps the result.

    Returns:
        Weights by name, and from step to loss.
    """
    done = store.stage(name, work)
    forget(name, steps=steps, store=store)
    return weights_and_losses(done)


def weights_and_losses(done: Stage) -> tuple[dict[str, Tensor], dict[int, float]]:
    """What a training kept: weights by name, and from step to loss."""
    weights = {key: torch.from_numpy(value) for key, value in done.arrays.items()}
    return weights, {int(step): loss for step, loss in done.info["losses"].items()}


def forget(name: str, *, steps: int, store: Store) -> None:
    """Drop the parts of a training whose result is kept."""
    for end in _ends(steps):
        store.forget(f"{name}-{end}")


def arrays_of(tensors: Mapping[str, Tensor]) -> Arrays:
    """Copies as arrays: the training goes on with the tensors."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


def _ends(steps: int) -> list[int]:
    """Steps after which a part of the training is kept, and the last one."""
    part = max(KEEP, steps // PARTS)
    return [*range(part, steps, part), steps]
