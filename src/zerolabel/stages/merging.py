"""Part of the verb refine: pieces of a label map merge along the weakest borders of the image.

Shapes: `C` bands, `H W` pixels, `K` channels, `R` pieces.

Source: Xia and Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017,
algorithm 2.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.ops.edges import edge_strength
from zerolabel.ops.ultrametric import MergeTree, merge_tree, segment_at

STEPS = 8  # levels that are worth showing


def merged(scores: Tensor, image: Tensor, *, level: float) -> tuple[Tensor, Tensor]:
    """Merge the pieces of a label map along weak borders (algorithm 2).

    Args:
        scores: probabilities, float32 (K, H, W).
        image: float32 (C, H, W), 0..255.
        level: of the borders that vanish, 0..1.

    Returns:
        Mean probabilities of the piece that a pixel is in, float32 (K, H, W), and the pieces, int64
        (H, W).
    """
    tree = tree_of(scores, image)
    parts = torch.from_numpy(segment_at(tree, level)).long()
    return means(scores, parts)[:, parts], parts


def means(values: Tensor, parts: Tensor) -> Tensor:
    """Mean of values (D, H, W) over each piece of int64 (H, W), all with a pixel: (D, R)."""
    owners, rows = parts.flatten(), values.flatten(1)
    sums = torch.zeros(len(rows), int(owners.max()) + 1).index_add_(1, owners, rows)
    return sums / torch.bincount(owners)


def tree_of(scores: Tensor, image: Tensor) -> MergeTree:
    """Order the pieces of a label map by the strength of their borders in the image."""
    edges = edge_strength(image.permute(1, 2, 0).numpy())
    return merge_tree(scores.argmax(0).numpy().astype(np.int64), edges)


def levels(heights: NDArray[np.float32]) -> list[tuple[int, float]]:
    """Choose levels to show: all pieces, half of them, and so on down to two.

    Args:
        heights: of the merges, rising, float32 (R - 1,).

    Returns:
        Number of pieces and level, the lowest level first, at most `STEPS`.
    """
    whole = len(heights) + 1
    counts = sorted({max(1, whole >> i) for i in range(STEPS)} | {whole}, reverse=True)
    return [
        (count, float(heights[whole - count - 1]) if count < whole else 0.0)
        for count in counts[:STEPS]
    ]
