"""How strong an edge runs through every pixel, in each of eight directions.

A disc around the pixel is cut in two along the direction, and the histograms of its halves are
compared: an edge is where they differ. Bins overlap, because a soft shade that crosses from one bin
to the next is no edge.

Source: Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local
brightness, color, and texture cues", PAMI 26, 2004, section 2 (chi-squared difference of half
discs). There the cues are weighed by what was learned from people's outlines; here all bands and
radii count alike. Xia and Kulis, "W-Net", 2017, Algorithm 2, merges regions by such a strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.types import Image

ORIENTATIONS = 8
STEPS = 8  # parts that the way from one bin to the next has; counts stay small whole numbers
STRIP = 20_000  # pixels at a time: what is computed of them stays near the cores
LARGEST = 30  # radius up to which the counts of a disc fit into 16 bits

Strength = NDArray[np.float32]
Counts = NDArray[np.int16]
Step = tuple[int, int]


def edge_strength(
    bands: NDArray[Any],
    *,
    radii: Sequence[int] = (3, 6),
    bins: int = 8,
    span: float = 0.0,
) -> Strength:
    """Compare the two halves of discs around every pixel, cut in eight directions.

    Args:
        bands: real numbers (H, W, C) or (H, W), any range, no NaN. Each band is spread over the
            bins from its 1st to its 99th percentile.
        radii: of the discs in pixels, 1..30; the mean over them is taken.
        bins: of a histogram, 2 or more.
        span: the least range that is spread over the bins, in units of the bands; noise of a band
            that says nothing else stays weak.

    Returns:
        float32 (H, W, 8), 0 (halves alike) to 1 (no bin in common), the mean over bands. Number k
        cuts along the line that rises by k * 22.5 degrees from left to right, 4 being upright.

    Raises:
        UsageError: no such image, or settings out of range.
    """
    values = np.asarray(bands)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or not values.size or values.dtype.kind not in "iufb":
        what = f"{values.dtype} {np.shape(bands)}"
        raise UsageError(f"Expected an image (H, W, C) of real numbers; found {what}.")
    if not radii or min(radii) < 1 or max(radii) > LARGEST or bins < 2:
        raise UsageError(
            f"Expected radii of 1..{LARGEST} and 2 bins or more; found {tuple(radii)}, {bins} bins."
        )
    H, W, C = values.shape
    rows, margin = max(1, STRIP // W), max(radii)
    found = np.zeros((ORIENTATIONS, H, W), np.float32)
    for band in np.moveaxis(values, 2, 0):
        shades = np.pad(_shades(band, bins, span), margin, mode="symmetric")
        for bin_ in range(bins):
            counts = (STEPS - np.abs(shades - STEPS * bin_)).clip(0).astype(np.int16)
            if counts.any():
                for radius, top in product(radii, range(0, H, rows)):
                    part = counts[top : top + rows + 2 * margin]
                    _add_differences(part, radius, found[:, top : top + rows], margin=margin)
    found *= np.float32(1 / (C * len(radii)))
    return np.moveaxis(found, 0, 2)


def opponents(image: Image) -> NDArray[np.float32]:
    """Tell brightness and the two colour differences of a photo apart.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        float32 (H, W, 3), brightness, red against green and yellow against blue; 0..1, the
        differences 0.5 for greys.
    """
    red, green, blue = np.moveaxis(image.astype(np.float32) / 255, 2, 0)
    warm = (red + green) / 2
    parts = ((red + green + blue) / 3, (red - green + 1) / 2, (warm - blue + 1) / 2)
    return np.stack(parts, axis=2)


def _shades(band: NDArray[Any], bins: int, span: float) -> Counts:
    """Say how far every value is on its way through the bins, in whole steps."""
    low, high = np.percentile(band.astype(np.float64), (1, 99))
    if not np.isfinite(high - low):
        raise UsageError("Expected finite values in every band; found NaN or infinite ones.")
    middle, width = (low + high) / 2, max(high - low, span)
    if width == 0:  # what few values differ are noise, and so is what they differ by
        return np.zeros(band.shape, np.int16)
    share = ((band.astype(np.float32) - middle) / width + 0.5).clip(0, 1)
    shades: Counts = np.rint(share * (STEPS * (bins - 1))).astype(np.int16)
    return shades


def _add_differences(counts: Counts, radius: int, found: Strength, *, margin: int) -> None:
    """Add what one bin contributes to the chi-squared difference of the halves.

    With g and h the shares of the halves in the bin, each over the mass of half a disc, that is
    (g - h)^2 / 2 (g + h). Pixels on the line are in neither half, so that an edge right beside the
    pixel is as strong along the axes as across them. Halves are made of sectors, and turning the
    line moves one sector from either half to the other.

    Args:
        counts: int16 (H + 2 margin, W + 2 margin), how much every pixel is in the bin.
        radius: of the disc.
        found: float32 (8, H, W), added to.
        margin: of the counts, at least the radius.
    """
    _, H, W = found.shape

    def total(steps: list[Step], sign: int) -> Counts:
        parts = np.zeros((H, W), np.int16)
        for down, right in steps:
            parts += counts[margin + sign * down :, margin + sign * right :][:H, :W]
        return parts

    groups = _half_disc(radius)
    sums = {group: (total(steps, 1), total(steps, -1)) for group, steps in groups.items()}
    excess = {group: ahead - behind for group, (ahead, behind) in sums.items()}
    zero, pixels = np.zeros((H, W), np.int16), 2 * sum(map(len, groups.values()))
    disc = sum((ahead + behind for ahead, behind in sums.values()), zero)
    left = sum((part for group, part in excess.items() if group), zero)  # all but line 0 itself
    square = np.empty((H, W), np.float32)
    for turn in range(ORIENTATIONS):
        line, sector, following = 2 * turn, 2 * turn + 1, 2 * turn + 2
        mass = np.maximum(disc - sum(sums.get(line, ())), 1)
        np.multiply(left, left, out=square, dtype=np.float32)
        square /= mass
        square *= np.float32(1 / (STEPS * (pixels - 2 * len(groups.get(line, ())))))
        found[turn] += square
        # What lay between goes over, the old line joins the other half, the next line leaves.
        left = left - 2 * excess.get(sector, 0) - excess.get(line, 0) - excess.get(following, 0)


@cache
def _half_disc(radius: int) -> dict[int, list[Step]]:
    """Sort the steps (down, right) of the upper half of a disc by direction.

    Returns:
        By 2 k the steps on line k, by 2 k + 1 those between the lines k and k + 1, if there are
        any. The steps of the lower half are the same, backwards.
    """
    groups: dict[int, list[Step]] = {}
    for down in range(-radius, 1):
        for right in range(-radius, radius + 1):
            if down**2 + right**2 <= radius**2 and (down < 0 or right > 0):
                turn = np.arctan2(-down, right) / np.pi * ORIENTATIONS
                straight = down == 0 or right == 0 or -down == abs(right)
                # No other step lies on a line: the tangent of 22.5 degrees is no fraction.
                group = 2 * round(turn) if straight else 2 * int(turn) + 1
                groups.setdefault(group, []).append((down, right))
    return groups
