"""Thin lines: what is left of a shape when its outline is peeled off as long as it holds together.

Source: Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 32 (1989), the
first of their two algorithms; it is the one that Lam, Lee and Suen (PAMI 14, 1992, page 879) give
and that the boundary maps of BSDS500 were made with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

Mask = NDArray[np.bool_]
# x1..x8 of the paper: anticlockwise from the pixel on the right, as (row, column)
AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(mask: Mask) -> Mask:
    """Thin every shape to lines of one pixel; pieces stay whole and holes stay open.

    Args:
        mask: bool (H, W).

    Returns:
        bool (H, W), a part of the mask; thinning it again changes nothing.

    Raises:
        UsageError: not a two-dimensional mask.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise UsageError(f"Expected a mask, bool (H, W); found {mask.dtype} {mask.shape}.")
    padded = np.pad(mask, 1)
    flat, width = padded.reshape(-1), padded.shape[1]  # flat shares the memory of padded
    steps = [row * width + column for row, column in AROUND]
    left, before = np.flatnonzero(flat), -1
    while len(left) != before:
        before = len(left)
        for removable in _REMOVABLE:
            code = np.zeros(len(left), np.uint8)
            for bit, step in enumerate(steps):
                code |= flat[left + step].view(np.uint8) << bit
            peeled = removable[code]
            flat[left[peeled]] = False
            left = left[~peeled]
    return padded[1:-1, 1:-1].copy()


def _removable() -> tuple[Mask, Mask]:
    """Tabulate for all 256 neighbourhoods whether the pixel goes, in the two subiterations."""
    codes = np.arange(256)
    x = {k: (codes >> ((k - 1) % 8) & 1).astype(np.bool_) for k in range(1, 10)}  # x9 is x1
    pairs = range(1, 8, 2)
    crossings = sum((~x[k] & (x[k + 1] | x[k + 2])).astype(int) for k in pairs)  # G1
    one = sum((x[k] | x[k + 1]).astype(int) for k in pairs)
    other = sum((x[k + 1] | x[k + 2]).astype(int) for k in pairs)
    fewer = np.minimum(one, other)  # G2: an end of a line, or the inside of a shape, stays
    edge = (crossings == 1) & (fewer >= 2) & (fewer <= 3)
    first = edge & ~((x[2] | x[3] | ~x[8]) & x[1])  # G3
    second = edge & ~((x[6] | x[7] | ~x[4]) & x[5])  # G3 turned by half a circle
    return first, second


_REMOVABLE = _removable()
