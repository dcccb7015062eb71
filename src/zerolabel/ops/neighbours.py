"""The nearest rows of a bank by cosine, and the vote of their labels.

Shapes: `Q` queries, `N` rows of the bank, `D` channels, `k` neighbours, `C` classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError

TILE = 4096  # queries and rows of the bank compared at once: 64 MB of similarities


def nearest(queries: Tensor, bank: Tensor, k: int, *, tile: int = TILE) -> tuple[Tensor, Tensor]:
    """Find the rows of a bank that point most nearly in the direction of each query.

    One matrix product and one selection per tile; what is held besides the result never exceeds
    `tile` x (`tile` + k) similarities, whatever the size of the bank.

    Args:
        queries: float (Q, D), any lengths; a row of zeros is equally far from everything.
        bank: float (N, D), N >= 1.
        k: neighbours wanted; at most N are returned.
        tile: queries, and rows of the bank, compared at once.

    Returns:
        Cosine similarities float32 (Q, min(k, N)), falling, and rows of the bank int64, same shape.

    Raises:
        UsageError: k or tile below 1, an empty bank, or shapes that do not fit.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1] or not len(bank):
        found = f"{tuple(queries.shape)} and {tuple(bank.shape)}"
        raise UsageError(f"Expected queries (Q, D) and a bank (N, D) with N >= 1; found {found}.")
    if min(k, tile) < 1:
        raise UsageError(f"k and tile must be at least 1, got {k} and {tile}.")
    k = min(k, len(bank))
    parts = [_nearest(rows, bank, k, tile) for rows in torch.split(queries, tile)]
    similarities, indices = zip(*parts, strict=True)
    return torch.cat(similarities), torch.cat(indices)


def vote(similarities: Tensor, labels: Tensor, classes: int, temperature: float = 0.07) -> Tensor:
    """Add up the neighbours of each query by class, nearer ones counting more.

    Args:
        similarities: float (Q, k), cosines.
        labels: int64 (Q, k), the class of each neighbour, 0..C-1.
        classes: C.
        temperature: T; smaller listens to the nearest only.

    Returns:
        float32 (Q, C), sum of exp((s - s_max) / T) per class, s_max being the query's nearest;
        0 for a class that no neighbour has.

    Raises:
        UsageError: shapes that differ, a label outside 0..C-1, or T that is not positive.

    Source: Wu et al. 2018, "Unsupervised feature learning via non-parametric instance
    discrimination", section 3.4, as DINO evaluates (Caron et al. 2021). Subtracting s_max scales
    all classes alike and keeps a small T from overflowing.
    """
    if similarities.shape != labels.shape or similarities.ndim != 2:
        found = f"{tuple(similarities.shape)} and {tuple(labels.shape)}"
        raise UsageError(f"Expected similarities and labels of one shape (Q, k); found {found}.")
    if not temperature > 0:
        raise UsageError(f"temperature must be positive, got {temperature}.")
    s = similarities.float()
    scores = s.new_zeros(len(s), classes)
    if not s.numel():
        return scores
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(f"Expected labels in 0..{classes - 1}; found {low}..{high}.")
    weights = ((s - s.amax(1, keepdim=True)) / temperature).exp()
    return scores.scatter_add_(1, labels.long(), weights)


def _nearest(queries: Tensor, bank: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """Compare one tile of queries with the bank, tile by tile, keeping the k best so far."""
    q = F.normalize(queries.float(), dim=1)
    best = q.new_empty(len(q), 0)
    index = torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
    for start in range(0, len(bank), tile):
        rows = F.normalize(bank[start : start + tile].to(q.device).float(), dim=1)
        values, places = (q @ rows.T).topk(min(k, len(rows)))
        best, index = torch.cat([best, values], 1), torch.cat([index, places + start], 1)
        best, kept = best.topk(min(k, best.shape[1]))
        index = index.gather(1, kept)
    return best, index
