"""Maximum matching between two sets of things of which only near ones may be paired.

Breadth-first search from all free rows at once: every row grows a tree of alternating paths, no two
trees share a column, so that all paths found in one round can be switched together. Whole layers
are array operations. It starts from a greedy matching, which takes the candidates in their order.

Source: multi-source search as in Azad, Buluc and Pothen, "Computing maximum cardinality matchings
in parallel on bipartite graphs via tree-grafting", TPDS 28 (2017), without the grafting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

Indices = NDArray[np.integer[Any]]


def maximum_matching(candidates: Indices, columns: int) -> NDArray[np.int64]:
    """Pair as many rows as possible with a column each, no column twice.

    Args:
        candidates: (rows, d) columns 0..columns-1 that a row may have, each at most once, best
            first; -1 fills up. What comes earlier is preferred, but never at the cost of a pair.
        columns: number of columns.

    Returns:
        (rows,) the column of every row, -1 for none; as many as can be at once.

    Raises:
        UsageError: a candidate outside -1..columns-1.
    """
    if candidates.size and not -1 <= candidates.min() <= candidates.max() < columns:
        raise UsageError(
            f"Expected candidates between -1 and {columns - 1}; found {candidates.min()} to "
            f"{candidates.max()}."
        )
    owners = np.full(columns + 1, -1, np.int64)  # one more, for -1 to point at
    owners[-1] = len(candidates)  # ... which is never free
    chosen = np.full(len(candidates), -1, np.int64)
    for wanted in candidates.T:
        rows = np.flatnonzero((chosen < 0) & (owners[wanted] < 0))
        owners[wanted[rows]] = rows  # the last of several rows gets the column
        rows = rows[owners[wanted[rows]] == rows]
        chosen[rows] = wanted[rows]
    while True:
        ends, parents = _search(candidates, owners, chosen)
        if not len(ends):
            return chosen
        while len(ends):  # walk all paths back to their roots at once
            rows = parents[ends]
            owners[ends] = rows
            chosen[rows], ends = ends, chosen[rows]
            ends = ends[ends >= 0]


def _search(
    candidates: Indices, owners: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Search for paths from free rows to free columns that share nothing.

    Returns:
        The free columns at the ends of the paths, and (columns + 1,) the row from which each column
        was reached.
    """
    parents = np.full(len(owners), -1, np.int64)
    parents[-1] = len(candidates)
    ends = np.full(len(candidates), -1, np.int64)  # by root
    roots = np.full(len(candidates), -1, np.int64)  # by row
    layer = np.flatnonzero(chosen < 0)
    roots[layer] = layer
    while len(layer):
        near = candidates[layer]
        place, slot = np.nonzero(parents[near] < 0)
        rows, reached = layer[place], near[place, slot]
        parents[reached] = rows  # the last of several rows gets the column
        won = parents[reached] == rows
        rows, reached = rows[won], reached[won]
        free = owners[reached] < 0
        ends[roots[rows[free]]] = reached[free]
        layer = owners[reached[~free]]
        roots[layer] = roots[rows[~free]]
        layer = layer[ends[roots[layer]] < 0]  # one path per tree is all that can be switched
    return ends[ends >= 0], parents
