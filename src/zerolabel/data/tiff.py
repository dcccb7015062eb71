"""TIFF files that hold more than a photo: other numbers of bands, other types of values.

What a file holds is read from its first directory, with Pillow; the values of several bands come
through tifffile, the extra `bands`. Source of tags and values: TIFF revision 6.0, Adobe, 1992.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from zerolabel.data.arrays import LARGEST, bands_axis
from zerolabel.data.opening import check_pixels
from zerolabel.errors import ImageError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRAS = 258, 262, 274, 277, 338  # tags
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3}  # photometric -> samples
VALUES = (0, 1, 2)  # photometric where samples are values: grey and RGB; palettes, say, are not
TURNED = {  # what undoes each value of the orientation, on (H, W, C)
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
STACKS = ("S", "C", "Q")  # axes of tifffile: samples, channels, and what a program did not name


@dataclass(frozen=True)
class Kind:
    """What a TIFF file holds.

    Attributes:
        samples: per pixel of the first page.
        banded: no photo: another number of bands than its colours need, or values that Pillow does
            not read.
        deep: has values of more than 8 bits that a photo does not show.
        alphas: which of the samples are transparency.
    """

    samples: int
    banded: bool
    deep: bool
    alphas: tuple[int, ...]


def look(path: Path) -> Kind | None:
    """Look into the first directory of a TIFF file.

    Args:
        path: a regular file.

    Returns:
        What it holds; None if it is no TIFF, or too damaged to tell.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that does not matter here
            header = file.read(8)
            if header[:4] not in MAGIC:
                return None
            header += file.read(8) if b"+" in header[:4] else b""
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
            return _kind(path, tags)
    except Exception:  # damaged: whoever reads it says so
        return None


def shape(path: Path, kind: Kind) -> tuple[int, ...]:
    """Find the shape of what `read` gives, without decoding.

    Args:
        path: a TIFF file.
        kind: as `look` gives it.
    """
    if not kind.banded and kind.samples == 1:
        with Pillow.open(path, formats=["TIFF"]) as image:
            return (image.height, image.width, 1)
    with _tifffile().TiffFile(path) as file:
        H, W, C = _last(file.series[0])[0]
        return (H, W, C - len(kind.alphas) if kind.samples == C else C)


def read(path: Path, kind: Kind) -> NDArray[Any]:
    """Read the values of a TIFF file, upright, without transparency.

    Args:
        path: a TIFF file.
        kind: as `look` gives it.

    Returns:
        (H, W, C) of the type in the file; (H, W) of one sample.

    Raises:
        ImageError: tifffile is needed and not there, or the file has other axes.
    """
    if not kind.banded and kind.samples == 1:
        with Pillow.open(path, formats=["TIFF"]) as image:  # in every compression, and upright
            return np.asarray(image)
    with _tifffile().TiffFile(path) as file:
        series = file.series[0]
        (H, W, C), axis = _last(series)
        check_pixels(H * W)
        tag = series.keyframe.tags.get(ORIENTATION)
        values = np.asarray(series.asarray()).reshape(series.shape)
    values = values[..., None] if values.ndim == 2 else np.moveaxis(values, axis, 2)
    if kind.samples == C:
        values = np.delete(values, kind.alphas, axis=2)
    turned: NDArray[Any] = TURNED.get(tag.value if tag else 1, np.asarray)(values)
    return turned


def _kind(path: Path, tags: Any) -> Kind:
    """Judge by the tags of the first page, and for a stack of pages by what was written of it."""
    samples = int(tags.get(SAMPLES, 1))
    photometric = tags.get(PHOTOMETRIC)
    extras = tuple(tags.get(EXTRAS, ()))[:samples]
    alphas = tuple(samples - len(extras) + i for i, extra in enumerate(extras) if extra in (1, 2))
    deep = max(tags.get(BITS, (1,))) > 8
    banded = samples - len(alphas) != COLOURS.get(photometric, samples - len(alphas))
    if not banded and samples == 1 and tags.next:
        banded = _is_stack(path)
    if not banded and deep and photometric in VALUES:
        banded = not _pillow_reads(path)
    return Kind(samples, banded, deep and photometric in VALUES, alphas)


def _pillow_reads(path: Path) -> bool:
    try:
        with Pillow.open(path, formats=["TIFF"]):
            return True
    except Exception:  # a layout that it does not know, such as floats in colour
        return False


def _is_stack(path: Path) -> bool:
    """Say whether pages are the bands of one image; pages of no declared order are frames."""
    if importlib.util.find_spec("tifffile") is None:
        return False
    with _tifffile().TiffFile(path) as file:
        series = file.series[0]
        others = [axis for axis in series.axes if axis not in "YX"]
        if len(others) != 1 or others[0] not in STACKS:
            return False
        return others[0] != "Q" or bands_axis(series.shape) is not None


def _last(series: Any) -> tuple[tuple[int, int, int], int]:
    """Find (H, W, C) of a series of tifffile, and which of its axes the bands are."""
    found, axes = tuple(series.shape), series.axes
    if axes == "YX":
        return (found[0], found[1], 1), 2
    named = [i for i, name in enumerate(axes) if name in STACKS]
    axis = named[0] if len(found) == 3 and len(named) == 1 else None
    if axis is not None and axes[axis] == "Q":
        axis = bands_axis(found)
    if axis not in (0, 2):
        raise ImageError(
            f"axes {axes} of lengths {found}: expected rows, columns and bands; save one image "
            "per file"
        )
    H, W = found[1:] if axis == 0 else found[:2]
    if found[axis] > LARGEST:
        raise ImageError(f"{found[axis]} bands: expected 1 to {LARGEST}")
    return (H, W, found[axis]), axis


def _tifffile() -> Any:
    """Import tifffile, or say how to get it."""
    try:
        import tifffile
    except ImportError:
        raise ImageError(
            "several bands or uncommon values: reading them needs the package tifffile; "
            "pip install 'zerolabel[bands]'"
        ) from None
    return tifffile
