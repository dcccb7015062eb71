"""Vectors as points of a plane, to be looked at: principal components, or t-SNE.

Both compare directions: every vector is brought to unit length first. Shapes: `N` vectors, `D`
channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.cluster import principal_axes
from zerolabel.ops.pca import signed
from zerolabel.ops.threads import threads_for

FLAT = 1e-12  # mean square of a coordinate that is float32 rounding of equal vectors
FEW = 4  # points below which nobody has neighbours to keep
NEIGHBOURS = 30  # t-SNE's perplexity in its paper's figures, and scikit-learn's
SPREAD = 1e-4  # standard deviation of the points t-SNE starts from (its paper, algorithm 1)


@dataclass(frozen=True)
class Plane:
    """Points to look at.

    Attributes:
        points: float64 (N, 2), finite; all 0 where all vectors have one direction.
        shares: of the variance, 0..1, that either axis holds; None where axes mean nothing.
    """

    points: NDArray[np.float64]
    shares: tuple[float, float] | None


def embed(x: Tensor, *, name: str = "pca", seed: int = 0) -> Plane:
    """Lay vectors out in a plane, by their directions.

    Args:
        x: float (N, D), at least one row.
        name: "pca" (the two principal components, each pointing to the positive side of its
            largest entry) or "tsne" (neighbours stay neighbours; needs scikit-learn).
        seed: of t-SNE.

    Returns:
        The plane. Fewer than 4 vectors, or those that have all one direction, are laid out by
        principal components whatever the name.

    Raises:
        UsageError: the name is unknown, or scikit-learn is missing.
    """
    if name not in EMBEDDINGS:
        raise unknown_name("embedding", name, EMBEDDINGS)
    return EMBEDDINGS[name](F.normalize(x.detach().cpu().double(), dim=1), seed)


def by_pca(x: Tensor, seed: int) -> Plane:
    """Project unit vectors on their two principal axes; nothing is drawn by chance."""
    with threads_for(x.numel() * x.shape[1]):
        mean, axes = principal_axes(x, 2)
    centred = x - mean
    points = centred @ signed(axes)  # (N, 2), or (N, 1) of one channel
    points = F.pad(points, (0, 2 - points.shape[1]))
    points[:, points.square().mean(0) < FLAT] = 0
    total = float(centred.square().sum())
    first, second = (points.square().sum(0) / total if points.any() else points[0]).tolist()
    return Plane(points.numpy(), (first, second))


def by_tsne(x: Tensor, seed: int) -> Plane:
    """Keep the neighbours of unit vectors together, starting from their principal components.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", 2008.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UsageError(
            "t-SNE needs scikit-learn, which is not installed: "
            'pip install "zerolabel[baselines]", or leave --embedding at pca.'
        ) from None
    start = by_pca(x, seed)
    if len(x) < FEW or not start.points.any():
        return start
    made = TSNE(
        2,
        perplexity=min(NEIGHBOURS, (len(x) - 1) / 3),
        init=(start.points * (SPREAD / start.points[:, 0].std())).astype(np.float32),
        random_state=seed,
    )
    return Plane(made.fit_transform(x.float().numpy()).astype(np.float64), None)


EMBEDDINGS: dict[str, Callable[[Tensor, int], Plane]] = {"pca": by_pca, "tsne": by_tsne}
