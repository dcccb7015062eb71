"""Regions of a patch grid or an image: pieces, boxes, values painted back, classes of patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from zerolabel.errors import UsageError
from zerolabel.ops.resize import nearest, resize_labels
from zerolabel.types import IGNORE, LabelMap

Grid = NDArray[np.integer[Any]]
Labels = Grid | NDArray[np.bool_]


def components(labels: Labels, *, connectivity: int = 8) -> NDArray[np.int32]:
    """Split every label of a grid into its connected pieces, all labels at once.

    Args:
        labels: (h, w) integers or booleans, any values.
        connectivity: 4 (shared edges) or 8 (shared edges or corners).

    Returns:
        (h, w) ids 0..R-1 in order of first appearance, row by row.

    Raises:
        UsageError: not a grid, or another connectivity.

    Source: 8-connected pieces as in Kumar et al., "DatUS^2", IEEE TCDS 2024.
    """
    grid = _grid(labels)
    if connectivity not in (4, 8):
        raise UsageError(f"Expected connectivity 4 or 8; found {connectivity}.")
    begins = np.ones(grid.shape, np.bool_)  # of the runs of equal cells in a row: few, so fast
    np.not_equal(grid[:, 1:], grid[:, :-1], out=begins[:, 1:])
    runs = (np.cumsum(begins, dtype=np.int32) - np.int32(1)).reshape(grid.shape)
    ones, others = _touching(grid, begins, runs, connectivity)
    count = int(runs[-1, -1]) + 1
    ties = coo_array((np.ones(len(ones), np.bool_), (ones, others)), shape=(count, count))
    _, ids = connected_components(ties, directed=False)
    found: NDArray[np.int32] = _by_appearance(ids)[runs]
    return found


def sizes(ids: Grid) -> NDArray[np.int64]:
    """Count the cells of every region.

    Args:
        ids: (h, w) region ids 0..R-1.

    Returns:
        (R,) number of cells.
    """
    return np.bincount(_ids(ids).ravel()).astype(np.int64)


def boxes(ids: Grid) -> NDArray[np.int64]:
    """Find the tight bounding box of every region.

    Args:
        ids: (h, w) region ids 0..R-1.

    Returns:
        (R, 4) row0, column0, row1, column1 in cells, ends exclusive; all 0 for an id without cells.
    """
    grid = _ids(ids)
    flat, count = grid.ravel(), int(grid.max()) + 1
    found = np.zeros((count, 4), np.int64)
    for axis, places in enumerate(np.indices(grid.shape)):
        first, last = np.full(count, grid.size), np.full(count, -1)
        np.minimum.at(first, flat, places.ravel())
        np.maximum.at(last, flat, places.ravel())
        found[:, axis], found[:, axis + 2] = first, last + 1
    found[found[:, 2] == 0] = 0  # ids that no cell has
    return found


def paint(ids: Grid, values: NDArray[Any]) -> NDArray[Any]:
    """Give every cell the value of its region.

    Args:
        ids: (h, w) region ids 0..R-1.
        values: (R, ...) one value, or vector, per region.

    Returns:
        (h, w, ...) of the type of `values`.

    Raises:
        UsageError: fewer values than regions.
    """
    grid, values = _ids(ids), np.asarray(values)
    if not values.ndim or grid.max() >= len(values):
        found = f"values {values.shape} for ids up to {grid.max()}"
        raise UsageError(f"Expected one value per region; found {found}.")
    painted: NDArray[Any] = values[grid]
    return painted


def cells(size: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.int64]:
    """Find the patch that holds the centre of each pixel.

    Args:
        size: (H, W); the grid covers all of it.
        grid: (h, w).

    Returns:
        int64 (H, W), row * w + column of the patch.
    """
    rows, columns = map(nearest, grid, size)
    return rows[:, None] * grid[1] + columns


def patch_shares(label: LabelMap, grid: tuple[int, int], classes: int) -> NDArray[np.float32]:
    """Find how much of every patch each class has.

    Args:
        label: integers (H, W); ids outside 0..C-1 count for no class.
        grid: (h, w); of a patch without a pixel of its own the nearest one counts.
        classes: C.

    Returns:
        float32 (C, h, w), 0..1.
    """
    h, w = (max(sides) for sides in zip(label.shape, grid, strict=True))
    counts = _counts(resize_labels(label, (h, w)), grid, classes)
    pixels = np.bincount(cells((h, w), grid).ravel()).reshape(*grid, 1)
    return (counts / pixels).transpose(2, 0, 1).astype(np.float32)


def patch_labels(label: LabelMap, grid: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """Give every patch the class that most of its scored pixels have.

    Args:
        label: integers (H, W); ids outside 0..C-1 are not scored.
        grid: (h, w).
        classes: C.

    Returns:
        int64 (h, w), the lowest id of equals; 255 for patches without a scored pixel.
    """
    counts = _counts(label, grid, classes)
    found: NDArray[np.int64] = np.where(counts.any(2), counts.argmax(2), IGNORE)
    return found


def largest_component(mask: NDArray[np.bool_], *, connectivity: int = 8) -> NDArray[np.bool_]:
    """Keep the largest connected piece of a mask.

    Args:
        mask: (h, w) booleans.
        connectivity: 4 or 8.

    Returns:
        (h, w) True on the largest piece, the first one on a tie; all False for an empty mask.
    """
    mask = np.asarray(mask, np.bool_)
    ids = components(mask, connectivity=connectivity)
    largest = np.bincount(ids[mask], minlength=1).argmax()
    kept: NDArray[np.bool_] = mask & (ids == largest)
    return kept


def _grid(labels: Labels) -> NDArray[Any]:
    """Check that something is a grid of labels."""
    grid = np.asarray(labels)
    if grid.ndim != 2 or not grid.size or grid.dtype.kind not in "iub":
        found = f"{grid.dtype} {grid.shape}"
        raise UsageError(f"Expected a grid (h, w) of integer labels; found {found}.")
    return grid


def _ids(ids: Grid) -> NDArray[Any]:
    """Check that something is a grid of ids that can count and index."""
    grid = _grid(ids)
    if grid.dtype.kind == "b" or grid.min() < 0:
        raise UsageError(f"Expected region ids 0..R-1; found {grid.dtype} from {grid.min()}.")
    return grid


def _counts(label: LabelMap, grid: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class in every patch: (h, w, C)."""
    scored = (label >= 0) & (label < classes)
    pairs = cells(label.shape, grid)[scored] * classes + label[scored]
    shape = (*grid, classes)
    return np.bincount(pairs, minlength=int(np.prod(shape))).reshape(shape)


def _touching(
    grid: NDArray[Any], begins: NDArray[np.bool_], runs: NDArray[np.int32], connectivity: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the runs of neighbouring rows that touch and have one label, each pair at least once."""
    meets = (grid[:-1] == grid[1:]) & (begins[:-1] | begins[1:])  # the first cell of an edge
    ones, others = [runs[:-1][meets]], [runs[1:][meets]]
    if connectivity == 8:
        turns = begins[:-1, 1:] & begins[1:, 1:]  # where they share a corner and no edge
        left, right = np.s_[:, :-1], np.s_[:, 1:]
        for above, below in ((left, right), (right, left)):
            meets = turns & (grid[:-1][above] == grid[1:][below])
            ones.append(runs[:-1][above][meets])
            others.append(runs[1:][below][meets])
    return np.concatenate(ones), np.concatenate(others)


def _by_appearance(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber flat ids 0..R-1 in the order in which they first occur."""
    first = np.full(ids.max() + 1, len(ids))
    np.minimum.at(first, ids, np.arange(len(ids)))
    rank = np.empty(len(first), np.int32)
    rank[first.argsort()] = np.arange(len(first), dtype=np.int32)
    return rank[ids]
