"""Modularity by its definition, planted graphs, and regions by walking from cell to cell."""

from collections import deque

import numpy as np
from scipy.ndimage import gaussian_filter


def modularity_by_pairs(adjacency, labels, resolution=1.0):
    """Q = (1/w) sum_ij (A_ij - resolution d_i d_j / w) [c_i = c_j], pair by pair."""
    weights = np.asarray(adjacency, dtype=np.float64)
    w = weights.sum()
    if w == 0:
        return 0.0
    d = weights.sum(axis=1)
    q = 0.0
    for i in range(len(weights)):
        for j in range(len(weights)):
            if labels[i] == labels[j]:
                q += weights[i, j] - resolution * d[i] * d[j] / w
    return q / w


def best_single_move(adjacency, labels, resolution=1.0):
    """Largest growth of Q by moving one node to any community or to one of its own."""
    now = modularity_by_pairs(adjacency, labels, resolution)
    best = 0.0
    for node in range(len(labels)):
        for target in range(max(labels) + 2):
            moved = np.array(labels)
            moved[node] = target
            best = max(best, modularity_by_pairs(adjacency, moved, resolution) - now)
    return best


def block_graph(sizes, inside, between, seed=0):
    """Planted communities: edge probabilities inside and between blocks, in shuffled node order."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    chance = np.where(blocks[:, None] == blocks[None], inside, between)
    upper = np.triu(rng.random(chance.shape) < chance, 1)
    return (upper | upper.T).astype(np.float32), blocks


def smooth_features(side, channels=64, directions=10, noise=0.5, seed=0):
    """Features (side*side, channels) like a ViT's: directions that vary smoothly, and noise."""
    rng = np.random.default_rng(seed)
    fields = rng.standard_normal((directions, side, side))
    fields = gaussian_filter(fields, (0, side / 9, side / 9))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    mixed = fields.reshape(directions, -1).T @ rng.standard_normal((directions, channels))
    noisy = mixed + noise * np.sqrt(directions) * rng.standard_normal(mixed.shape)
    return noisy.astype(np.float32)


def components_by_walking(labels, connectivity):
    """Region ids in order of first appearance: breadth first from every cell not yet reached."""
    height, width = np.shape(labels)
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if connectivity == 8:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    ids = np.full((height, width), -1)
    count = 0
    for row in range(height):
        for col in range(width):
            if ids[row, col] >= 0:
                continue
            ids[row, col] = count
            queue = deque([(row, col)])
            while queue:
                r, c = queue.popleft()
                for dr, dc in steps:
                    y, x = r + dr, c + dc
                    inside = 0 <= y < height and 0 <= x < width
                    if inside and ids[y, x] < 0 and labels[y][x] == labels[r][c]:
                        ids[y, x] = count
                        queue.append((y, x))
            count += 1
    return ids
