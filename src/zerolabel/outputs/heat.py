"""Pictures of maps: colours by value, over the photo, as lines, beside it, and one head by another.

Shapes: `H W` pixels. Values are 0..1 here; `ops.maps.normalise` brings them there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import oklab
from zerolabel.outputs.overlay import thumbnail
from zerolabel.types import Image

Map = NDArray[np.floating[Any]]  # (H, W), 0..1
Mask = NDArray[np.bool_]  # (H, W)
# Night to candlelight; the way between is cut so that lightness rises evenly.
ANCHORS = (
    (6, 4, 26),
    (58, 14, 102),
    (132, 30, 110),
    (200, 52, 78),
    (240, 106, 38),
    (252, 176, 50),
    (250, 248, 196),
)
SHADES = 256
WEAKEST, STRONGEST = 0.25, 0.8  # how much of the colour lies over the photo at value 0 and 1
LINE = (255, 214, 10)
LINE_EVERY = 300  # pixels of the longer side per pixel of line
GAP, PAPER, INK = 8, 255, (30, 30, 30)
TILE, ROW = 280, 4  # of a strip: longest side of a tile, tiles in a row
BAR = 14  # width of the colour bar


@lru_cache(maxsize=1)
def shades() -> NDArray[np.uint8]:
    """Return the colours of the values 0..1: uint8 (256, 3), evenly rising in OKLab lightness."""
    steps = np.linspace(0, len(ANCHORS) - 1, 4096)
    anchors = np.array(ANCHORS, np.float64)
    path = np.stack([np.interp(steps, range(len(ANCHORS)), c) for c in anchors.T], axis=1)
    light = oklab(path)[:, 0]
    even = np.linspace(light[0], light[-1], SHADES)
    colours = np.stack([np.interp(even, light, channel) for channel in path.T], axis=1)
    table: NDArray[np.uint8] = np.rint(colours).astype(np.uint8)
    return table


def heat(values: Map) -> Image:
    """Draw values as colours.

    Args:
        values: float (H, W), 0..1.

    Returns:
        uint8 (H, W, 3).
    """
    return shades().take(_levels(values), axis=0)


def heat_overlay(image: Image, values: Map) -> Image:
    """Lay the colours of values over the photo, the stronger the higher the value.

    Args:
        image: uint8 (H, W, 3).
        values: float (H, W), 0..1.

    Returns:
        uint8 (H, W, 3).

    Raises:
        UsageError: the sizes differ.
    """
    _check(image, values)
    share = np.linspace(WEAKEST, STRONGEST, SHADES) * 255
    levels = _levels(values)
    alpha = Pillow.fromarray(np.rint(share).astype(np.uint8)[levels])
    colours = Pillow.fromarray(shades().take(levels, axis=0))
    return np.array(Pillow.composite(colours, Pillow.fromarray(image), alpha))


def contour(image: Image, mask: Mask) -> Image:
    """Draw the outline of a mask on the photo: a bright line inside, a dark one outside.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W).

    Returns:
        uint8 (H, W, 3); nothing is drawn along the edges of the photo itself.

    Raises:
        UsageError: the sizes differ.
    """
    _check(image, mask)
    width = max(1, round(max(mask.shape) / LINE_EVERY))
    drawn = image.copy()
    cross = np.ones((3, 3), bool)
    inner = mask & ~binary_erosion(mask, cross, iterations=width, border_value=1)
    outer = ~mask & binary_dilation(mask, cross, iterations=max(1, width // 2))
    drawn[outer] //= 3
    drawn[inner] = LINE
    return drawn


def binary(mask: Mask) -> Image:
    """Draw a mask white on black: bool (H, W) to uint8 (H, W, 3)."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def beside(pictures: Sequence[Image], *, limits: tuple[float, float] | None = None) -> Image:
    """Put pictures of one height side by side, and the scale of colours at the end.

    Args:
        pictures: uint8 (H, W_i, 3).
        limits: the values of the first and the last colour; None leaves the scale out.

    Returns:
        uint8 (H, sum of the widths and of the gaps, 3).
    """
    height = pictures[0].shape[0]
    gap = np.full((height, GAP, 3), PAPER, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    if limits is not None:
        parts += [gap, scale(height, limits)]
    return np.concatenate(parts, axis=1)


def scale(height: int, limits: tuple[float, float]) -> Image:
    """Draw the scale of colours with the values at both ends: uint8 (height, width, 3)."""
    low, high = (f"{value:.2g}" for value in limits)
    font = ImageFont.load_default(min(12, max(6, height // 8)))
    probe = ImageDraw.Draw(Pillow.new("RGB", (1, 1)))
    text = [probe.textbbox((0, 0), words, font=font) for words in (low, high)]
    width = BAR + 4 + math.ceil(max(box[2] for box in text))
    levels = np.linspace(1, 0, height)[:, None].repeat(BAR, axis=1)
    canvas = Pillow.new("RGB", (width, height), (PAPER,) * 3)
    canvas.paste(Pillow.fromarray(heat(levels)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((BAR + 4, 0), high, fill=INK, font=font)
    draw.text((BAR + 4, height - text[0][3] - 1), low, fill=INK, font=font)
    return np.array(canvas)


def strip(pictures: Mapping[str, Image]) -> Image:
    """Show pictures as labelled tiles in rows.

    Args:
        pictures: label -> uint8 (H, W, 3), all of one size.

    Returns:
        uint8, at most four tiles wide.
    """
    font = ImageFont.load_default(14)
    tiles = {label: thumbnail(picture, side=TILE) for label, picture in pictures.items()}
    height, width = next(iter(tiles.values())).shape[:2]
    height += 20  # the label
    columns = min(ROW, len(tiles))
    rows = -(-len(tiles) // columns)
    total = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    canvas = Pillow.new("RGB", total, (PAPER,) * 3)
    draw = ImageDraw.Draw(canvas)
    for i, (label, tile) in enumerate(tiles.items()):
        left, top = i % columns * (width + GAP), i // columns * (height + GAP)
        draw.text((left + 2, top + 1), label, fill=INK, font=font)
        canvas.paste(Pillow.fromarray(tile), (left, top + 20))
    return np.array(canvas)


def _levels(values: Map) -> NDArray[np.intp]:
    """Turn values 0..1 into rows of `shades`."""
    scaled = np.nan_to_num(values) * (SHADES - 1) + 0.5
    return scaled.clip(0, SHADES - 1).astype(np.intp)


def _check(image: Image, values: NDArray[np.generic]) -> None:
    if image.shape != (*values.shape, 3):
        raise UsageError(
            f"Expected a photo (H, W, 3) and a map (H, W) of one size, found {image.shape} and "
            f"{values.shape}."
        )
