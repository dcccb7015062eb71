"""RoIAlign, one bin and one sample after another, in float64."""

import math

import numpy as np


def bilinear(grid, y, x):
    """A value between the centres of four cells, at coordinates where a cell is 1 wide."""
    H, W = grid.shape
    y, x = min(max(y - 0.5, 0), H - 1), min(max(x - 0.5, 0), W - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
    above = grid[top, left] * (1 - (x - left)) + grid[top, right] * (x - left)
    below = grid[bottom, left] * (1 - (x - left)) + grid[bottom, right] * (x - left)
    return above * (1 - (y - top)) + below * (y - top)


def roi_align(grid, box, size, *, flip, samples):
    """One map (H, W) and one box."""
    row0, column0, row1, column1 = box
    high, wide = (row1 - row0) / size[0], (column1 - column0) / size[1]
    down = samples or max(1, math.ceil(high))
    across = samples or max(1, math.ceil(wide))
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            for s in range(down):
                for t in range(across):
                    y = row0 + (i + (s + 0.5) / down) * high
                    x = column0 + (j + (t + 0.5) / across) * wide
                    out[i, j] += bilinear(grid, y, x) / (down * across)
    return out[:, ::-1] if flip else out
