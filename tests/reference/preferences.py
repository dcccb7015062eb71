"""Slow and obvious class and space preference: loops over pixels, lists of objects."""

import math

import numpy as np


def space_curve(images, classes, *, bins, reach):
    """Means of IoU by bin, and the number of objects in each.

    Args:
        images: (truth, prediction) pairs; ids outside 0..C-1 are not scored, or no class.
        classes: C.
        bins: number of bins.
        reach: end of the last bin, half diagonals.

    Returns:
        mIoU of each bin, None for an empty one, and objects of each.
    """
    shared, either, objects = {}, {}, [0] * bins
    for truth, prediction in images:
        H, W = truth.shape
        for c in range(classes):
            own = [place for place, value in np.ndenumerate(truth) if value == c]
            if not own:
                continue
            y, x = np.mean(own, axis=0) + 0.5
            away = math.dist((y, x), (H / 2, W / 2)) / (math.hypot(H, W) / 2)
            b = min(int(away / reach * bins), bins - 1)
            objects[b] += 1
            for place, value in np.ndenumerate(truth):
                if 0 <= value < classes:
                    hit = (value == c, prediction[place] == c)
                    shared[b, c] = shared.get((b, c), 0) + all(hit)
                    either[b, c] = either.get((b, c), 0) + any(hit)
    curve = [
        [shared[b, c] / either[b, c] for c in range(classes) if (b, c) in either]
        for b in range(bins)
    ]
    return [float(np.mean(own)) if own else None for own in curve], objects
