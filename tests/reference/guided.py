"""The guided filter by its definition: a ridge regression in every window, averaged per pixel."""

import numpy as np


def guided_filter(image, scores, *, radius, epsilon):
    """Filter every score map along the edges of a colour image (He et al. 2013, eq. 11 and 14).

    image is (3, H, W) in 0..1 and scores is (K, H, W); windows are clipped at the border. In each
    window the line q = a.I + b with the least sum of squared errors plus n epsilon |a|^2 is found
    by appending the penalty as rows to the equations. A pixel takes the mean of the lines of all
    windows that it lies in.
    """
    (_, H, W), K = image.shape, len(scores)
    total, count = np.zeros((K, H, W)), np.zeros((H, W))
    for row in range(H):
        for col in range(W):
            window = (
                slice(max(0, row - radius), row + radius + 1),
                slice(max(0, col - radius), col + radius + 1),
            )
            pixels = image[(slice(None), *window)].reshape(3, -1).T.astype(np.float64)
            n = len(pixels)
            equations = np.vstack(
                [
                    np.hstack([pixels, np.ones((n, 1))]),
                    np.hstack([np.sqrt(n * epsilon) * np.eye(3), np.zeros((3, 1))]),
                ]
            )
            wanted = scores[(slice(None), *window)].reshape(K, -1).T.astype(np.float64)
            wanted = np.vstack([wanted, np.zeros((3, K))])
            line, *_ = np.linalg.lstsq(equations, wanted, rcond=None)  # (4, K): a and b
            # The averaged line of a pixel is that of the windows centred within the radius of it,
            # which are the windows that it lies in.
            here = np.einsum("ck,cij->kij", line[:3], image[(slice(None), *window)])
            total[(slice(None), *window)] += here + line[3][:, None, None]
            count[window] += 1
    return total / count
