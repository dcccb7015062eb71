"""Pixels and patches one by one."""

import numpy as np


def cell(row, column, size, grid):
    """The patch (row, column) whose rectangle holds the centre of a pixel."""
    return tuple(
        int((at + 0.5) * g / n) for at, g, n in zip((row, column), grid, size, strict=True)
    )


def patch_labels(label, grid, classes):
    votes = np.zeros((*grid, classes), int)
    for row in range(label.shape[0]):
        for column in range(label.shape[1]):
            if 0 <= label[row, column] < classes:
                votes[cell(row, column, label.shape, grid)][label[row, column]] += 1
    out = np.full(grid, 255)
    for place in np.ndindex(grid):
        if votes[place].sum():
            out[place] = list(votes[place]).index(max(votes[place]))
    return out


def dense_knn(bank, labels, tokens, classes, *, k, temperature):
    """Votes of one image (h, w, D) by a bank of rows (N, D): shares (C, h, w)."""
    h, w, _ = tokens.shape
    unit = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    out = np.zeros((classes, h, w))
    for i in range(h):
        for j in range(w):
            x = tokens[i, j] / np.linalg.norm(tokens[i, j])
            near = sorted(range(len(bank)), key=lambda n: -float(unit[n] @ x))[:k]
            for n in near:
                out[labels[n], i, j] += np.exp(float(unit[n] @ x) / temperature)
            out[:, i, j] /= out[:, i, j].sum()
    return out


def prototype(tokens, mask):
    """The sum, over the salient pixels one by one, of the token of their patch, made a unit."""
    total = np.zeros(tokens.shape[-1])
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if mask[row, column]:
                total += tokens[cell(row, column, mask.shape, tokens.shape[:2])]
    length = np.linalg.norm(total)
    return total / length if length else total


def retrieve(bank, asked, classes, among):
    """Label maps by retrieval, and their confusion matrix, from whole arrays.

    Args:
        bank: prototype, label map and mask of each known image.
        asked: likewise, of those to segment.
        classes: how many there are.
        among: the object classes there are.
    """
    known = []
    for vector, label, mask in bank:
        inside = [int(v) for v in label[mask] if v in among]
        if inside:
            counts = {c: inside.count(c) for c in sorted(set(inside))}
            known.append((vector, max(counts, key=counts.get)))
    counts = np.zeros((classes, classes + 1), int)
    for vector, label, mask in asked:
        found = max(known, key=lambda pair: float(pair[0] @ vector))[1]
        predicted = np.where(mask, found, 0)
        for true, given in zip(label.ravel(), predicted.ravel(), strict=True):
            if true == 0 or true in among:
                counts[true, given] += 1
    return counts
