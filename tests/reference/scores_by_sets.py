"""Scores straight from the definitions: pixels as sets, classes one by one, matchings tried out."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction


def set_scores(truth, prediction, classes):
    """Score flat lists of true and predicted classes; anything outside `classes` is no class.

    Returns:
        Per class (iou, accuracy, f1), NaN where undefined, and the share of right pixels.
    """
    scored = [i for i, t in enumerate(truth) if 0 <= t < classes]
    result = []
    for c in range(classes):
        is_c = {i for i in scored if truth[i] == c}
        as_c = {i for i in scored if prediction[i] == c}
        both, either = len(is_c & as_c), len(is_c | as_c)
        iou = both / either if either else math.nan
        accuracy = both / len(is_c) if is_c else math.nan
        f1 = 2 * both / (len(is_c) + len(as_c)) if either else math.nan
        result.append((iou, accuracy, f1))
    right = sum(truth[i] == prediction[i] for i in scored) / len(scored)
    return result, right


def best_matching(counts):
    """Try every one-to-one matching; ties go to the lowest cluster for class 0, then class 1, ...

    Args:
        counts: list of lists (C, K).

    Returns:
        The class of each cluster, -1 for none, and how many optimal matchings there are.
    """
    C, K = len(counts), len(counts[0])
    n = max(C, K)
    # Clusters K, K+1, ... do not exist; rows C, C+1, ... do not either.
    optima = {}
    for order in itertools.permutations(range(n)):
        total = sum(counts[c][k] for c, k in enumerate(order[:C]) if k < K)
        optima.setdefault(total, set()).add(tuple(min(k, K) for k in order[:C]))
    best = optima[max(optima)]
    first = min(best)
    return [first.index(k) if k in first else -1 for k in range(K)], len(best)


def exact_ious(counts):
    """IoU of every class with every cluster as a fraction, cell by cell.

    Args:
        counts: list of lists (C, K + 1), last column: no cluster.
    """
    rows = [sum(row) for row in counts]
    columns = [sum(column) for column in zip(*counts, strict=True)][:-1]
    return [
        [Fraction(n, max(1, rows[c] + columns[k] - n)) for k, n in enumerate(row[:-1])]
        for c, row in enumerate(counts)
    ]
