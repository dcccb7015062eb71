"""k-NN by loops over queries and rows of the bank."""

import math


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return dot / lengths if lengths else 0.0


def nearest(queries, bank, k):
    """(similarity, row) of the k nearest rows of every query."""
    found = []
    for query in queries.tolist():
        pairs = [(cosine(query, row), i) for i, row in enumerate(bank.tolist())]
        found.append(sorted(pairs, reverse=True)[:k])
    return found


def votes(neighbours, labels, classes, temperature):
    """Sum of exp(s / T) per query and class."""
    scores = [[0.0] * classes for _ in neighbours]
    for row, pairs in zip(scores, neighbours, strict=True):
        for similarity, index in pairs:
            row[labels[index]] += math.exp(similarity / temperature)
    return scores
