"""Maps of a teacher and a student on one grid, and how far apart their features are.

Shapes: `B` images, `h w` a grid, `P` channels, `Q` words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.types import IGNORE


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, P, h, w) bilinearly, those of the same size not at all."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize integer labels (B, h, w): each place takes that of the nearest centre; int64."""
    if tuple(labels.shape[1:]) == tuple(size):
        return labels.long()
    near = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
    return near[:, 0].long()


def one_hot(labels: Tensor, words: int, *, ignore: int = IGNORE) -> Tensor:
    """Turn labels into masks.

    Args:
        labels: int64 (B, h, w), 0..Q-1 or `ignore`.
        words: Q.
        ignore: the label of places that are in no mask.

    Returns:
        float32 (B, Q, h, w), 0 and 1.
    """
    B, h, w = labels.shape
    counts = labels != ignore
    masks = torch.zeros(B, words, h, w, device=labels.device)
    return masks.scatter_(1, torch.where(counts, labels, 0)[:, None], counts[:, None].float())


def feature_loss(embedding: Tensor, dense: Tensor) -> Tensor:
    """Mean absolute difference of features, the coarser ones resized to the grid of the finer.

    Resizing both to the pixels of the image, as published, takes 64 times the memory at a stride
    of 8, for maps that are bilinear in between anyway.

    Args:
        embedding: the student's, float32 (B, h', w', P).
        dense: the teacher's, float (B, h, w, P).

    Returns:
        A scalar.

    Source:
        Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
        segmentation", 2024, equation 9.
    """
    mine, taught = embedding.permute(0, 3, 1, 2), dense.float().permute(0, 3, 1, 2)
    size = max(mine.shape[2:], taught.shape[2:], key=lambda grid: grid[0] * grid[1])
    fine = (int(size[0]), int(size[1]))
    return F.l1_loss(resized(mine, fine), resized(taught, fine))
