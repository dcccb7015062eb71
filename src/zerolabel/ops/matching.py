"""Named rules that give clusters the meaning of classes, each a function of the counts alone.

A rule takes the integer confusion matrix H (C, K), true classes in rows, clusters in columns, and
returns for every cluster its class or -1. Every tie falls to the lowest index, so that a score
depends neither on the solver nor on the machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import breadth_first_order

Counts = NDArray[np.int64]  # (C, K)
Matching = NDArray[np.int64]  # (K,), a class 0..C-1 or -1


def hungarian(counts: Counts) -> Matching:
    """Match one to one so that the number of agreeing pixels is the largest possible.

    min(C, K) pairs are made. Among equal optima, class 0 gets the lowest cluster that it can have
    in any of them, then class 1, and so on.

    Args:
        counts: int64 (C, K), sums below 2^53.

    Returns:
        int64 (K,), the class of each cluster; -1 for the K - C clusters left over.

    Source: H. W. Kuhn, "The Hungarian method for the assignment problem", 1955; as the matching on
    counts of PiCIE (Cho et al., 2021), without its padding by the maximum.
    """
    C, K = counts.shape
    square = np.zeros((max(C, K), max(C, K)), np.int64)  # dummies come last: real ones win ties
    square[:C, :K] = counts
    _, cluster_of = linear_sum_assignment(square, maximize=True)
    cluster_of = _lowest(_tight(square, cluster_of), cluster_of, rows=C)
    matching = np.full(K, -1, np.int64)
    real = cluster_of[:C] < K
    matching[cluster_of[:C][real]] = np.flatnonzero(real)
    return matching


def majority(counts: Counts) -> Matching:
    """Give each cluster the class most of its pixels have; many clusters may share a class.

    Args:
        counts: int64 (C, K).

    Returns:
        int64 (K,); -1 for a cluster without pixels.
    """
    return np.where(counts.any(axis=0), counts.argmax(axis=0), -1)


def identity(counts: Counts) -> Matching:
    """Take cluster k for class k, as for methods that know the names of the classes.

    Args:
        counts: int64 (C, K).

    Returns:
        int64 (K,); -1 for k >= C.
    """
    C, K = counts.shape
    return np.where(np.arange(K) < C, np.arange(K), -1)


MATCHINGS: dict[str, Callable[[Counts], Matching]] = {
    "hungarian": hungarian,
    "majority": majority,
    "identity": identity,
}


def _tight(weights: Counts, columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pairs (row, column) of which every optimal assignment, and no other, is made.

    The dual prices u, v of an optimum satisfy u_i + v_j >= weight_ij, and an assignment is optimal
    if and only if all its pairs hold with equality (complementary slackness). The prices are
    longest paths through "row i takes the column of row k", in integers, hence exact.
    """
    n = len(columns)
    held = weights[np.arange(n), columns]
    gain = weights[:, columns] - held  # (n, n): row i takes what row k holds
    price = np.zeros(n, np.int64)
    for _ in range(n):  # an optimum has no gaining cycle: paths are shorter than n
        longer = (gain + price).max(axis=1)  # never below price, as gain_ii = 0
        if np.array_equal(longer, price):
            break
        price = longer
    column_price = np.empty(n, np.int64)
    column_price[columns] = held - price
    tight: NDArray[np.bool_] = price[:, None] + column_price == weights
    return tight


def _lowest(
    tight: NDArray[np.bool_], columns: NDArray[np.int64], *, rows: int
) -> NDArray[np.int64]:
    """Move an optimum to the lexicographically first one: row 0 as low as it can be, then row 1."""
    columns = columns.copy()
    for row in range(rows):
        lower = tight[row, columns[row:]] & (columns[row:] < columns[row])
        if not lower.any():
            continue
        # Rows that can pass their column on, through tight pairs, until `row`'s own column is used.
        takes = tight[row:, columns[row:]]  # (i, k): row i could hold what row k holds
        reached, takes_from = breadth_first_order(takes.T, 0)
        donors = [k for k in reached if lower[k]]
        if not donors:
            continue
        cycle = [min(donors, key=lambda k: columns[row + k])]
        while cycle[-1] != 0:
            cycle.append(int(takes_from[cycle[-1]]))
        members = row + np.array(cycle)
        columns[np.roll(members, 1)] = columns[members]
    return columns
