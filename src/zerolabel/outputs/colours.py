"""Colours for categories: easy to tell apart, quiet on photos, legible on white and on dark pages.

The first `CHOSEN` colours are picked greedily, each as far as possible from all before it in OKLab
(Ottosson, "A perceptual color space for image processing", 2020), among colours of medium lightness
and chroma. Later ones walk through the same part of the colour space without repeating themselves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

CHOSEN = 256
MAX_COLOURS = 65535  # 16-bit masks, less the value for "no category"
FIRST = (66, 133, 212)
LIGHTNESS = (0.55, 0.85)  # darker drowns on a dark page, lighter on a white one
CHROMA = (0.10, 0.18)  # greyer hides on photos, stronger shouts
LIGHTNESS_WEIGHT = 0.7  # under a translucent overlay the photo decides most of the lightness
GRID = 12  # step of the candidates in RGB
STRIDE = 0x9E3779  # odd, near 2**24 / golden ratio: a walk over all 24-bit colours, spread evenly
WALK = 1 << 12  # colours looked at in one go; about a quarter of them are pleasant

_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def palette(k: int) -> NDArray[np.uint8]:
    """Return K visually distinct colours; colour i is the same whatever K is.

    Args:
        k: how many, 0..65535.

    Returns:
        RGB, uint8 (k, 3), no two alike.

    Raises:
        UsageError: `k` is out of range.
    """
    if not 0 <= k <= MAX_COLOURS:
        raise UsageError(f"A palette has 0 to {MAX_COLOURS} colours, not {k}.")
    chosen = _chosen()
    parts, count, start = [chosen], len(chosen), 0
    while count < k:
        parts.append(_walk(start, WALK))
        count += len(parts[-1])
        start += WALK
    return np.concatenate(parts)[:k]


def oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert sRGB to OKLab.

    Args:
        rgb: uint8 (..., 3).

    Returns:
        Lightness 0..1 and the axes a (green to red) and b (blue to yellow), float64 (..., 3).
    """
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ _LINEAR_TO_LMS.T) @ _LMS_TO_LAB.T
    return lab


@lru_cache(maxsize=1)
def _chosen() -> NDArray[np.uint8]:
    """Pick the first colours, farthest point first, from a grid of pleasant candidates."""
    levels = np.arange(0, 256, GRID, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    candidates = np.concatenate([np.array([FIRST], dtype=np.uint8), grid[_pleasant(grid)]])
    lab = oklab(candidates) * (LIGHTNESS_WEIGHT, 1, 1)
    picked = [0]
    distance = np.full(len(lab), np.inf)
    for _ in range(CHOSEN - 1):
        distance = np.minimum(distance, ((lab - lab[picked[-1]]) ** 2).sum(axis=1))
        # rounded, so that a tie falls the same way on every machine
        picked.append(int(np.round(distance, 9).argmax()))
    return candidates[picked]


def _walk(start: int, steps: int) -> NDArray[np.uint8]:
    """Return the pleasant colours, none of them chosen, among `steps` colours of the walk."""
    code = (np.arange(start, start + steps, dtype=np.int64) * STRIDE) % (1 << 24)
    rgb = np.stack([code >> 16, code >> 8 & 255, code & 255], axis=-1).astype(np.uint8)
    first = _chosen().astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return rgb[_pleasant(rgb) & ~np.isin(code, first)]


def _pleasant(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    lab = oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    light = (lab[:, 0] >= LIGHTNESS[0]) & (lab[:, 0] <= LIGHTNESS[1])
    inside: NDArray[np.bool_] = light & (chroma >= CHROMA[0]) & (chroma <= CHROMA[1])
    return inside
