"""Run lengths of regions: the counts of COCO, their compressed string, and the order of pixels.

A region's counts are lengths of runs that alternate between pixels outside and inside of it,
beginning outside; only the first may be 0. Source of both forms: the COCO API (Lin et al.), whose
counts go down the columns of a mask. `pycocotools` is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

Counts = NDArray[np.int64]
BITS = 5  # of a number in one character of the compressed string
MORE = 1 << BITS  # marks a character that is not the last of its number
FIRST = 48  # the character that stands for 0


def encode(
    ids: NDArray[np.integer[Any]], regions: int, *, order: Literal["C", "F"]
) -> list[Counts]:
    """Count the runs of every region of a map, all regions at once.

    Args:
        ids: (H, W) region ids 0..R-1; a negative one is no region.
        regions: R.
        order: "F" down the columns, as COCO counts; "C" along the rows.

    Returns:
        R arrays of counts, each adding up to H * W; a region without pixels is [H * W].

    Raises:
        UsageError: not a map of ids below R.
    """
    grid = np.asarray(ids)
    if grid.ndim != 2 or not grid.size or grid.dtype.kind not in "iu" or grid.max() >= regions:
        raise UsageError(f"Expected ids (H, W) below {regions}; found {grid.dtype} {grid.shape}.")
    flat = grid.ravel(order=order)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths, owners = np.diff(starts, append=flat.size), flat[starts]
    inside = np.flatnonzero(owners >= 0)
    inside = inside[np.argsort(owners[inside], kind="stable")]  # by region, then by place
    starts, lengths, owners = starts[inside], lengths[inside], owners[inside]
    last = np.searchsorted(owners, np.arange(regions), side="right")  # behind each region's runs
    ends = np.concatenate([[0], starts + lengths])  # of the run before
    begun = np.diff(last, prepend=0) > 0
    before = ends[:-1].copy()
    before[np.concatenate([[0], last[:-1]])[begun]] = 0  # a region's first gap is from the corner
    pairs = np.stack([starts - before, lengths], axis=1).ravel()
    tails = flat.size - np.where(begun, ends[last], 0)
    counts = np.insert(pairs, 2 * last[tails > 0], tails[tails > 0])
    return np.split(counts, (2 * last + np.cumsum(tails > 0))[:-1])[:regions]


def compress(counts: Sequence[Counts]) -> list[str]:
    """Write counts as the strings that COCO keeps in its JSON files.

    From the fourth count on the difference to the count two before is written; a number goes into
    characters of 5 bits, the lowest first, until the rest is its sign.

    Args:
        counts: one array per region, each as `encode` returns it.

    Returns:
        One string of ASCII characters per region.
    """
    if not counts:
        return []
    sizes = np.array([len(one) for one in counts])
    joined = np.concatenate(counts).astype(np.int64)
    place = np.arange(len(joined)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rest = joined.copy()
    rest[place > 2] -= joined[np.flatnonzero(place > 2) - 2]
    digits, open_ = [], np.ones(len(rest), bool)
    used = []
    while open_.any():
        low, rest = rest & (MORE - 1), rest >> BITS
        used.append(open_)
        open_ = open_ & (rest != -(low >> (BITS - 1)))  # what is left is more than its sign
        digits.append((low | open_ * MORE) + FIRST)
    table, kept = np.stack(digits, axis=1).astype(np.uint8), np.stack(used, axis=1)
    text = table[kept].tobytes().decode("ascii")
    ends = np.cumsum(kept.sum(1))[np.cumsum(sizes) - 1].tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
