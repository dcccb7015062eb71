"""TransFGU's targets and losses, one patch after another, in Python's floats."""

import math


def patches(maps):
    """Every patch of (B, K, h, w) as the list of its K values, image by image."""
    B, K, h, w = maps.shape
    return [
        [float(maps[b, k, i, j]) for k in range(K)]
        for b in range(B)
        for i in range(h)
        for j in range(w)
    ]


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def first_largest(values):
    return max(range(len(values)), key=lambda k: (values[k], -k))


def normalise(image):
    """One image (K, h, w) as nested lists."""
    numbers = [value for channel in image for row in channel for value in row]
    low, high = min(numbers), max(numbers)
    return [
        [[(value - low) / (high - low) if high > low else 0.0 for value in row] for row in channel]
        for channel in image
    ]


def background(values, threshold):
    """Of the values of one patch."""
    return max(0.0, threshold - max(values))


def cross_entropy(logits, labels):
    losses = [-math.log(softmax(v)[label]) for v, label in zip(logits, labels, strict=True)]
    return sum(losses) / len(losses)


def peer_loss(logits, targets, weight, order):
    """Lists of patches; the wrong targets hold channel order[k] in place of k."""
    right = [first_largest(values) for values in targets]
    wrong = [first_largest([values[k] for k in order]) for values in targets]
    return cross_entropy(logits, right) - weight * cross_entropy(logits, wrong)


def uncertainty_loss(logits, background, certain):
    gaps = []
    for values, counts in zip(logits, certain, strict=True):
        chances = sorted(softmax(values[1:] if background else values), reverse=True)
        if counts:
            gaps.append(chances[0] - (chances[1] if len(chances) > 1 else 0.0))
    return 1 - sum(gaps) / len(gaps) if gaps else 0.0


def diversity_loss(classes, rule):
    """One image: rows of K classes."""
    K, D = len(classes), len(classes[0])

    def product(i, j):
        return sum(a * b for a, b in zip(classes[i], classes[j], strict=True))

    if rule == "paper":
        every = [product(i, j) for i in range(K) for j in range(K)]
        return 1 + sum(every) / K**2 / math.sqrt(D)
    lengths = [math.sqrt(product(i, i)) for i in range(K)]
    pairs = [
        1 + product(i, j) / (lengths[i] * lengths[j]) for i in range(K) for j in range(i + 1, K)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0
