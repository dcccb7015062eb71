"""Part of the verb refine: a network learns from labels what is what, once per run.

Shapes: `B` images, `H W` pixels of a crop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.data.census import Census, census
from zerolabel.errors import DataError, UsageError
from zerolabel.networks.mask_transformer import LinearConfig, MaskTransformerConfig, decoder
from zerolabel.networks.vit import ViT
from zerolabel.stages.parts import arrays_of, forget, train_in_parts, weights_and_losses
from zerolabel.store import Stage, Store
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.supervised import SupervisedTrainer, SupervisedTraining
from zerolabel.types import Sample


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
        course = _Course(trainer, pages, prepare)
        losses = train_in_parts(name, course, course.learn, steps=training.iterations, store=store)
        held = {str(step): loss for step, loss in course.held.items()}
        info = {"losses": losses, "held": held, "failures": pages.failures}
        return Stage(arrays_of(trainer.weights()), info)

    done = store.stage(name, work)
    forget(name, steps=training.iterations, store=store)
    return Learned(
        *weights_and_losses(done),
        {int(step): loss for step, loss in done.info["held"].items()},
        dict(done.info["failures"]),
    )


class _Course:
    """A trainer, what it learns from, and what it is judged by; put aside as one.

    Attributes:
        epoch: losses since the last epoch ended.
        held: from step to loss of the images held out.
    """

    def __init__(
        self, trainer: SupervisedTrainer, pages: Pages, prepare: Callable[[Tensor], Tensor]
    ) -> None:
        self.trainer, self.pages, self.prepare = trainer, pages, prepare
        self.epoch: list[float] = []
        self.held: dict[int, float] = {}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.trainer.step

    def learn(self) -> float:
        """Do the next step, and end the epoch where it does."""
        images, labels = self.pages.batch(self.step)
        loss = self.trainer.learn(self.prepare(images), labels)
        self.epoch.append(loss)
        if self.step % self.pages.epoch == 0 or self.step == self.trainer.config.iterations:
            self._judge()
        return loss

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs."""
        epoch = torch.tensor(self.epoch, dtype=torch.float64)
        held = torch.tensor(list(self.held.items()), dtype=torch.float64).reshape(-1, 2)
        return self.trainer.state() | {"epoch": epoch, "held": held}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another one stopped."""
        self.trainer.restore(state)
        self.epoch = state["epoch"].tolist()
        self.held = {int(step): loss for step, loss in state["held"].tolist()}

    def _judge(self) -> None:
        """The loss of an epoch is that of the images held out, or of those learned from."""
        loss = float(np.mean(self.epoch))
        self.epoch = []
        if self.pages.held:
            found = [self.trainer.measure(self.prepare(x), y) for x, y in self.pages.exam()]
            loss = self.held[self.step] = float(np.mean(found))
        self.trainer.plateau.see(loss)
