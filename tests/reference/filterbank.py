"""The texture of the filter bank, patch by patch: cut out, normalise, whiten, compare, pool."""

import numpy as np

CONTRAST = 10 / 255**2


def normalised(patch):
    """Take brightness out of a patch and divide by its contrast."""
    x = np.asarray(patch, np.float64).ravel()
    x = x - x.mean()
    return x / np.sqrt((x**2).mean() + CONTRAST)


def whitening(patches):
    """Mean of the normalised patches, and the matrix that gives them equal variance everywhere.

    Directions of little variance are amplified less: a tenth of the mean eigenvalue is added.
    """
    x = np.stack([normalised(patch) for patch in patches])
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    values, vectors = np.linalg.eigh(covariance)
    gains = 1 / np.sqrt(np.maximum(values, 0) + 0.1 * max(values.mean(), 1e-6))
    return mean, vectors @ np.diag(gains) @ vectors.T


def texture(image, mean, whiten, directions, *, scale, side, threshold, pool, stride=8):
    """Pooled two-sided responses of one scale, (H/stride, W/stride, 2 * atoms).

    image is uint8 (3, H, W), H and W multiples of the stride and of the scale.
    """
    _, H, W = image.shape
    level = image.reshape(3, H // scale, scale, W // scale, scale).mean((2, 4)) / 255
    step = max(1, stride // (2 * scale))
    per_cell = stride // (scale * step)  # samples along a side of a cell
    rows, cols = per_cell * (H // stride), per_cell * (W // stride)
    offset = (side - step) // 2  # so that patches are centred on their samples
    samples = np.zeros((rows, cols, 2 * len(directions)))
    for row in range(rows):
        for col in range(cols):
            # Pixels beyond the border are those on it.
            r = np.clip(row * step - offset + np.arange(side), 0, level.shape[1] - 1)
            c = np.clip(col * step - offset + np.arange(side), 0, level.shape[2] - 1)
            patch = level[:, r][:, :, c]
            response = directions @ (whiten @ (normalised(patch) - mean))
            both = np.concatenate([response, -response])
            samples[row, col] = np.maximum(both - threshold, 0)
    h, w = H // stride, W // stride
    cells = samples.reshape(h, per_cell, w, per_cell, -1).mean((1, 3))
    out = np.zeros_like(cells)
    reach = pool // 2
    for row in range(h):
        for col in range(w):
            r = np.clip(np.arange(row - reach, row + reach + 1), 0, h - 1)
            c = np.clip(np.arange(col - reach, col + reach + 1), 0, w - 1)
            out[row, col] = np.sqrt(cells[r][:, c].mean((0, 1)))
    return out
