"""Louvain on a dense affinity: no neighbour lists, the matrix is in memory anyway.

Modularity is a sum over pairs, Q = sum_ij B_ij [c_i = c_j] with B = (A - resolution d d^T / w) / w,
so the search sees nothing but the `bond` matrix B: a community's row is the sum of its members'
rows, moving a node is two row additions, and merging communities into nodes sums rows and columns.
No BLAS is used, so results do not depend on its threads, and busy cores do not make it wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]

GOLDEN = 0.6180339887498949  # steps of this share of N visit far-apart nodes one after another
ROUNDING = 4e-6  # of a node's degree: gains below this are float32 noise, and would move for ever
TIE = 1e-6  # modularities that float32 cannot tell apart
STRIP = 128  # rows of a matrix that are worked on at a time, so that no second one is needed
SWEEPS = 1000  # a net below rounding that moves nodes in circles; flat graphs take up to 100


def louvain(
    adjacency: NDArray[Any],
    *,
    resolution: float = 1.0,
    tolerance: float = 1e-5,
    starts: int = 2,
    seed: int = 0,
    overwrite: bool = False,
) -> NDArray[np.int32]:
    """Find communities of nodes that are tied more than their degrees explain.

    Identical input gives an identical result. The first start visits the nodes in a fixed order of
    long strides, since in raster order smooth images end in poorer optima. Every further start cuts
    the best communities in two at random and lets the nodes find together anew, in another order:
    that ends better than beginning from single nodes again, and is faster.

    Args:
        adjacency: (N, N) symmetric weights, finite and >= 0; self loops lie on the diagonal.
        resolution: weight of the expected ties; above 1 gives more and smaller communities.
        tolerance: a node moves if modularity grows by more than this times the node's share of all
            degrees; no single move improves the result by more. Below 4e-6 it counts as 4e-6.
        starts: number of climbs; the best modularity wins, the first one on a tie. 1 is a single
            climb in a fixed order; 2 take half as long again and part groups joined by mistake.
        seed: of the cuts and orders of further starts.
        overwrite: work in the memory of a float32 adjacency, whose weights are then lost; about two
            matrices of its size are needed in all, and else three.

    Returns:
        (N,) community of every node, 0 = the largest; ties go to the one with the lowest node. A
        node without neighbours is alone; a graph without structure is one community.

    Raises:
        UsageError: not a symmetric matrix of finite weights >= 0, or an option out of range.

    Source: Blondel et al., "Fast unfolding of communities in large networks", 2008, with the
    refinement at every level of Rotta and Noack, "Multilevel local search algorithms for
    modularity clustering", 2011.
    """
    weights, degrees = _checked(adjacency)
    if not overwrite and np.may_share_memory(weights, adjacency):
        weights = weights.copy()
    if starts < 1 or resolution < 0 or tolerance < 0:
        found = f"starts={starts}, resolution={resolution}, tolerance={tolerance}"
        raise UsageError(f"Expected starts >= 1, resolution >= 0, tolerance >= 0; found {found}.")
    total = degrees.sum() or 1.0
    share = degrees / total
    # A move changes two of the sums over pairs, (i, j) and (j, i): half the slack for one.
    slack = share * (max(tolerance, ROUNDING) / 2)
    alone = degrees == weights.diagonal()
    bond = _bond(weights, total, (share * np.sqrt(resolution)).astype(np.float32))

    best = np.where(alone, 1 + np.arange(len(share)), 0)  # one community of all that have ties
    best_quality = 1 - resolution * (np.bincount(best, share) ** 2).sum()
    rng = np.random.default_rng(seed)
    labels, order = np.arange(len(share)), _strides(len(share))
    for _ in range(starts):
        labels, quality = _climb(bond, labels, order, slack=slack)
        if quality > best_quality + TIE:
            best, best_quality = labels, quality
        order = rng.permutation(len(best))
        labels = _halves(best, order)
    return _largest_first(best)


def modularity(
    adjacency: NDArray[Any], labels: NDArray[np.integer[Any]], *, resolution: float = 1.0
) -> float:
    """Measure how much of the weight lies within communities, beyond what degrees explain.

    Args:
        adjacency: (N, N) symmetric weights >= 0.
        labels: (N,) community of every node.
        resolution: weight of the expected ties.

    Returns:
        Q = (1/w) sum_ij (A_ij - resolution d_i d_j / w) [c_i = c_j], d = row sums, w = sum A; at
        most 1, and 0 for a graph without edges.

    Raises:
        UsageError: labels do not match the matrix.

    Source: Newman and Girvan, "Finding and evaluating community structure in networks", 2004.
    """
    if np.shape(adjacency) != 2 * np.shape(labels):
        found = f"{np.shape(adjacency)} and {np.shape(labels)}"
        raise UsageError(f"Expected a matrix (N, N) and labels (N,); found {found}.")
    _, members = np.unique(labels, return_inverse=True)
    between = _sum_rows(_sum_rows(np.asarray(adjacency, np.float64), members).T, members)
    total = between.sum()
    if not total:
        return 0.0
    share = between.sum(axis=1) / total
    return float(between.trace() / total - resolution * (share @ share))


def _checked(adjacency: NDArray[Any]) -> tuple[Floats, NDArray[np.float64]]:
    """Return the weights as float32 (N, N) and the degrees (N,)."""
    weights = np.ascontiguousarray(adjacency, dtype=np.float32)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise UsageError(f"Expected an adjacency matrix (N, N), N >= 1; found {weights.shape}.")
    degrees = weights.sum(axis=1).astype(np.float64)
    if not np.isfinite(degrees).all() or weights.min() < 0:
        raise UsageError("Expected finite weights >= 0; found NaN, infinite or negative ones.")
    if not np.allclose(degrees, weights.sum(axis=0), rtol=1e-3):
        raise UsageError("Expected a symmetric adjacency; found other row sums than column sums.")
    return weights, degrees


def _bond(weights: Floats, total: float, root: Floats) -> Floats:
    """Turn weights into what modularity adds up, in their own memory."""
    for start in range(0, len(weights), STRIP):
        strip = weights[start : start + STRIP]
        strip /= np.float32(total)
        strip -= np.multiply.outer(root[start : start + STRIP], root)
    return weights


def _strides(count: int) -> Ints:
    """Return an order of all nodes in which the next one is far away."""
    stride = max(1, round(GOLDEN * count))
    while np.gcd(stride, count) > 1:
        stride += 1
    return np.arange(count) * stride % count


def _halves(labels: Ints, order: Ints) -> Ints:
    """Cut every community in two equal halves, alternately in the given order of the nodes.

    Equal, so that where two groups were joined by mistake one half has a little more of one group
    and the other half of the other: their nodes then part by groups.
    """
    by_community = order[np.argsort(labels[order], kind="stable")]
    halves = 2 * labels
    halves[by_community[1::2]] += 1
    return np.unique(halves, return_inverse=True)[1]


def _climb(
    bond: Floats, labels: Ints, order: Ints, *, slack: NDArray[np.float64]
) -> tuple[Ints, float]:
    """Move nodes, climb on the graph of communities, move nodes once more; labels and quality."""
    labels, pull = _settle(bond, labels, order, slack=slack)
    count = len(pull)
    if count < len(bond):
        coarse, each = _sum_rows(pull.T, labels), np.arange(count)
        merged, _ = _climb(coarse, each, each, slack=_sum_rows(slack, labels))
        if merged.max() + 1 < count:
            labels, pull = _settle(bond, merged[labels], order, slack=slack)
    return labels, float(pull[labels, np.arange(len(bond))].sum(dtype=np.float64))


def _settle(
    bond: Floats, labels: Ints, order: Ints, *, slack: NDArray[np.float64]
) -> tuple[Ints, Floats]:
    """Move nodes one by one, each to where it gains most, until none gains more than its slack.

    Returns:
        (N,) labels 0..c-1 and, in float32 (c, N), the bond of every community with every node.
    """
    nodes, own = np.arange(len(bond)), bond.diagonal()
    pull = _and_nobody(labels.max() + 1, len(bond))
    _sum_rows(bond, labels, out=pull[:-1])
    costs = own.tolist(), slack.tolist()
    for _ in range(SWEEPS):
        home = pull[labels, nodes]
        stay = pull[labels, nodes] = home - own  # what a community is worth to a node: without it
        queue = order[(pull.max(axis=0) - stay > slack)[order]]
        pull[labels, nodes] = home
        if not len(queue):
            break
        moved = _sweep(bond, labels.tolist(), pull, queue.tolist(), costs)
        kept, labels = np.unique(moved, return_inverse=True)
        if len(kept) != len(pull) - 1 or kept[-1] == len(pull) - 1:  # one left, or one founded
            before, pull = pull, _and_nobody(len(kept), len(bond))
            np.take(before, kept, axis=0, out=pull[:-1], mode="clip")  # "raise" would copy twice
            del before
    return labels, pull[:-1]


def _sweep(
    bond: Floats,
    home: list[int],
    pull: Floats,
    queue: list[int],
    costs: tuple[list[float], list[float]],
) -> list[int]:
    """Visit the queue once, changing `home` and `pull`; returns `home`.

    Half of the time goes here: plain lists and few calls, each on a whole row, keep a visit near
    three microseconds for N = 784.
    """
    own, slack = costs
    rows = list(pull)
    for node in queue:
        gain, here = pull[:, node].copy(), home[node]
        gain[here] -= own[node]
        there = int(gain.argmax())
        if there != here and gain[there] - gain[here] > slack[node]:
            rows[here] -= bond[node]
            rows[there] += bond[node]
            home[node] = there
    return home


def _and_nobody(communities: int, nodes: int) -> Floats:
    """Make room for the pull of communities; the last row is for nodes better alone."""
    pull = np.empty((communities + 1, nodes), np.float32)
    pull[-1] = 0
    return pull


def _sum_rows(
    matrix: NDArray[Any], labels: Ints, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Add up the rows of every community: (N, M) -> (communities, M), labels 0..communities-1."""
    order = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    if len(firsts) == len(labels):  # every row by itself: no sums, four times as fast
        return np.take(matrix, order, axis=0, out=out, mode="clip")
    sums: NDArray[Any] = np.add.reduceat(matrix[order], firsts, axis=0, out=out)
    return sums


def _largest_first(labels: Ints) -> NDArray[np.int32]:
    """Renumber the communities by falling size, equal sizes by their first node."""
    _, first, members, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes), dtype=np.int32)
    return rank[members]
