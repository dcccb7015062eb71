"""Slow and obvious region and boundary measures: pairs of pixels, sets, and whole distances."""

import math
from itertools import combinations

import networkx as nx
import numpy as np


def as_sets(regions):
    """From region id to the set of its pixels."""
    found = {}
    for place, region in np.ndenumerate(regions):
        found.setdefault(int(region), set()).add(place)
    return found


def covering(segmentation, truth):
    """Covering of the annotator's regions by those of the segmentation, with sets."""
    regions = list(as_sets(segmentation).values())
    total = 0
    for own in as_sets(truth).values():
        total += len(own) * max(len(own & other) / len(own | other) for other in regions)
    return total / truth.size


def best_overlaps(segmentation, truth):
    """For every region of the annotator its pixels and its largest intersection over union."""
    regions = list(as_sets(segmentation).values())
    return {
        name: (len(own), max(len(own & other) / len(own | other) for other in regions))
        for name, own in as_sets(truth).items()
    }


def rand_index(segmentation, truth):
    """Share of all pairs of pixels on which both agree: together, or apart."""
    a, b = segmentation.ravel(), truth.ravel()
    pairs = list(combinations(range(a.size), 2))
    return sum((a[i] == a[j]) == (b[i] == b[j]) for i, j in pairs) / len(pairs)


def information(segmentation, truth):
    """H(S|G) + H(G|S) in bits, from probabilities."""
    a, b, n = as_sets(segmentation), as_sets(truth), truth.size
    bits = 0.0
    for one in a.values():
        for other in b.values():
            joint = len(one & other) / n
            if joint:
                bits -= joint * math.log2(joint / (len(one) / n))
                bits -= joint * math.log2(joint / (len(other) / n))
    return bits


def corners(regions):
    """Pixels at whose lower right corner not all pixels are the same."""
    H, W = regions.shape
    found = np.zeros((H, W), bool)
    for r in range(H):
        for c in range(W):
            met = {int(regions[y, x]) for y in (r, r + 1) for x in (c, c + 1) if y < H and x < W}
            found[r, c] = len(met) > 1
    return found


def thinned(mask):
    """Guo and Hall's thinning, pixel by pixel from the conditions of the paper."""
    mask = np.pad(mask, 1)
    while True:
        before = mask.copy()
        for turn in (0, 1):
            gone = [p for p in np.argwhere(mask) if _goes(mask, *p, turn=turn)]
            for r, c in gone:
                mask[r, c] = False
        if (mask == before).all():
            return mask[1:-1, 1:-1]


def _goes(mask, r, c, *, turn):
    # right, upper right, up, upper left, left, lower left, down, lower right, and round again
    steps = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1)]
    x = [None, *(bool(mask[r + dr, c + dc]) for dr, dc in steps)]
    odd = (1, 3, 5, 7)
    g1 = sum(not x[k] and (x[k + 1] or x[k + 2]) for k in odd) == 1
    g2 = 2 <= min(sum(x[k] or x[k + 1] for k in odd), sum(x[k + 1] or x[k + 2] for k in odd)) <= 3
    if turn == 0:
        return g1 and g2 and not ((x[2] or x[3] or not x[8]) and x[1])
    return g1 and g2 and not ((x[6] or x[7] or not x[4]) and x[5])


def pair_count(prediction, truth, radius):
    """Most pairs of pixels at most `radius` apart, by a general matching of graphs."""
    graph = nx.Graph()
    ours, theirs = np.argwhere(prediction), np.argwhere(truth)
    for i, one in enumerate(ours):
        for j, other in enumerate(theirs):
            if math.dist(one, other) <= radius:
                graph.add_edge(("ours", i), ("theirs", j))
    return len(nx.max_weight_matching(graph, maxcardinality=True))
