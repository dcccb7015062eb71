"""Part of the verb refine: a student learns the masks of a data set, and takes their place.

Whole images are squashed to one size, as the methods have seen them whose masks these are.
Shapes: `B` images, `H W` pixels, `h w` grid of the student, `K` categories.

Source: Kumar et al., "DatUS^2", 2024, section III-F: pseudo-mask de-noising and smoothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.pupils import Pupil, Start
from zerolabel.backbones.student import normalise
from zerolabel.data.transforms import to_tensor
from zerolabel.ops.resize import resize, resize_labels
from zerolabel.stages.parts import arrays_of, forget, train_in_parts, weights_and_losses
from zerolabel.stages.supervise import Learned
from zerolabel.store import Stage, Store
from zerolabel.training.denoise import DenoiseTrainer, handicaps
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.supervised import SupervisedTraining
from zerolabel.types import Image, LabelMap, Sample

LEAST = 20  # steps between two looks at what is held out; few photos have short epochs


def train(
    begin: Start,
    training: SupervisedTraining,
    lessons: Lessons,
    *,
    patience: int,
    samples: Sequence[Sample],
    size: tuple[int, int],
    balance: float,
    pixels: Sequence[int],
    facts: Sequence[object],
    device: torch.device,
    store: Store,
) -> Learned:
    """Train a student, or take up what was trained before.

    After every epoch, or as many as make `LEAST` steps, the loss on the masks of the images held
    out is measured. Training ends when that has not fallen for a while, and the weights with the
    lowest are kept.

    Args:
        begin: the student; its network is trained in place.
        training: how it learns.
        lessons: from what crops; a share is held out.
        patience: measurements without a lower loss that end the training.
        samples: with masks as labels, any number of whose pixels are 255.
        size: (H, W) in pixels to which images and masks are squashed before crops are drawn.
        balance: see `training.denoise.handicaps`.
        pixels: of each category in the masks.
        facts: all else that the result depends on: what else the masks hold.
        device: where to compute.
        store: keeps the result, and every part what is needed to go on.

    Returns:
        Weights by the names of the network, and losses.

    Raises:
        DataError: no image can be read.
        UsageError: nothing is left to learn from.
    """
    known = (begin.net.config, begin.digest, training, lessons, patience, size, balance)
    name = cache.key("denoise", samples, *known, pixels, *facts)

    def work() -> Stage:
        unfair = handicaps(pixels, balance=balance)
        net = begin.net.to(device)
        trainer = DenoiseTrainer(net, training, patience=patience, handicaps=unfair)
        ratio = max(1.0, lessons.scene.ratio[1])  # so that the largest crops lose nothing
        most = (round(size[0] * ratio), round(size[1] * ratio))
        course = _Course(trainer, Pages([squashed(s, most) for s in samples], lessons, training))
        losses = train_in_parts(name, course, course.learn, steps=course.end, store=store)
        if trainer.step < course.end:  # it stopped early: the last loss is that of its last step
            losses[str(trainer.step)] = losses.pop(str(course.end))
        held = {str(step): loss for step, loss in trainer.held.items()}
        info = {"losses": losses, "held": held, "failures": course.pages.failures}
        return Stage(arrays_of(trainer.result()), info)

    done = store.stage(name, work)
    forget(name, steps=training.iterations, store=store)
    return Learned(
        *weights_and_losses(done),
        {int(step): loss for step, loss in done.info["held"].items()},
        dict(done.info["failures"]),
    )


class _Course:
    """A trainer and what it learns from; at its end when the trainer has stopped."""

    def __init__(self, trainer: DenoiseTrainer, pages: Pages) -> None:
        self.trainer, self.pages, self.end = trainer, pages, trainer.config.iterations
        self.every = pages.epoch * math.ceil(LEAST / pages.epoch)  # steps, whole epochs

    @property
    def step(self) -> int:
        """Steps done; all of them once the trainer has stopped."""
        return self.end if self.trainer.stopped else self.trainer.step

    def learn(self) -> float:
        """Do the next step, and judge where it is time."""
        images, labels = self.pages.batch(self.trainer.step)
        loss = self.trainer.learn(normalise(images), labels)
        now = self.trainer.step
        if self.pages.held and (now % self.every == 0 or now == self.end):
            found = [self.trainer.measure(normalise(x), y) for x, y in self.pages.exam()]
            self.trainer.judge(float(np.mean(found)))
        return loss

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs."""
        return self.trainer.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where another one stopped."""
        self.trainer.restore(state)


def words(found: Learned, training: SupervisedTraining) -> str:
    """Say how a training ended.

    Args:
        found: what came of it.
        training: how it should have gone.

    Returns:
        Part of a sentence.
    """
    steps = training.iterations
    if not found.held:
        return f"{steps} steps, none of the images held out"
    last, best = max(found.held), min(found.held, key=lambda step: found.held[step])
    end = f"stopped after {last} of {steps}" if last < steps else f"all {steps} done"
    return (
        f"weights of step {best}, {end}: there the loss on masks held out was lowest, "
        f"{found.held[best]:.3f}"
    )


def squashed(sample: Sample, size: tuple[int, int]) -> Sample:
    """Squash an image, bilinearly and antialiased, and its mask, to the nearest pixel, when read.

    Args:
        sample: the image.
        size: (H, W) in pixels.

    Returns:
        The same sample of that size.
    """
    read = sample.load_label

    def load() -> Image:
        seen: Image = small(sample.load(), size).permute(1, 2, 0).contiguous().numpy()
        return seen

    def load_label() -> LabelMap:
        assert read is not None  # see below
        return resize_labels(read(), size)

    return replace(sample, load=load, load_label=load_label if read is not None else None)


def small(image: Image, size: tuple[int, int]) -> Tensor:
    """Squash an image uint8 (H, W, 3) as the student sees it: uint8 (3, *size)."""
    return resize(to_tensor(image)[None], size, mode="bilinear")[0]


@torch.no_grad()
def look(net: Pupil, images: Tensor) -> Tensor:
    """Let a student see images.

    Args:
        net: in evaluation mode.
        images: uint8 RGB (B, 3, H, W), on its device.

    Returns:
        Probabilities, float32 (B, K, h, w).
    """
    logits: Tensor = net(normalise(images))
    return logits.float().softmax(dim=1)
