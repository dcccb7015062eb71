"""Sliding windows and their merging, pixel by pixel, in float64."""

import numpy as np


def anchors(length, window, stride):
    """Starts of windows: step on until one reaches the end, and push that one back."""
    starts, start = [], 0
    while start + window < length:
        starts.append(start)
        start += stride
    return [*starts, max(0, length - window)]


def bilinear(scores, size):
    """Read (K, h, w) at the middles of the pixels of another size; edges are repeated."""
    K, h, w = scores.shape
    out = np.zeros((K, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            row = min(max((y + 0.5) * h / size[0] - 0.5, 0), h - 1)
            column = min(max((x + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(row), int(column)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            dy, dx = row - top, column - left
            above = (1 - dx) * scores[:, top, left] + dx * scores[:, top, right]
            below = (1 - dx) * scores[:, bottom, left] + dx * scores[:, bottom, right]
            out[:, y, x] = (1 - dy) * above + dy * below
    return out


def merged(scores, size, window, stride):
    """Mean over the windows around each pixel; `scores` is a list of (K, wh, ww)."""
    out = np.zeros((len(scores[0]), *size))
    tops, lefts = (anchors(length, window, stride) for length in size)
    for y in range(size[0]):
        for x in range(size[1]):
            found, i = [], 0
            for top in tops:
                for left in lefts:
                    if top <= y < top + window and left <= x < left + window:
                        found.append(scores[i][:, y - top, x - left])
                    i += 1
            out[:, y, x] = np.mean(found, axis=0)
    return out


def upsampled_and_merged(scores, size, window, stride, cover=None, out=None):
    """Upsample (n, K, h', w') window by window, cut off padding, merge, change the size."""
    wh, ww = (min(window, length) for length in size)
    fine = [bilinear(score, cover or (wh, ww))[:, :wh, :ww] for score in scores]
    whole = merged(fine, size, window, stride)
    return bilinear(whole, out) if out else whole
