"""Scenes the slow way: resize everything, count classes one by one, then cut, flip and pad."""

from collections import Counter
from fractions import Fraction

import numpy as np
import torch


def resized_label(label, size):
    """The pixel in which the centre of each new pixel lies."""
    out = np.zeros(size, np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            y = Fraction(2 * row + 1, 2) * Fraction(label.shape[0], size[0])
            x = Fraction(2 * column + 1, 2) * Fraction(label.shape[1], size[1])
            out[row, column] = label[int(y), int(x)]
    return out


def shrunk(n, size):
    """Means of pixels under triangles as wide as two new pixels, or two old ones if it grows."""
    step = n / size
    reach = max(step, 1)
    weights = np.zeros((size, n))
    for i in range(size):
        for j in range(n):
            weights[i, j] = max(0, 1 - abs(j + 0.5 - (i + 0.5) * step) / reach)
        weights[i] /= weights[i].sum()
    return weights


def resized_image(image, size):
    """Antialiased bilinear in float64, not rounded."""
    down, across = shrunk(image.shape[0], size[0]), shrunk(image.shape[1], size[1])
    return np.einsum("ay,bx,yxc->abc", down, across, image, optimize=True)


def prevails(label, single):
    counts = Counter(value for value in label.ravel().tolist() if value != 255)
    total = sum(counts.values())
    return total == 0 or max(counts.values()) / total > single


def scene(image, label, config, *, generator):
    """Image float (c, c, 3), label (c, c), and how often the crop was drawn."""
    H, W = label.shape
    c = config.crop
    if config.plain:
        size = (c, c)
    else:
        short = config.short
        if max(H, W) / min(H, W) > config.longest:
            short = config.longest * config.short * min(H, W) / max(H, W)
        drawn = torch.rand((), generator=generator, dtype=torch.float64).item()
        scale = short / min(H, W) * (config.ratio[0] + (config.ratio[1] - config.ratio[0]) * drawn)
        size = (max(1, round(H * scale)), max(1, round(W * scale)))
    big_image, big_label = resized_image(image, size), resized_label(label, size)
    draws = 0
    while draws < 11:
        draws += 1
        top = torch.randint(max(size[0] - c, 0) + 1, (), generator=generator).item()
        left = torch.randint(max(size[1] - c, 0) + 1, (), generator=generator).item()
        cut = big_label[top : top + c, left : left + c]
        if not prevails(cut, config.single) or (size[0] <= c and size[1] <= c):
            break
    seen = np.zeros((c, c, 3)) + [124, 116, 104]
    known = np.full((c, c), 255, np.uint8)
    picture = big_image[top : top + c, left : left + c]
    if torch.rand((), generator=generator).item() < config.flip:
        picture, cut = picture[:, ::-1], cut[:, ::-1]
    seen[: cut.shape[0], : cut.shape[1]] = picture
    known[: cut.shape[0], : cut.shape[1]] = cut
    return seen, known, draws
