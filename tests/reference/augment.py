"""Random views, one output pixel after another, in float64."""

import math

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])


def resample(image, box, *, flip, blur, size, soft):
    """Cut, mirror, shrink and blur (C, S, S): a Gaussian around the source of every pixel."""
    side = image.shape[-1]
    top, left, height, width = box
    out = np.zeros((len(image), size, size))
    at = np.arange(side) + 0.5  # centres of the input pixels
    for i in range(size):
        for j in range(size):
            column = size - 1 - j if flip else j
            y = (top + (i + 0.5) / size * height) * side
            x = (left + (column + 0.5) / size * width) * side
            steps = height * side / size, width * side / size  # input pixels per output pixel
            wide = [math.hypot(soft * max(1, step), blur * step) for step in steps]
            weight = np.exp(
                -((at[:, None] - y) ** 2) / (2 * wide[0] ** 2)
                - (at[None, :] - x) ** 2 / (2 * wide[1] ** 2)
            )
            out[:, i, j] = (image * weight).sum((1, 2)) / weight.sum()
    return out


def turn(pixel, angle):
    """Rotate a colour about the grey axis (Rodrigues)."""
    axis = np.ones(3) / math.sqrt(3)
    along = axis * (axis @ pixel)
    return (
        along + math.cos(angle) * (pixel - along) + math.sin(angle) * np.cross(axis, pixel - along)
    )


def recolour(image, *, brightness, contrast, saturation, hue, solarise):
    """Change the colours of (3, n, n): hue, saturation, brightness, contrast, solarise."""
    x = np.array(image, float)
    n = x.shape[-1]
    for i in range(n):
        for j in range(n):
            pixel = x[:, i, j]
            grey = LUMA @ pixel
            pixel = saturation * turn(pixel, 2 * math.pi * hue) + (1 - saturation) * grey
            x[:, i, j] = brightness * pixel
    mean = np.mean([LUMA @ x[:, i, j] for i in range(n) for j in range(n)])
    x = np.clip(mean + contrast * (x - mean), 0, 1)
    return np.where(x >= 0.5, 1 - x, x) if solarise else x
