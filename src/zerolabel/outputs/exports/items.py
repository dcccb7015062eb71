"""What every export is made of: one image after another, cut into what becomes annotations.

Shapes: `R` annotations of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from zerolabel.errors import DataError
from zerolabel.outputs.masks import IGNORE_16
from zerolabel.types import IGNORE, Category, LabelMap

Ids = NDArray[np.int32]  # (H, W)
NONE = -1  # "no annotation" in `Regions.ids`
TOUCHING = np.ones((3, 3), np.bool_)  # pixels that share a corner are of one part


@dataclass(frozen=True)
class Regions:
    """An image cut into annotations, by category and then by first appearance.

    Attributes:
        ids: int32 (H, W), 0..R-1; -1 where there is no annotation.
        categories: int64 (R,), ids of categories, not falling.
        areas: int64 (R,), pixels.
        boxes: R slices of rows and of columns, tight.
    """

    ids: NDArray[np.int32]
    categories: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: list[tuple[slice, slice]]

    def paint(self, values: NDArray[Any], none: Any) -> NDArray[Any]:
        """Give every pixel the value of its category.

        Args:
            values: (K, ...) one per category.
            none: that of pixels without an annotation.

        Returns:
            (H, W, ...) of the type of `values`.
        """
        rest = np.broadcast_to(np.asarray(none, values.dtype), values.shape[1:])
        table = np.concatenate([values[self.categories], rest[None]])  # -1 is the last of them
        return np.asarray(table[self.ids])


@dataclass(frozen=True)
class Item:
    """One image to export.

    Attributes:
        image: its id, a relative POSIX path; that of the mask where nobody knows it.
        mask: relative POSIX path of its mask, unique on every file system, ending in `.png`.
        photo: where the photo is; None where nobody asked.
        regions: its annotations.
    """

    image: str
    mask: str
    photo: Path | None
    regions: Regions


@dataclass(frozen=True)
class Plan:
    """What is the same for all images of an export.

    Attributes:
        run: what the run is called in messages.
        categories: index = id.
        place: the folder in which the files will be found in the end.
        prefix: what is put before an image's path to make it an address.
    """

    run: str
    categories: Sequence[Category]
    place: Path
    prefix: str = ""


@dataclass(frozen=True)
class Format:
    """One format that masks can be exported to.

    Attributes:
        write: writes all files into a folder that is there, taking images one by one.
        check: refuses categories that the format cannot hold, before any work is done.
        names: whether the photos' file names go into it, with their suffixes.
        photos: whether it must know where the photos are.
        parts: whether it can hold several annotations of a category in one image.
        over: whether tools lay the masks over the photos, so that both must have one size.
    """

    write: Callable[[Path, Iterable[Item], Plan], None]
    check: Callable[[Plan], None]
    names: bool = True
    photos: bool = False
    parts: bool = True
    over: bool = True


def cut(
    mask: LabelMap, categories: int, *, parts: bool, minimum: int = 1, path: str = ""
) -> Regions:
    """Cut a mask into annotations: one for each category, or one for each connected part.

    Args:
        mask: uint8 or uint16 (H, W), category ids 0..K-1; 255 or 65535, if above them, is none.
        categories: K.
        parts: whether parts that touch nowhere, not even at corners, are apart.
        minimum: pixels below which an annotation is left out.
        path: names the mask in messages.

    Returns:
        The annotations.

    Raises:
        DataError: the mask holds ids of no category.
    """
    labels = mask.astype(np.int32)
    labels[(labels >= categories) & ((labels == IGNORE) | (labels == IGNORE_16))] = categories
    if labels.max() > categories:
        raise DataError(
            f"The mask {path} holds ids that categories.json does not list: expected 0-"
            f"{categories - 1}, and {IGNORE} for no category, found {labels.max()}. List every "
            "category that the masks hold."
        )
    ids, owners = (_parts if parts else _whole)(labels, categories)
    areas = np.bincount(ids.ravel() + 1, minlength=len(owners) + 1)[1:]
    kept = np.flatnonzero(areas >= minimum)
    if len(kept) < len(areas):
        ids = _numbers(kept, len(areas))[ids]
    return Regions(ids, owners[kept], areas[kept], find_objects(ids + 1))


def _whole(labels: Ids, categories: int) -> tuple[Ids, NDArray[np.int64]]:
    """Number the categories that occur; return the map of numbers and the category of each."""
    counts = np.bincount(labels.ravel(), minlength=categories + 1)
    owners = np.flatnonzero(counts[:categories])
    return _numbers(owners, categories)[labels], owners


def _parts(labels: Ids, categories: int) -> tuple[Ids, NDArray[np.int64]]:
    """Number the parts of the categories, one category after the other."""
    ids = np.full(labels.shape, NONE, np.int32)
    owners: list[int] = []
    for k, box in enumerate(find_objects(labels + 1, max_label=categories)):
        if box is not None:
            inside = labels[box] == k
            pieces, count = label(inside, structure=TOUCHING)
            ids[box][inside] = pieces[inside] + (len(owners) - 1)
            owners += count * [k]
    return ids, np.array(owners, np.int64)


def _numbers(kept: NDArray[np.int64], count: int) -> Ids:
    """A table of new numbers for those of 0..count-1 that are kept; count, or -1, stays none."""
    numbers = np.full(count + 1, NONE, np.int32)
    numbers[kept] = np.arange(len(kept))
    return numbers
