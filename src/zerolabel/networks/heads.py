"""Projection heads of self-distillation; used while training only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """A three-layer MLP onto the unit sphere, and prototypes compared by cosine.

    Attributes:
        prototypes: (K, bottleneck) directions; None where embeddings are compared with each other.

    Source:
        Caron et al. 2021 (DINO), appendix C; the prototypes are the weight-normalised last layer
        with its gain fixed to 1.
    """

    def __init__(self, dim: int, *, hidden: int, bottleneck: int, prototypes: int = 0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        shape = (prototypes, bottleneck)
        self.prototypes = nn.Parameter(torch.zeros(shape)) if prototypes else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> unit vectors (..., bottleneck), or cosines to the prototypes (..., K)."""
        z = F.normalize(self.mlp(x).float(), dim=-1, eps=1e-6)  # in float32 under mixed precision
        if self.prototypes is None:
            return z
        return F.linear(z, F.normalize(self.prototypes.float(), dim=-1))


def reset_head(head: ProjectionHead, *, generator: torch.Generator) -> None:
    """Draw a head's weights: truncated normal of deviation 0.02, zero biases, as DINO does.

    Args:
        head: changed in place.
        generator: on the head's device.
    """
    with torch.no_grad():
        for name, value in head.named_parameters():
            if name.endswith("bias"):
                value.zero_()
            elif name == "prototypes":
                value.normal_(generator=generator)  # only its direction counts
            else:
                nn.init.trunc_normal_(value, std=0.02, generator=generator)
