"""Images of any number of bands as a network from nothing sees them: 0..255, of one size.

Shapes: `B` images, `C` bands, `H W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.data.bands import bands_of, common_bands
from zerolabel.errors import DataError, ImageError
from zerolabel.ops.draws import generator
from zerolabel.ops.resize import resize_labels
from zerolabel.store import Stage, Store
from zerolabel.types import Sample

LOOKED_AT = 200  # images whose values decide the scale, evenly spaced
ENDS = (1.0, 99.0)  # percentiles of a band that become 0 and 255
SHELF = 1 << 28  # bytes of resized images that are kept, the first ones that are met


@dataclass(frozen=True)
class Scale:
    """Which values become 0 and 255, per band; what lies outside is clipped.

    Attributes:
        low, high: one number for each of C bands.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def bands(self) -> int:
        """C."""
        return len(self.low)

    def arrays(self) -> dict[str, Tensor]:
        """What a model keeps of it."""
        return {"low": torch.tensor(self.low), "high": torch.tensor(self.high)}


def kept_scale(arrays: Mapping[str, Tensor]) -> Scale:
    """The scale that a model kept."""
    return Scale(tuple(arrays["low"].tolist()), tuple(arrays["high"].tolist()))


Pair = tuple[Tensor, Tensor]  # an image and its label
PHOTOS = Scale((0.0,) * 3, (255.0,) * 3)


def scale(samples: Sequence[Sample], *, store: Store) -> Scale:
    """Find the scale of a data set: photos have theirs, bands get one from their values.

    Args:
        samples: all of them.
        store: keeps it.

    Returns:
        The scale.

    Raises:
        DataError: images differ in their number of bands, or none of those that are looked at can
            be read.
    """
    if all(sample.load_bands is None for sample in samples):
        return PHOTOS

    def work() -> Stage:
        common_bands(samples)
        count = min(len(samples), LOOKED_AT)
        ends: list[NDArray[np.float64]] = []
        for _, [i] in store.track("values", range(count), 1):
            sample = samples[i * len(samples) // count]
            with suppress(ImageError):
                ends.append(np.percentile(bands_of(sample), ENDS, axis=(0, 1)))
        if not ends:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        found = np.stack(ends)  # (images, 2, C)
        return Stage({"low": found[:, 0].min(0), "high": found[:, 1].max(0)})

    done = store.stage(cache.key("values", samples, ENDS), work).arrays
    return Scale(tuple(done["low"].tolist()), tuple(done["high"].tolist()))


def picture(sample: Sample, scale: Scale, *, size: tuple[int, int] | None = None) -> Tensor:
    """Read an image.

    Args:
        sample: the image.
        scale: of its data set.
        size: (H, W) in pixels to squash it to; None keeps its own.

    Returns:
        float32 (C, H, W), 0..255.

    Raises:
        ImageError: it cannot be read, or has another number of bands.
    """
    values = torch.tensor(bands_of(sample)).permute(2, 0, 1)  # a copy: files are mapped read-only
    if len(values) != scale.bands:
        raise ImageError(
            f"expected {scale.bands} bands, as the images that were learned from have, found "
            f"{len(values)}"
        )
    low, high = (torch.tensor(ends)[:, None, None] for ends in (scale.low, scale.high))
    x = (255 * (values - low) / (high - low).clamp_min(1e-12)).clamp(0, 255)
    if size is None or tuple(x.shape[1:]) == size:
        return x
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]


class Album:
    """Images of one size, in batches that are a function of the seed and the step alone.

    Attributes:
        epoch: steps in which every image is seen once, but for what fills no batch.
        failures: id -> reason for images that could not be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        scale: Scale,
        *,
        size: tuple[int, int],
        batch: int,
        flip: bool,
        seed: int,
        crop: int = 0,
    ) -> None:
        """Make a list of what there is; nothing is read yet.

        Args:
            samples: from what.
            scale: of their values.
            size: (H, W) in pixels to which they are squashed.
            batch: images per step.
            flip: mirror half of them.
            seed: fixes every draw.
            crop: side in pixels of squares that are cut at random places out of the squashed
                images, or what fits of them; 0 takes whole images.
        """
        self.epoch = max(1, len(samples) // batch)
        self.failures: dict[str, str] = {}
        self._samples, self._scale, self._size = samples, scale, size
        self._batch, self._flip, self._seed, self._crop = batch, flip, seed, crop
        self._shelf: dict[str, Pair] = {}
        self._bytes = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def page(self, step: int) -> Tensor:
        """The images of a step, float32 (B, C, H, W), 0..255.

        Raises:
            DataError: none of the images can be read.
        """
        return torch.stack([image for image, _ in self._pairs(step)])

    def labelled(self, step: int) -> tuple[Tensor, Tensor]:
        """The same images, and their labels by nearest neighbour, int64 (B, H, W), 255 = ignore.

        Raises:
            DataError: none of the images and labels can be read.
        """
        images, labels = zip(*self._pairs(step), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _pairs(self, step: int) -> list[Pair]:
        numbers = range(step * self._batch, (step + 1) * self._batch)
        return [self._drawn(number) for number in numbers]

    def _drawn(self, number: int) -> Pair:
        """Image number so and so of the training; one that cannot be read gives way to the next."""
        n = len(self._samples)
        epoch, place = divmod(number, n)
        if self._order[0] != epoch:
            order = torch.randperm(n, generator=self._generator(epoch, kind=0))
            self._order = epoch, order.tolist()
        for i in range(n):
            pair = self._read(self._samples[self._order[1][(place + i) % n]])
            if pair is not None:
                mirrored = torch.rand((), generator=self._generator(number, kind=1)) < 0.5
                square = self._square(number)
                image, label = (x.flip(-1) if self._flip and mirrored else x for x in pair)
                return image[square], label[square[1:]] if len(label) else label
        raise DataError("None of the images could be read; failures.json lists the reasons.")

    def _square(self, number: int) -> tuple[slice, slice, slice]:
        """What is cut out of an image, as places in its bands, rows and columns."""
        if not self._crop:
            return slice(None), slice(None), slice(None)
        generator, places = self._generator(number, kind=2), []
        for side in self._size:
            start = int(torch.randint(max(1, side - self._crop + 1), (), generator=generator))
            places.append(slice(start, start + self._crop))
        return slice(None), places[0], places[1]

    def _read(self, sample: Sample) -> Pair | None:
        """An image and its label, which is empty where there is none; None if unreadable."""
        if sample.id in self._shelf:
            return self._shelf[sample.id]
        if sample.id in self.failures:
            return None
        try:
            image = picture(sample, self._scale, size=self._size)
            label = _label(sample, self._size)
        except (ImageError, DataError) as error:
            self.failures[sample.id] = str(error)
            return None
        if self._bytes + image.nbytes + label.nbytes <= SHELF:
            self._shelf[sample.id] = image, label
            self._bytes += image.nbytes + label.nbytes
        return image, label

    def _generator(self, number: int, *, kind: int) -> torch.Generator:
        """Random numbers for one thing alone."""
        return generator(self._seed, kind, number)


def _label(sample: Sample, size: tuple[int, int]) -> Tensor:
    """The label of an image, brought to a size by nearest neighbour, int64; empty without one."""
    if sample.load_label is None:
        return torch.empty(0, dtype=torch.int64)
    return torch.from_numpy(resize_labels(sample.load_label(), size).astype(np.int64))
