"""Images that are no photos: 1 to 16 bands of any numbers, from .npy and TIFF files.

The values stay as they are in the file. So that every method can look at such an image, three of
its bands make a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.data import tiff
from zerolabel.data.arrays import LARGEST, check_type, is_array, load_array
from zerolabel.data.opening import check_file, in_words
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.types import Image, Sample

PREVIEW = (0, 1, 2)  # the bands of a preview: red, green and blue
EXACT = 1 << 24  # whole numbers up to here are themselves as float32
STRETCH = (2, 98)  # percentiles that become 0 and 255
SAMPLED = 1 << 20  # pixels that percentiles are taken from

Bands = NDArray[np.float32]
Three = tuple[int, int, int]


@dataclass(frozen=True)
class BandFile:
    """Reads the bands of a file when it is called; what `Sample.load_bands` is for files.

    Attributes:
        path: a .npy or TIFF file.
    """

    path: Path

    def __call__(self) -> Bands:
        """Read the file, see `read_bands`."""
        return read_bands(self.path)

    def count(self) -> int:
        """Count the bands by the header alone.

        Raises:
            ImageError: the file cannot be read, or is no image.
        """
        check_file(self.path)
        with in_words():
            if is_array(self.path):
                found = load_array(self.path).shape
                return found[2] if len(found) == 3 else 1
            kind = tiff.look(self.path)
            if kind is None:
                raise ImageError("not an image, or of a format that is not supported")
            return tiff.shape(self.path, kind)[2]


def find_bands(path: Path) -> BandFile | None:
    """Look whether a file has more to give than a photo of 8 bits.

    Args:
        path: any file; only its header is read.

    Returns:
        What reads it: of .npy files, of TIFF files with another number of bands than their colours
        need, and of grey or RGB ones with more than 8 bits. None for all others.
    """
    try:
        check_file(path)
        if is_array(path):
            return BandFile(path)
        kind = tiff.look(path)
    except (OSError, ImageError):
        return None
    return BandFile(path) if kind is not None and (kind.banded or kind.deep) else None


def read_bands(path: Path) -> Bands:
    """Read the bands of one image, with the values of the file.

    Args:
        path: a .npy file of shape (H, W), (H, W, C) or (C, H, W) - bands are the last axis, unless
            only the first is 16 or less - or a TIFF file; nothing in it is run.

    Returns:
        float32 (H, W, C), C in 1..16.

    Raises:
        ImageError: unreadable, no image, other types than real numbers, NaN or infinite values,
            or tifffile is needed and not there.
    """
    check_file(path)
    with in_words():
        if is_array(path):
            return _checked(load_array(path))
        kind = tiff.look(path)
        if kind is None:
            raise ImageError("not an image, or of a format that is not supported")
        values = tiff.read(path, kind)
        check_type(values.dtype)
        return _checked(values)


def preview(bands: Bands, *, chosen: Three = PREVIEW) -> Image:
    """Make a picture of three bands, each stretched from its 2nd to its 98th percentile.

    Args:
        bands: float32 (H, W, C), finite.
        chosen: numbers of the bands that become red, green and blue, from 0. One band gives a grey
            picture; the default takes of two bands the second for green and blue.

    Returns:
        uint8 (H, W, 3); 128 where a band is constant.

    Raises:
        ImageError: there is no such band.
    """
    count = bands.shape[2]
    if count == 1 or chosen == PREVIEW:
        chosen = (0, min(1, count - 1), min(2, count - 1))
    if max(chosen) >= count:
        raise ImageError(
            f"band {max(chosen)} was asked for to be shown: expected one of 0..{count - 1}"
        )
    shown = {number: _stretched(bands[..., number]) for number in set(chosen)}
    return np.stack([shown[number] for number in chosen], axis=2)


def check_chosen(chosen: tuple[int, ...]) -> None:
    """Check numbers of bands before any image is opened.

    Raises:
        UsageError: not three numbers of 0..15.
    """
    if len(chosen) != 3 or not all(0 <= number < LARGEST for number in chosen):
        raise UsageError(
            f"Expected three bands to show, numbered from 0 to {LARGEST - 1}; found {chosen}."
        )


def bands_of(sample: Sample) -> Bands:
    """Load the bands of any sample; those of a photo are red, green and blue, 0..255.

    Args:
        sample: with or without `load_bands`.

    Returns:
        float32 (H, W, C).

    Raises:
        ImageError: it cannot be read.
    """
    return sample.load().astype(np.float32) if sample.load_bands is None else sample.load_bands()


def common_bands(samples: Iterable[Sample]) -> int:
    """Find the number of bands that all images have, by their headers.

    Args:
        samples: photos have 3; those that cannot be read do not count.

    Returns:
        C.

    Raises:
        DataError: two images differ, or none can be read.
    """
    first: tuple[str, int] | None = None
    reason = "there is none"
    for sample in samples:
        try:
            count = _count(sample)
        except ImageError as error:
            reason = f"{sample.id}: {error}"
            continue
        first = first or (sample.id, count)
        if count != first[1]:
            raise DataError(
                f"The images have different numbers of bands: {first[0]} has {first[1]}, "
                f"{sample.id} has {count}. Expected one number for all; put the others into a "
                "folder of their own."
            )
    if first is None:
        raise DataError(f"No image can be read: {reason}. Give a folder of images.")
    return first[1]


def _count(sample: Sample) -> int:
    if sample.load_bands is None:
        return 3
    if isinstance(sample.load_bands, BandFile):
        return sample.load_bands.count()
    return int(sample.load_bands().shape[2])


def _checked(values: NDArray[Any]) -> Bands:
    """Bring (H, W) or (H, W, C) to float32 (H, W, C), or say why that cannot be."""
    values = values[..., None] if values.ndim == 2 else values
    if not values.size:
        raise ImageError("has no pixels")
    if values.dtype.kind in "iu" and values.dtype.itemsize > 2:
        low, high = int(values.min()), int(values.max())
        if max(-low, high) > EXACT:
            raise ImageError(
                f"whole numbers from {low} to {high}: expected at most 2^24, which 32-bit floats "
                "hold; scale them first"
            )
    with np.errstate(over="ignore"):
        bands = np.ascontiguousarray(values, dtype=np.float32)
    pixels = bands.shape[0] * bands.shape[1]
    for word, wrong in (("NaN", np.isnan), ("infinite values", np.isinf)):
        for number in range(bands.shape[2]):
            if count := int(np.count_nonzero(wrong(bands[..., number]))):
                raise ImageError(f"{word} in {count} of {pixels} pixels of band {number}")
    return bands


def _stretched(band: Bands) -> NDArray[np.uint8]:
    """Spread a band over 0..255 from low to high percentile, or over its range if these are one."""
    step = max(1, int(np.ceil(np.sqrt(band.size / SAMPLED))))
    low, high = np.percentile(band[::step, ::step].astype(np.float64), STRETCH)
    if low == high:
        low, high = float(band.min()), float(band.max())
    if low == high:
        return np.full(band.shape, 128, np.uint8)
    shares = (band.astype(np.float64) - low) / (high - low)
    stretched: NDArray[np.uint8] = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return stretched
