"""Which regions touch, along how many borders of pixels, and how strong the edge is there.

A border lies between two pixels side by side, or one above the other, of different regions; all
borders of the same two regions are an arc. The strength is taken in the direction that the arc has
at the border, so that an edge across it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNIT = 1 << 20  # strengths are added as whole numbers of 1/UNIT, in any order the same
WINDOW, SIGMA = 3, 1.5  # what of an arc decides on its direction at a border, in pixels

Ids = NDArray[np.int32]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arcs:
    """The arcs between regions.

    Attributes:
        pairs: int32 (E, 2), the two regions, the lower first; sorted.
        lengths: int64 (E,), borders of each arc.
        totals: int64 (E,), the sum of the strengths of its borders, in 1/UNIT.
    """

    pairs: Ids
    lengths: Whole
    totals: Whole


def find_arcs(regions: Ids, strength: NDArray[Any]) -> Arcs:
    """Find the arcs, and the strength along each.

    Args:
        regions: (H, W) ids 0..R-1.
        strength: float (H, W, n), 0 or more; number k for lines that rise by k/n of half a turn
            from left to right, as `edge_strength` gives them.

    Returns:
        The arcs; every border is at least 1/UNIT strong, so that it differs from no border.
    """
    count = int(regions.max()) + 1
    beside, below = _codes(regions, count), _codes(regions.T, count).T
    here, there = beside >= 0, below >= 0
    codes, numbers = np.unique(np.append(beside[here], below[there]), return_inverse=True)
    marks = np.zeros((2, *regions.shape), np.int32)  # arc + 1, less than 0 towards the lower id
    marks[0, :, :-1][here], marks[1, :-1][there] = np.split(numbers + 1, [here.sum()])
    marks[0, :, :-1][regions[:, :-1] > regions[:, 1:]] *= -1
    marks[1, :-1][regions[:-1] > regions[1:]] *= -1
    totals, lengths = np.zeros((2, len(codes)), np.int64)
    # A border below is a border beside of the image turned over, rows for columns.
    for own, other, image in (
        (marks[0], marks[1], strength),
        (marks[1].T, marks[0].T, strength.swapaxes(0, 1)),
    ):
        y, x = np.nonzero(own)
        across, along = _normals(own, other, y, x)
        right, down = (across, along) if image is strength else (along, across)
        n = image.shape[2]  # a line rises at right angles to where it faces
        k = np.rint(np.arctan2(right, down) / np.pi * n).astype(np.int64) % n
        mean = (image[y, x, k].astype(np.float64) + image[y, x + 1, k]) / 2
        arcs = np.abs(own[y, x]) - 1
        np.add.at(totals, arcs, np.maximum(np.rint(mean * UNIT), 1).astype(np.int64))
        np.add.at(lengths, arcs, 1)
    return Arcs(np.stack(np.divmod(codes, count), axis=1).astype(np.int32), lengths, totals)


def paint_arcs(regions: Ids, pairs: Ids, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw arcs with a value each.

    Args:
        regions: (H, W) ids 0..R-1.
        pairs: (E, 2), the arcs of the regions as `find_arcs` gives them.
        values: (E,), 0 or more.

    Returns:
        float32 (H, W), 0 off the arcs. A pixel stands for the corner at its lower right and has
        the largest value of the borders that meet there, as boundaries of BSDS are drawn.
    """
    count = int(regions.max()) + 1
    known = pairs[:, 0].astype(np.int64) * count + pairs[:, 1]
    padded = np.append(values, np.float32(0))

    def look(codes: Whole) -> NDArray[np.float32]:
        places = np.where(codes < 0, len(known), np.searchsorted(known, codes))
        found: NDArray[np.float32] = padded[places]
        return found

    beside, below = look(_codes(regions, count)), look(_codes(regions.T, count).T)
    painted = np.zeros(regions.shape, np.float32)
    painted[:, :-1] = beside
    painted[:-1] = np.maximum(painted[:-1], below)
    painted[:-1, :-1] = np.maximum(painted[:-1, :-1], below[:, 1:])
    painted[:-1, :-1] = np.maximum(painted[:-1, :-1], beside[1:])
    return painted


def _codes(regions: Ids, count: int) -> Whole:
    """Number the pair of regions at every border beside, (H, W - 1); -1 where it is one region."""
    one, other = regions[:, :-1].astype(np.int64), regions[:, 1:].astype(np.int64)
    return np.where(one == other, -1, np.minimum(one, other) * count + np.maximum(one, other))


def _normals(
    own: Ids, other: Ids, y: NDArray[np.intp], x: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average which way an arc faces around each of its borders beside.

    Args:
        own: (H, W) marks of borders to the right of a pixel.
        other: (H, W) marks of borders below a pixel.
        y: (n,) rows where own has borders.
        x: (n,) their columns.

    Returns:
        How far it faces to the right and how far downwards, each (n,), both or none reversed.
    """
    width = own.shape[1] + 2 * WINDOW
    places = (y + WINDOW) * width + x + WINDOW
    mine = own[y, x]
    across, along = np.full(len(y), 1e-9), np.zeros(len(y))  # itself, if all others cancel out
    steps = range(-WINDOW, WINDOW + 1)
    for face, marks, shift in ((across, own, 0.0), (along, other, 0.5)):
        flat = np.pad(marks, WINDOW).ravel()
        for i, j in product(steps, steps):
            far = (i + shift) ** 2 + (j - shift) ** 2  # from the middle of one to that of the other
            if far <= WINDOW**2:
                near = flat[places + (i * width + j)]
                weight = np.exp(-far / (2 * SIGMA**2))
                face += weight * ((near == mine).astype(np.float64) - (near == -mine))
    return across, along
