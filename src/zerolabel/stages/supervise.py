"""Part of the verb refine: a network learns from labels what is what, once per run.

Shapes: `B` images, `H W` pixels of a crop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.data.census import Census, census
from zerolabel.errors import DataError, UsageError
from zerolabel.networks.mask_transformer import LinearConfig, MaskTransformerConfig, decoder
from zerolabel.networks.vit import ViT
from zerolabel.store import Arrays, Stage, Store
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.supervised import SupervisedTrainer, SupervisedTraining
from zerolabel.types import Sample

KEEP, PARTS = 100, 100  # steps after which a training can go on; a long one has so many parts
LOOKS = 200  # most losses that are kept for the curve


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        weights: "decoder.*" and, if it was tuned, "encoder.*".
        losses: from step to loss, averaged since the step before it.
        held: from step to loss of the images held out.
        failures: id -> reason for images or labels that could not be read.
    """

    weights: dict[str, Tensor]
    losses: dict[int, float]
    held: dict[int, float]
    failures: dict[str, str]

    def words(self) -> list[str]:
        """Say what the images held out told, if there are any."""
        if not self.held:
            return []
        last, best = list(self.held)[-1], min(self.held, key=lambda step: self.held[step])
        return [
            f"the loss of those held out is {self.held[last]:.3f} in the end; the lowest was "
            f"{self.held[best]:.3f}, after {best} steps"
        ]


def inspect(samples: Sequence[Sample], *, classes: int | None, store: Store) -> Census:
    """Count what labels hold, and refuse those that nothing can be learned from.

    Args:
        samples: with labels.
        classes: how many there should be; None takes the highest id.
        store: is told the progress.

    Returns:
        The counts.

    Raises:
        DataError: no pixel has a class.
        UsageError: a label holds what is no class.
    """
    seen = census(samples, classes=classes, store=store)
    if seen.strange:
        value, where = next(iter(seen.strange.items()))
        raise UsageError(
            f"Expected labels of {seen.expected}, found {value}, e.g. in {where[0]}. Give --k the "
            "number of classes, or mend the labels; `zerolabel data check` lists what is wrong."
        )
    if not seen.pixels.sum():
        why = "".join(f"; {name}: {reason}" for name, reason in list(seen.unreadable.items())[:1])
        raise DataError(f"No pixel of {len(samples)} labels has a class{why}.")
    return seen


def train(
    encoder: ViT,
    head: LinearConfig | MaskTransformerConfig,
    training: SupervisedTraining,
    lessons: Lessons,
    *,
    samples: Sequence[Sample],
    prepare: Callable[[Tensor], Tensor],
    facts: Sequence[object],
    device: torch.device,
    store: Store,
) -> Learned:
    """Train a decoder, and its encoder if asked for, or take up what was trained before.

    Args:
        encoder: where the training starts; changed in place.
        head: the decoder.
        training: how they learn.
        lessons: from what.
        samples: with labels.
        prepare: brings images (B, 3, H, W) of 0..255 to the device, as the encoder takes them.
        facts: all else that the result depends on: the encoder's weights, what the labels hold.
        device: where to compute.
        store: keeps the result, and every part what is needed to go on.

    Returns:
        Weights and losses.

    Raises:
        DataError: no image can be read.
        UsageError: nothing is left to learn from, or to judge by.
    """
    name = cache.key("segmenter", samples, head, training, lessons, *facts)

    def work() -> Stage:
        made = decoder(head, seed=training.seed)
        trainer = SupervisedTrainer(encoder.to(device), made.to(device), training)
        pages = Pages(samples, lessons, training)
        return _work(name, trainer, pages, prepare, store)

    done = store.stage(name, work)
    for end in _ends(training.iterations):
        store.forget(f"{name}-{end}")
    return Learned(
        {key: torch.from_numpy(value) for key, value in done.arrays.items()},
        {int(step): loss for step, loss in done.info["losses"].items()},
        {int(step): loss for step, loss in done.info["held"].items()},
        dict(done.info["failures"]),
    )


@dataclass
class _Diary:
    """Losses so far: those of the curves, since the last of them, and since the last epoch."""

    losses: dict[str, float] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    recent: list[float] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)


def _work(
    name: str,
    trainer: SupervisedTrainer,
    pages: Pages,
    prepare: Callable[[Tensor], Tensor],
    store: Store,
) -> Stage:
    """Train in parts; every part is a stage of the run that holds all that the next one needs."""
    steps = trainer.config.iterations
    ends = _ends(steps)
    before = next((kept for end in ends[::-1] if (kept := store.peek(f"{name}-{end}"))), None)
    diary = _Diary()
    if before is not None:
        trainer.restore({key: torch.from_numpy(value) for key, value in before.arrays.items()})
        diary = _Diary(**before.info)
    every, parts, last = max(1, steps // LOOKS), set(ends[:-1]), trainer.step
    with store.timed("train"):
        while trainer.step < steps:
            images, labels = pages.batch(trainer.step)
            loss = trainer.learn(prepare(images), labels)
            diary.recent.append(loss)
            diary.epoch.append(loss)
            if trainer.step % every == 0 or trainer.step == steps:
                diary.losses[str(trainer.step)] = float(np.mean(diary.recent))
                diary.recent = []
                store.report("train", trainer.step, steps)
            if trainer.step % pages.epoch == 0 or trainer.step == steps:
                _judge(trainer, pages, prepare, diary)
            if trainer.step in parts:
                info = {key: type(value)(value) for key, value in vars(diary).items()}
                kept = Stage(_arrays(trainer.state()), info)
                store.stage(f"{name}-{trainer.step}", partial(lambda stage: stage, kept))
                store.forget(f"{name}-{last}")
                last = trainer.step
    info = {"losses": diary.losses, "held": diary.held, "failures": pages.failures}
    return Stage(_arrays(trainer.weights()), info)


def _judge(
    trainer: SupervisedTrainer,
    pages: Pages,
    prepare: Callable[[Tensor], Tensor],
    diary: _Diary,
) -> None:
    """End an epoch: the loss of the images held out, or of those learned from, is its loss."""
    loss = float(np.mean(diary.epoch))
    diary.epoch = []
    if pages.held:
        found = [trainer.measure(prepare(x), y) for x, y in pages.exam()]
        loss = diary.held[str(trainer.step)] = float(np.mean(found))
    trainer.plateau.see(loss)


def _ends(steps: int) -> list[int]:
    """Steps after which a part of the training is kept, and the last one."""
    part = max(KEEP, steps // PARTS)
    return [*range(part, steps, part), steps]


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Copies: the training goes on with the tensors."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
