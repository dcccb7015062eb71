"""The sizes and crops at which published protocols look at images and labels.

Pillow resizes and crops here as the published code has it do, so that crops agree to the pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image as Pillow

from zerolabel.data.labels import fit
from zerolabel.types import Image, LabelMap, Sample

Size = tuple[int, int]  # (H, W) in pixels
FULL = "full"  # the geometry that leaves everything as it is


@dataclass(frozen=True)
class Geometry:
    """How images and labels are brought to the size at which they are scored.

    Attributes:
        id: its name in `GEOMETRIES`.
        description: what it does, in words.
        target: (H, W) of the images; None leaves them as they are.
        crop: bring the shorter side to `target` and cut out the middle, instead of squashing.
        filter: by which Pillow resizes images; labels always take the nearest pixel.
        own_labels: labels keep their size, and predictions are brought to it (nearest).
        exceptions: data set -> another target.
    """

    id: str
    description: str
    target: Size | None = None
    crop: bool = False
    filter: Pillow.Resampling = Pillow.Resampling.BILINEAR
    own_labels: bool = False
    exceptions: Mapping[str, Size] = field(default_factory=dict)

    def size(self, dataset: str) -> Size | None:
        """Say how large the images of a data set become.

        Args:
            dataset: its name.

        Returns:
            (H, W) in pixels; None: every image keeps its own size.
        """
        return self.exceptions.get(dataset, self.target)


GEOMETRIES: dict[str, Geometry] = {
    geometry.id: geometry
    for geometry in (
        Geometry(FULL, "images and labels as they are"),
        Geometry(
            "picie-320",
            "shorter side to 320 (bilinear), the middle 320x320; labels nearest, same crop",
            target=(320, 320),
            crop=True,
        ),
        Geometry(
            "stego-320",
            "as picie-320, but images too are resized by the nearest pixel",
            target=(320, 320),
            crop=True,
            filter=Pillow.Resampling.NEAREST,
        ),
        Geometry(
            "transfgu",
            "squashed to 320x320, Cityscapes 320x640, LIP 640x320 (bilinear); labels nearest",
            target=(320, 320),
            exceptions={"cityscapes": (320, 640), "lip": (640, 320)},
        ),
        Geometry(
            "maskcontrast-512",
            "images squashed to 512x512 (bicubic), predictions brought back to the labels' size",
            target=(512, 512),
            filter=Pillow.Resampling.BICUBIC,
            own_labels=True,
        ),
    )
}


def view_image(image: Image, geometry: Geometry, dataset: str = "") -> Image:
    """Bring an image to the size at which a protocol looks at it.

    Args:
        image: uint8 (H, W, 3).
        geometry: an entry of `GEOMETRIES`.
        dataset: name of the data set, for those that have a size of their own.

    Returns:
        uint8 (h, w, 3).
    """
    size = geometry.size(dataset)
    if size is None:
        return image
    height, width = _resized(image.shape[:2], size, crop=geometry.crop)
    picture = Pillow.fromarray(image).resize((width, height), geometry.filter)
    return np.array(picture)[_middle((height, width), size)]


def view_label(label: LabelMap, geometry: Geometry, dataset: str = "") -> LabelMap:
    """Bring a label map, or a mask to be scored, to the size at which a protocol looks at it.

    Args:
        label: integer (H, W).
        geometry: an entry of `GEOMETRIES`.
        dataset: name of the data set, for those that have a size of their own.

    Returns:
        Same type, (h, w), of the same pixels that `view_image` shows.
    """
    size = geometry.size(dataset)
    if size is None or geometry.own_labels:
        return label
    resized = _resized(label.shape, size, crop=geometry.crop)
    return fit(label, resized)[_middle(resized, size)]


def through(samples: Iterable[Sample], geometry: Geometry, dataset: str = "") -> tuple[Sample, ...]:
    """Look at samples through a geometry, when they are loaded.

    Args:
        samples: in any order.
        geometry: an entry of `GEOMETRIES`.
        dataset: name of the data set, for those that have a size of their own.

    Returns:
        Samples of the same ids whose images, labels and regions have the geometry's size; their
        digests name it, so that cached features of another size are not taken for theirs.
    """
    size = geometry.size(dataset)
    if size is None:
        return tuple(samples)
    mark = f"{geometry.id}-{size[0]}x{size[1]}"
    return tuple(_through(sample, geometry, dataset, mark) for sample in samples)


def _through(sample: Sample, geometry: Geometry, dataset: str, mark: str) -> Sample:
    label, regions = sample.load_label, sample.load_regions

    def load_regions(load: Any) -> list[LabelMap]:
        return [view_label(one, geometry, dataset) for one in load()]

    return replace(
        sample,
        load=lambda: view_image(sample.load(), geometry, dataset),
        digest=lambda: f"{sample.digest()}-{mark}",
        load_label=None if label is None else lambda: view_label(label(), geometry, dataset),
        load_regions=None if regions is None else partial(load_regions, regions),
        load_bands=None,  # geometries are those of photos
    )


def _resized(shape: tuple[int, ...], size: Size, *, crop: bool) -> Size:
    """The size before the crop; of the longer side the fraction of a pixel is dropped."""
    if not crop:
        return size
    H, W = shape
    short = size[0]
    return (short, short * W // H) if H <= W else (short * H // W, short)


def _middle(shape: Size, size: Size) -> tuple[slice, slice]:
    """The middle of a picture; halves are rounded to even, as Python's `round` does."""
    top, left = (round((have - want) / 2) for have, want in zip(shape, size, strict=True))
    return slice(top, top + size[0]), slice(left, left + size[1])
