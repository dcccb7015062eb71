"""Naming regions by loops over pixels, neighbours and cells."""

import math
from collections import Counter

from reference.neighbours import cosine, nearest


def region_labels(label, ids, classes, skip_background):
    h, w = ids.shape
    H, W = label.shape
    votes = [Counter() for _ in range(ids.max() + 1)]
    for y in range(H):
        for x in range(W):
            region = ids[math.floor((y + 0.5) * h / H), math.floor((x + 0.5) * w / W)]
            if 0 <= label[y, x] < classes:
                votes[region][int(label[y, x])] += 1
    found = []
    for count in votes:
        if skip_background and set(count) != {0}:
            count.pop(0, None)
        found.append(max(sorted(count), key=lambda c: count[c]) if count else -1)  # noqa: B023
    return found


def retrieve(vectors, bank, labels, k):
    """(class, similarity) per vector: the most frequent class, the nearest of equals."""
    found = []
    for pairs in nearest(vectors, bank, k):
        classes = [labels[row] for _, row in pairs]
        winner = max(classes, key=classes.count)  # of equals the first, which is the nearest
        found.append((winner, pairs[classes.index(winner)][0]))
    return found


def text_cosines(dense, ids, texts):
    """Cosines per region and text, features averaged on the finest grid that both grids divide."""
    (h, w), (gh, gw) = ids.shape, dense.shape[:2]
    H, W = math.lcm(h, gh), math.lcm(w, gw)
    found = []
    for region in range(ids.max() + 1):
        total = [0.0] * dense.shape[2]
        for y in range(H):
            for x in range(W):
                if ids[y * h // H, x * w // W] == region:
                    cell = dense[y * gh // H, x * gw // W].tolist()
                    total = [a + b for a, b in zip(total, cell, strict=True)]
        found.append([cosine(total, text) for text in texts.tolist()])
    return found
