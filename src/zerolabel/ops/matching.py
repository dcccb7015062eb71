"""Named rules that give clusters the meaning of classes, each a function of the counts alone.

A rule takes the integer confusion matrix H (C, K + 1), true classes in rows, clusters in columns,
the last column for pixels that were given no cluster, and returns for every cluster its class or
-1. Every tie falls to the lowest index, so that a score depends neither on the solver nor on the
machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import breadth_first_order

from zerolabel.errors import UsageError

Counts = NDArray[np.int64]  # (C, K + 1)
Matching = NDArray[np.int64]  # (K,), a class 0..C-1 or -1
Centres = NDArray[np.floating]  # (K, D)

FINE = 2**40  # parts of an IoU of 1 when IoUs are summed as integers, whose ties are exact


def match(counts: Counts, rule: str = "hungarian", *, centres: Centres | None = None) -> Matching:
    """Give every cluster its class by a rule of `MATCHINGS`.

    Args:
        counts: int64 (C, K + 1), last column: no cluster.
        rule: its name.
        centres: (K, D), the centres of the clusters; for the rule nearest only.

    Returns:
        int64 (K,), a class 0..C-1 or -1.

    Raises:
        UsageError: the rule needs centres and there are none, or not one for each cluster.
    """
    if rule == "nearest":
        return nearest(counts, centres)
    return MATCHINGS[rule](counts)


def hungarian(counts: Counts) -> Matching:
    """Match one to one so that the number of agreeing pixels is the largest possible.

    min(C, K) pairs are made. Among equal optima, class 0 gets the lowest cluster that it can have
    in any of them, then class 1, and so on.

    Args:
        counts: int64 (C, K + 1), sums below 2^53.

    Returns:
        int64 (K,), the class of each cluster; -1 for the K - C clusters left over.

    Source: H. W. Kuhn, "The Hungarian method for the assignment problem", 1955; as the matching on
    counts of PiCIE (Cho et al., 2021), without its padding by the maximum.
    """
    return _assign(counts[:, :-1])


def hungarian_iou(counts: Counts) -> Matching:
    """Match one to one so that the sum of the pairs' IoUs is the largest possible.

    Unlike counts, IoUs do not let a large background decide. Sums of IoUs are compared to 2^-40
    per pair.

    Args:
        counts: int64 (C, K + 1).

    Returns:
        int64 (K,); -1 for the K - C clusters left over.

    Source: MaskContrast (Van Gansbeke et al., 2021), k-means evaluation.
    """
    return _assign(np.rint(pair_iou(counts) * FINE).astype(np.int64))


def majority(counts: Counts) -> Matching:
    """Give each cluster the class most of its pixels have; many clusters may share a class.

    Args:
        counts: int64 (C, K + 1).

    Returns:
        int64 (K,); -1 for a cluster without pixels.

    Source: over-clustering as in IIC (Ji et al., 2019) and SCAN (Van Gansbeke et al., 2020).
    """
    held = counts[:, :-1]
    return np.where(held.any(axis=0), held.argmax(axis=0), -1)


def majority_iou(counts: Counts) -> Matching:
    """Give each cluster the class with which its IoU is highest; many may share a class.

    Args:
        counts: int64 (C, K + 1).

    Returns:
        int64 (K,); -1 for a cluster without pixels.

    Source: MaskContrast (Van Gansbeke et al., 2021), where K > C.
    """
    return np.where(counts[:, :-1].any(axis=0), pair_iou(counts).argmax(axis=0), -1)


def nearest(counts: Counts, centres: Centres | None) -> Matching:
    """Match as `hungarian`, then give each cluster left over the class of the nearest matched one.

    Args:
        counts: int64 (C, K + 1).
        centres: (K, D), the centre of each cluster; near is by Euclidean distance.

    Returns:
        int64 (K,), never -1.

    Raises:
        UsageError: there are no centres, or not one for each cluster.

    Source: the published drawing script of DatUS2 (S. Kumar et al., 2024).
    """
    K = counts.shape[1] - 1
    if centres is None or centres.ndim != 2 or len(centres) != K:
        found = "none" if centres is None else f"an array of shape {centres.shape}"
        raise UsageError(
            f"The matching rule nearest compares the centres of clusters: expected {K} of them, "
            f"found {found}. Use it on a run whose model.safetensors holds centroids; masks made "
            "elsewhere have none."
        )
    matching = hungarian(counts)
    kept = np.flatnonzero(matching >= 0)
    x = centres.astype(np.float64)
    for k in np.flatnonzero(matching < 0):
        matching[k] = matching[kept[np.square(x[kept] - x[k]).sum(axis=1).argmin()]]
    return matching


def identity(counts: Counts) -> Matching:
    """Take cluster k for class k, as for methods that know the names of the classes.

    Args:
        counts: int64 (C, K + 1).

    Returns:
        int64 (K,); -1 for k >= C.
    """
    C, K = len(counts), counts.shape[1] - 1
    return np.where(np.arange(K) < C, np.arange(K), -1)


MATCHINGS: dict[str, Callable[..., Matching]] = {
    "hungarian": hungarian,
    "hungarian-iou": hungarian_iou,
    "majority": majority,
    "majority-iou": majority_iou,
    # The clusters left over are one extra predicted class that no pixel truly has: misses, and no
    # false positives. The same numbers as `hungarian`, under the name that STEGO gave the rule.
    "hungarian-extra": hungarian,
    "drop-unmatched": hungarian,  # whose scoring then removes the pixels of clusters left over
    "nearest": nearest,
    "identity": identity,
}


def pair_iou(counts: Counts) -> NDArray[np.float64]:
    """IoU of every class with every cluster, H_ck / (row_c + column_k - H_ck).

    Args:
        counts: int64 (C, K + 1); the pixels without a cluster count in their class's row.

    Returns:
        float64 (C, K), 0 where neither class nor cluster has a pixel.
    """
    held = counts[:, :-1]
    union = counts.sum(axis=1, keepdims=True) + held.sum(axis=0) - held
    iou: NDArray[np.float64] = np.divide(held, union, out=np.zeros(held.shape), where=union > 0)
    return iou


def _assign(weights: Counts) -> Matching:
    """Make the min(C, K) pairs of the largest sum; the first of all such assignments."""
    C, K = weights.shape
    square = np.zeros((max(C, K), max(C, K)), np.int64)  # dummies come last: real ones win ties
    square[:C, :K] = weights
    _, cluster_of = linear_sum_assignment(square, maximize=True)
    cluster_of = _lowest(_tight(square, cluster_of), cluster_of, rows=C)
    matching = np.full(K, -1, np.int64)
    real = cluster_of[:C] < K
    matching[cluster_of[:C][real]] = np.flatnonzero(real)
    return matching


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
