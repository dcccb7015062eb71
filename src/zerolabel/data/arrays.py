"""Images in .npy files, and which axis of an array holds the bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import ImageError

LARGEST = 16  # bands
MAGIC = b"\x93NUMPY"


def is_array(path: Path) -> bool:
    """Say whether a file is one of NumPy, by its first bytes.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load_array(path: Path) -> NDArray[Any]:
    """Map a .npy file; nothing in it is run, and only a header that fits its file can be mapped.

    Args:
        path: a file that `is_array`.

    Returns:
        Real numbers (H, W) or (H, W, C), C in 1..16, on disk.

    Raises:
        ImageError: objects, other types than real numbers, or a shape that is no image's.
        ValueError: a damaged header.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "object" in str(error).lower():
            raise ImageError("holds Python objects: expected numbers; save a plain array") from None
        raise
    check_type(array.dtype)
    axis = bands_axis(array.shape) if array.ndim == 3 else None
    if not array.size or (array.ndim != 2 and axis is None):
        raise ImageError(
            f"an array of shape {array.shape}: expected (height, width), or (height, width, bands) "
            f"or (bands, height, width) with 1 to {LARGEST} bands"
        )
    return array if axis is None else np.moveaxis(array, axis, 2)


def bands_axis(found: Sequence[int]) -> int | None:
    """Find the axis of the bands: the last, unless only the first is small enough.

    Args:
        found: three lengths.

    Returns:
        2 or 0; None if neither is 1..16.
    """
    return next((axis for axis in (2, 0) if 1 <= found[axis] <= LARGEST), None)


def check_type(dtype: np.dtype[Any]) -> None:
    """Refuse what are no real numbers.

    Raises:
        ImageError: complex values, texts, times and the like.
    """
    if dtype.kind == "c":
        raise ImageError(
            f"complex values ({dtype}): expected real ones; take the magnitude, np.abs, first"
        )
    if dtype.kind not in "iufb":
        raise ImageError(f"values of type {dtype}: expected whole numbers or floats")
