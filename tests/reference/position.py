"""Bicubic and bilinear resampling one output value at a time."""

import math

import numpy as np


def keys_cubic(x, a):
    """The cubic convolution kernel (Keys 1981)."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * (x**3 - 5 * x**2 + 8 * x - 4)
    return 0.0


def weights_1d(old, new, scale):
    """(new, old) matrix; beyond the border the edge value is repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) / scale - 0.5
        base = math.floor(centre)
        for j in range(base - 1, base + 3):
            matrix[i, min(max(j, 0), old - 1)] += keys_cubic(centre - j, -0.75)
    return matrix


def weights_1d_linear(old, new):
    """(new, old) matrix of the two nearest; beyond the border the edge value is repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        base = math.floor(centre)
        for j in (base, base + 1):
            matrix[i, min(max(j, 0), old - 1)] += 1 - abs(centre - j)
    return matrix


def weights_1d_antialias(old, new):
    """(new, old) matrix; the kernel widens when shrinking and is cut and rescaled at the border."""
    matrix = np.zeros((new, old))
    ratio = old / new
    widening = max(ratio, 1.0)
    for i in range(new):
        centre = (i + 0.5) * ratio
        for j in range(old):
            matrix[i, j] = keys_cubic((j + 0.5 - centre) / widening, -0.5)
        matrix[i] /= matrix[i].sum()
    return matrix


def interpolate(pos, size, rule):
    """Pos (g*g, D) -> (h*w, D), always resampling."""
    side = math.isqrt(len(pos))
    grid = pos.reshape(side, side, -1)
    ways = []
    for new in size:
        if rule == "dino":
            ways.append(weights_1d(side, new, (new + 0.1) / side))
        elif rule == "size":
            ways.append(weights_1d(side, new, new / side))
        elif rule == "bilinear":
            ways.append(weights_1d_linear(side, new))
        else:
            ways.append(weights_1d_antialias(side, new))
    out = np.einsum("ia,jb,abd->ijd", ways[0], ways[1], grid)
    return out.reshape(size[0] * size[1], -1)
