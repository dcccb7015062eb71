"""What a network learns from: crops of labelled images, in an order that can be taken up anywhere.

Shapes: `B` crops, `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.ops.draws import generator
from zerolabel.training.distort import photometric
from zerolabel.training.scenes import SceneConfig, scene
from zerolabel.training.supervised import SupervisedTraining
from zerolabel.types import Image, LabelMap, Sample

SHELF = 1 << 28  # bytes of decoded images and labels that are kept, the first ones that are met


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What the network is shown.

    Attributes:
        scene: how crops are made, see training/scenes.py.
        distort: whether their colours change.
        held: share of the images that is not learned from, but judged after every epoch.
    """

    scene: SceneConfig
    distort: bool = True
    held: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.held < 1:
            raise UsageError(f"held is a share from 0 up to below 1, got {self.held}.")


class Pages:
    """Crops of labelled images, those of a step a function of the seed and the step alone.

    Attributes:
        held: images that are only judged.
        epoch: steps in which every other image is seen once, but for what fills no batch.
        failures: id -> reason for images that could not be read.
    """

    def __init__(
        self, samples: Sequence[Sample], lessons: Lessons, training: SupervisedTraining
    ) -> None:
        count = math.ceil(lessons.held * len(samples))
        chosen = {i * len(samples) // count for i in range(count)}  # evenly spaced
        self.held = [sample for i, sample in enumerate(samples) if i in chosen]
        self._learned = [sample for i, sample in enumerate(samples) if i not in chosen]
        if not self._learned:
            raise UsageError(
                f"Of {len(samples)} images with labels {count} are held out, which leaves none to "
                "learn from. Give more images, or a smaller share with --set held=0."
            )
        self.epoch = max(1, len(self._learned) // training.batch)
        self.failures: dict[str, str] = {}
        self._lessons, self._training = lessons, training
        self._order: tuple[int, list[int]] = (-1, [])
        self._shelf: dict[str, tuple[Image, LabelMap]] = {}
        self._bytes = 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Crops of a step: images float32 (B, 3, H, W) of 0..255, labels uint8 (B, H, W)."""
        B = self._training.batch
        crops = [self._crop(number) for number in range(step * B, step * B + B)]
        images, labels = (torch.stack(part) for part in zip(*crops, strict=True))
        images = images.float()
        if self._lessons.distort:
            images = photometric(images, generator=self._generator(step, kind=2))
        return images, labels

    def exam(self) -> list[tuple[Tensor, Tensor]]:
        """Crops of the images held out, the same ones every time, in batches."""
        B, crops = self._training.batch, []
        for i, sample in enumerate(self.held):
            crop = self._draw(sample, self._generator(i, kind=3))
            crops += [crop] if crop is not None else []
        if not crops:
            raise DataError(f"None of the {len(self.held)} images held out could be read.")
        parts = [crops[i : i + B] for i in range(0, len(crops), B)]
        return [
            (torch.stack([x for x, _ in part]).float(), torch.stack([y for _, y in part]))
            for part in parts
        ]

    def _crop(self, number: int) -> tuple[Tensor, Tensor]:
        """Crop number so and so of the training; an unreadable image gives way to the next one."""
        n = len(self._learned)
        epoch, place = divmod(number, n)
        if self._order[0] != epoch:
            order = torch.randperm(n, generator=self._generator(epoch, kind=0)).tolist()
            self._order = epoch, order
        for i in range(n):
            sample = self._learned[self._order[1][(place + i) % n]]
            crop = self._draw(sample, self._generator(number, kind=1))
            if crop is not None:
                return crop
        raise DataError("None of the images could be read; failures.json lists the reasons.")

    def _draw(self, sample: Sample, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Crop an image and its label, or None if they cannot be read."""
        read = self._read(sample)
        try:
            return read and scene(*read, self._lessons.scene, generator=generator)
        except DataError as error:
            raise DataError(f"{sample.id}: {error}") from None

    def _read(self, sample: Sample) -> tuple[Image, LabelMap] | None:
        """Image uint8 (H, W, 3) and label uint8 (H, W), or None if they cannot be read."""
        if sample.id in self._shelf:
            return self._shelf[sample.id]
        if sample.id in self.failures or sample.load_label is None:
            return None
        try:
            image = sample.load()
            label = np.asarray(sample.load_label(), np.uint8)
        except (ImageError, DataError) as error:
            self.failures[sample.id] = str(error)
            return None
        size = image.nbytes + label.nbytes
        if self._bytes + size <= SHELF:
            self._shelf[sample.id] = image, label
            self._bytes += size
        return image, label

    def _generator(self, number: int, *, kind: int) -> torch.Generator:
        """Random numbers for one thing alone."""
        return generator(self._training.seed, kind, number)
