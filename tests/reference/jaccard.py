"""The Jaccard protocol with sets of pixels, object by object and head by head."""

import numpy as np


def strongest(values, mass):
    """Patches from the strongest on, until they hold the mass."""
    order = sorted(np.ndindex(values.shape), key=lambda at: (values[at], at), reverse=True)
    kept, held = set(), 0.0
    for at in order:
        if held >= mass * values.sum():
            break
        kept.add(at)
        held += values[at]
    return kept


def centre(at, cells, length):
    """The patch in which the centre of a pixel lies."""
    return (2 * at + 1) * cells // (2 * length)


def score_image(maps, label, *, mass, background):
    """Jaccard index of every (object, head); the last column is that of the whole image."""
    H, W = label.shape
    pixels = [at for at in np.ndindex(H, W) if label[at] != 255]
    h, w = maps[0].shape
    masks = []
    for values in maps:
        kept = strongest(values, mass)
        masks.append({(y, x) for y, x in pixels if (centre(y, h, H), centre(x, w, W)) in kept})
    masks.append(set(pixels))
    table = []
    for one in sorted({label[at] for at in pixels} - {background}):
        truth = {at for at in pixels if label[at] == one}
        table.append([len(mask & truth) / len(mask | truth) for mask in masks])
    return np.array(table)
