"""The mean field of a fully connected CRF by its definition, pixel by pixel."""

import numpy as np


def mean_field(log_p, image, *, near, near_weight, wide, colour, wide_weight, iterations):
    """Krähenbühl and Koltun 2011, algorithm 1, Potts compatibility, symmetric normalisation.

    log_p is (K, H, W) and image (H, W, 3). Every message is the sum over all pixels, the pixel
    itself included, of both kernels, each divided by the root of the row sums of both its ends.
    """
    K, H, W = log_p.shape
    at = np.array([(y, x) for y in range(H) for x in range(W)], float)
    colours = image.reshape(-1, 3).astype(float)
    start = log_p.reshape(K, -1).astype(float)
    N = len(at)

    def place(i):
        return np.exp(-((at - at[i]) ** 2).sum(1) / (2 * near**2))

    def appearance(i):
        far = ((at - at[i]) ** 2).sum(1) / (2 * wide**2)
        unlike = ((colours - colours[i]) ** 2).sum(1) / (2 * colour**2)
        return np.exp(-far - unlike)

    rows = []
    for kernel, weight in ((place, near_weight), (appearance, wide_weight)):
        sums = np.array([kernel(i).sum() for i in range(N)])
        rows.append([weight * kernel(i) / np.sqrt(sums[i] * sums) for i in range(N)])
    both = [a + b for a, b in zip(*rows, strict=True)]

    q = _softmax(start)
    for _ in range(iterations):
        message = np.stack([q @ both[i] for i in range(N)], 1)  # agreeing lowers the energy
        q = _softmax(start + message)
    return q.reshape(K, H, W)


def _softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)
