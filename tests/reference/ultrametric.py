"""Edges pixel by pixel, directions border by border, and merging by looking at every pair."""

import math
from itertools import product

import numpy as np


def edges_by_pixels(shades, *, radius, bins, steps, orientations=8):
    """Half-disc chi-squared differences of one band (H, W) of whole shades 0..steps (bins - 1)."""
    H, W = shades.shape
    padded = np.pad(shades, radius, mode="symmetric")
    found = np.zeros((H, W, orientations))
    for y, x, k in product(range(H), range(W), range(orientations)):
        angle = math.pi * k / orientations
        halves = np.zeros((2, bins))
        for down, right in product(range(-radius, radius + 1), repeat=2):
            # how far above the line that rises to the right
            side = -down * math.cos(angle) - right * math.sin(angle)
            if down**2 + right**2 > radius**2 or abs(side) < 1e-9:
                continue
            shade = padded[y + radius + down, x + radius + right]
            for bin_ in range(bins):
                halves[int(side > 0), bin_] += max(0.0, 1 - abs(shade / steps - bin_))
        g, h = halves / halves.sum(axis=1, keepdims=True)
        some = g + h > 0
        found[y, x, k] = 0.5 * ((g - h)[some] ** 2 / (g + h)[some]).sum()
    return found


def borders(regions):
    """Every border: its two pixels, the regions' ids sorted, its middle, and the way it faces."""
    H, W = regions.shape
    found = []
    for y, x in product(range(H), range(W)):
        for down, right in ((0, 1), (1, 0)):
            if y + down < H and x + right < W and regions[y, x] != regions[y + down, x + right]:
                one, other = int(regions[y, x]), int(regions[y + down, x + right])
                sign = 1 if one < other else -1
                middle = (y + down / 2, x + right / 2)
                pair = (min(one, other), max(one, other))
                pixels = ((y, x), (y + down, x + right))
                found.append((pixels, pair, middle, (sign * down, sign * right)))
    return found


def direction(border, among, *, window, sigma, orientations=8):
    """The number of the line along which the arc of a border runs there."""
    _, pair, middle, own = border
    down, right = 1e-9 * own[0], 1e-9 * own[1]
    for _, pair_, middle_, faces in among:
        far = math.dist(middle, middle_)
        if pair_ == pair and far <= window:
            down += math.exp(-(far**2) / (2 * sigma**2)) * faces[0]
            right += math.exp(-(far**2) / (2 * sigma**2)) * faces[1]
    angle = math.atan2(-down, right) + math.pi / 2  # of the line, not of where it faces
    return round(angle / math.pi * orientations) % orientations


def arcs_by_borders(regions, strength, *, window=3, sigma=1.5):
    """(lower id, higher id) -> the strengths of all its borders."""
    found, among = {}, borders(regions)
    for border in among:
        pixels, pair, _, _ = border
        k = direction(border, among, window=window, sigma=sigma, orientations=strength.shape[2])
        found.setdefault(pair, []).append(sum(float(strength[y, x, k]) for y, x in pixels) / 2)
    return found


def merge_by_search(regions, arcs):
    """Merge the two segments with the weakest mean between them, the first of equals.

    Args:
        regions: (H, W) ids 0..R-1.
        arcs: (lower id, higher id) -> strengths of its borders.

    Returns:
        The height of every merge, and the segmentation after it, (H, W) ids of lowest regions.
    """
    segment = list(range(int(regions.max()) + 1))
    heights, maps = [], []
    while len(set(segment)) > 1:
        between = {}
        for (a, b), values in arcs.items():
            if segment[a] != segment[b]:
                ends = tuple(sorted((segment[a], segment[b])))
                values_, pairs = between.get(ends, ([], []))
                between[ends] = (values_ + values, [*pairs, (a, b)])
        weakest = min(
            ((math.fsum(values) / len(values), min(pairs), ends))
            for ends, (values, pairs) in between.items()
        )
        height, _, (low, high) = weakest
        segment = [low if place == high else place for place in segment]
        heights.append(max([height, *heights]))
        maps.append(np.array(segment)[regions])
    return heights, maps
