"""Regions merged one after another, the weakest arc first: a tree that can be cut at any level.

What a level keeps apart, every lower level keeps apart too, so merging never splits; and the map of
the heights at which borders vanish (ultrametric contour map) holds all levels at once.

Source: Arbelaez, "Boundary extraction in natural images using ultrametric contour maps", CVPRW
2006; Xia and Kulis, "W-Net", 2017, Algorithm 2, the merging of what the network found.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.ops.arcs import UNIT, Arcs, find_arcs, paint_arcs
from zerolabel.ops.regions import components
from zerolabel.types import LabelMap


@dataclass(frozen=True, eq=False)
class MergeTree:
    """Which regions merge, in which order, and at which level.

    Attributes:
        regions: int32 (H, W), ids 0..R-1 in order of first appearance.
        merges: int32 (R - 1, 2), the two nodes that merge, the lower first; nodes 0..R-1 are the
            regions, node R + i is what merge i makes.
        heights: float32 (R - 1,), the level of every merge, above 0 and never falling.
        arcs: int32 (E, 2), regions that touch, the lower first, sorted.
        arc_heights: float32 (E,), the level at which they become one.
    """

    regions: NDArray[np.int32]
    merges: NDArray[np.int32]
    heights: NDArray[np.float32]
    arcs: NDArray[np.int32]
    arc_heights: NDArray[np.float32]

    @property
    def levels(self) -> NDArray[np.float32]:
        """The levels at which something merges, rising, each once; float32 (L,)."""
        return np.unique(self.heights)


def merge_tree(labels: LabelMap, strength: NDArray[Any]) -> MergeTree:
    """Merge the connected pieces of a label map until one is left.

    The pieces with the weakest arc between them merge first, the first arc of equals; an arc is as
    strong as its borders are on average, and stays so when arcs become one.

    Args:
        labels: any integers (H, W), such as the best category of each pixel.
        strength: float (H, W, n), 0 or more, by direction, as `edge_strength` gives it; n may be 1.

    Returns:
        The tree over the pieces, which hold together by shared edges of pixels.

    Raises:
        UsageError: shapes that do not fit together, or a strength that is no such number.
    """
    regions = components(labels, connectivity=4)
    if strength.ndim != 3 or strength.shape[:2] != regions.shape or not strength.shape[2]:
        raise UsageError(
            f"Expected a strength (H, W, n) for labels {regions.shape}, found {strength.shape}."
        )
    if not (np.isfinite(strength).all() and strength.min() >= 0):
        raise UsageError("Expected a finite strength of 0 or more; found other values.")
    arcs = find_arcs(regions, strength)
    merges, heights, order = _merge(arcs, int(regions.max()) + 1)
    # No running maximum is needed: two arcs together are no weaker than the weaker of them.
    levels = heights.astype(np.float32)
    return MergeTree(regions, merges, levels, arcs.pairs, levels[order])


def segment_at(tree: MergeTree, level: float) -> NDArray[np.int32]:
    """Cut the tree: merge all that is as weak as a level, or weaker.

    Args:
        tree: as `merge_tree` gives it.
        level: 0 or less leaves all regions apart; the last height, or more, leaves one.

    Returns:
        int32 (H, W), ids 0..S-1 in order of first appearance.
    """
    count = len(tree.merges) + 1
    done = int(np.searchsorted(tree.heights, level, side="right"))
    root = np.arange(count + done)
    root[tree.merges[:done]] = np.arange(count, count + done)[:, None]
    while not np.array_equal(root, further := root[root]):
        root = further
    _, first, segment = np.unique(root[:count], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[first.argsort()] = np.arange(len(first), dtype=np.int32)
    cut: NDArray[np.int32] = rank[segment][tree.regions]
    return cut


def ultrametric_map(tree: MergeTree) -> NDArray[np.float32]:
    """Draw every border with the level at which it vanishes.

    Args:
        tree: as `merge_tree` gives it.

    Returns:
        float32 (H, W), 0 off the borders. A pixel stands for the corner at its lower right, as
        boundaries of BSDS are drawn, and is above a level exactly where pixels of different
        segments of `segment_at(tree, level)` meet.
    """
    return paint_arcs(tree.regions, tree.arcs, tree.arc_heights)


def _merge(
    arcs: Arcs, count: int
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Merge greedily; the arcs of the region with fewer of them move to the other.

    Args:
        arcs: of the regions.
        count: R.

    Returns:
        merges (R - 1, 2); their strengths (R - 1,), never falling; and for every arc (E,) the merge
        that it vanishes in.
    """
    totals, lengths, pairs = arcs.totals.tolist(), arcs.lengths.tolist(), arcs.pairs.tolist()
    touching: list[dict[int, int]] = [{} for _ in range(count)]  # region -> arc
    for arc, (a, b) in enumerate(pairs):
        touching[a][b] = touching[b][a] = arc
    strengths = [total / length for total, length in zip(totals, lengths, strict=True)]
    heap = [(strength, arc) for arc, strength in enumerate(strengths)]
    heapify(heap)
    ends = _Ends(count)
    into, vanished = list(range(len(pairs))), [-1] * len(pairs)  # the arc that it is a part of
    merges: list[tuple[int, int]] = []
    heights: list[float] = []
    while heap:
        strength, arc = heappop(heap)
        if into[arc] != arc or vanished[arc] >= 0 or strength != strengths[arc]:
            continue
        a, b = (ends.find(region) for region in pairs[arc])
        if len(touching[a]) < len(touching[b]):
            a, b = b, a
        vanished[arc] = len(merges)
        merges.append(ends.join(b, a))
        heights.append(strength / UNIT)
        del touching[a][b], touching[b][a]
        for c, moved in touching[b].items():
            del touching[c][b]
            kept = min(moved, touching[a].get(c, moved))
            gone = max(moved, touching[a].get(c, moved))
            if gone != kept:
                into[gone] = kept
                totals[kept] += totals[gone]
                lengths[kept] += lengths[gone]
                strengths[kept] = totals[kept] / lengths[kept]
                heappush(heap, (strengths[kept], kept))
            touching[a][c] = touching[c][a] = kept
        touching[b] = {}
    order = [vanished[arc] for arc in _roots(into)]
    return (
        np.array(merges, np.int32).reshape(-1, 2),
        np.array(heights, np.float64),
        np.array(order, np.int64),
    )


class _Ends:
    """Which region stands for a merged one, and which node of the tree that is."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))
        self._node = list(range(count))
        self._next = count

    def find(self, region: int) -> int:
        """Return the region that stands for this one, and shorten the way there."""
        above = self._above
        while above[region] != region:
            above[region] = above[above[region]]
            region = above[region]
        return region

    def join(self, region: int, other: int) -> tuple[int, int]:
        """Let another region stand for this one too; return the nodes that merge, sorted."""
        one, two = sorted((self._node[region], self._node[other]))
        self._above[region] = other
        self._node[other] = self._next
        self._next += 1
        return one, two


def _roots(into: list[int]) -> NDArray[np.int64]:
    """Follow every arc to the one that it became a part of in the end."""
    root = np.array(into, np.int64)
    while not np.array_equal(root, further := root[root]):
        root = further
    return root
