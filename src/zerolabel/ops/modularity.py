"""The modularity of a soft assignment of patches to concepts, and its gradient.

Patches that are more alike than two random ones should share a concept, others should not. Two
patches share what the best of all concepts gives to both, so the plain formula needs a value for
every pair and concept; here that is done for some rows at a time, and only the edges of one image
are ever in memory. Shapes: `B` images, `N` patches, `D` channels, `K` concepts, `T` rows.

Source: Li et al., "ACSeg: Adaptive Conceptualization for Unsupervised Semantic Segmentation",
CVPR 2023, its affinity graph and modularity loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zerolabel.errors import UsageError

PAIRS = 1 << 17  # pairs of patches at a time: what is computed of them stays near the cores


def modularity_loss(features: Tensor, shares: Tensor, *, self_loops: bool = True) -> Tensor:
    """Compute minus the modularity of every image.

    Two patches have an edge A_ij, their cosine where it is positive. With degrees k_i, the sum 2m
    of all edges and the shares S clipped at 0, the loss is
    -1/2m sum_ij (A_ij - k_i k_j / 2m) max_c S_ic S_jc. Only the shares get a gradient.

    Args:
        features: float (B, N, D), rows of length 1.
        shares: same type (B, N, K), how much of a concept a patch has, e.g. their cosine.
        self_loops: whether a patch has an edge to itself.

    Returns:
        (B,), above -1, which would be the best; 0 where all patches share alike.

    Raises:
        UsageError: shapes that do not fit together.
    """
    if features.ndim != 3 or shares.ndim != 3 or features.shape[:2] != shares.shape[:2]:
        raise UsageError(
            f"Expected features (B, N, D) and shares (B, N, K), found {tuple(features.shape)} and "
            f"{tuple(shares.shape)}."
        )
    loss: Tensor = _Modularity.apply(features, shares, self_loops)  # type: ignore[no-untyped-call]
    return loss


class _Modularity(torch.autograd.Function):
    """Value and gradient in one pass over the pairs; backward only scales."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, shares: Tensor, self_loops: bool) -> Tensor:
        found = [
            _image(x, s, self_loops, slope=ctx.needs_input_grad[1])
            for x, s in zip(features, shares.clamp_min(0), strict=True)
        ]
        ctx.save_for_backward(torch.stack([slope for _, slope in found]))
        return torch.stack([loss for loss, _ in found])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return None, upstream[:, None, None] * slopes, None


def _image(x: Tensor, s: Tensor, self_loops: bool, *, slope: bool) -> tuple[Tensor, Tensor]:
    """The loss of one image, and its gradient (N, K); zeros if that is not asked for."""
    edges = (x @ x.T).clamp_min_(0)
    if not self_loops:
        edges.fill_diagonal_(0)
    k = edges.sum(1)
    total = k.sum().clamp_min(torch.finfo(k.dtype).tiny)  # 2m
    excess = edges.addr_(k, k / total, alpha=-1)
    columns, won = s.T.contiguous(), torch.zeros_like(s)  # (K, N), (N, K)
    loss = x.new_zeros(())
    step = max(1, PAIRS // len(x))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        offers = columns[:, rows, None] * columns[:, None]  # (K, T, N)
        best = offers.amax(0)
        gain = excess[rows] * best
        loss -= gain.sum()
        if slope:  # to each concept what it gains where it is the best, which at a tie are several
            won[rows] = offers.eq_(best).mul_(gain).sum(2).T
    # A pair stands in the row of either patch; and S_jc is the best offer over S_ic.
    return loss / total, torch.where(s > 0, won * (-2 / total) / s, 0)
