"""The modularity loss as it is written: a value for every pair and concept."""

import torch


def modularity_loss(features, shares, *, self_loops=True):
    """Minus the modularity: (B, N, D) unit rows and (B, N, K) -> (B,)."""
    edges = (features @ features.transpose(1, 2)).clamp(min=0)
    if not self_loops:
        edges = edges * (1 - torch.eye(edges.shape[-1], dtype=edges.dtype))
    degree = edges.sum(2)
    total = degree.sum(1)[:, None, None]
    excess = edges - degree[:, :, None] * degree[:, None, :] / total
    s = shares.clamp(min=0)
    together = (s[:, :, None, :] * s[:, None, :, :]).amax(3)
    return -(excess * together).sum((1, 2)) / total[:, 0, 0]
