"""The verb discover: from the patch features of one image to its regions.

Every function takes features float32 (h, w, D) and returns group labels int (h, w); `discover`
turns groups into regions. Shapes: `h w` patch grid, `N = h*w`, `D` channels, `R` regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import unknown_name
from zerolabel.ops.affinity import affinity
from zerolabel.ops.cluster import kmeans
from zerolabel.ops.communities import louvain
from zerolabel.ops.regions import components, sizes
from zerolabel.types import RegionMap


@dataclass(frozen=True, kw_only=True)
class Discover:
    """Options of the verb.

    Attributes:
        discover: "louvain" (communities of the affinity graph) or "kmeans" (per image).
        weighted: edges carry max(a, 0) instead of DatUS2's binary a > 0 (eq. 1).
        self_loops: keep the diagonal of the affinity, as DatUS2's code does.
        resolution: Louvain's gamma; larger gives more and smaller communities.
        starts: 1 climbs once in a fixed order; further starts cut the best communities in two and
            climb again.
        segments: groups per image for "kmeans".
        split: split groups into connected regions; False keeps DatUS2's raw groups.
        connectivity: 4 or 8 neighbours when groups are split.
        minimum: regions of fewer patches are noise; 6 is DatUS2's "more than 5".
        seed: fixes every draw.
    """

    discover: str = "louvain"
    weighted: bool = False
    self_loops: bool = True
    resolution: float = 1.0
    starts: int = 2
    segments: int = 6
    split: bool = True
    connectivity: int = 8
    minimum: int = 6
    seed: int = 0


def discover(features: Tensor, options: Discover) -> RegionMap:
    """Group the patches of one image and split the groups into connected regions.

    Args:
        features: float32 (h, w, D).
        options: which function, and its settings.

    Returns:
        The regions; those below the minimum size are marked as noise. An image without any region
        of that size keeps its largest one.

    Raises:
        UsageError: the function's name is unknown.
    """
    if options.discover not in DISCOVER:
        raise unknown_name("discover stage", options.discover, DISCOVER)
    groups = DISCOVER[options.discover](features, options)
    if options.split:
        ids = components(groups, connectivity=options.connectivity)
    else:
        ids = np.unique(groups, return_inverse=True)[1].reshape(groups.shape).astype(np.int32)
    count = sizes(ids)
    return RegionMap(ids, count >= min(options.minimum, count.max()))


def by_louvain(features: Tensor, options: Discover) -> NDArray[np.int32]:
    """Communities of the affinity graph (DatUS2, sections III.B and III.C)."""
    graph = affinity(
        features.flatten(0, 1), weighted=options.weighted, self_loops=options.self_loops
    )
    labels = louvain(graph, resolution=options.resolution, starts=options.starts, seed=options.seed)
    return labels.reshape(features.shape[:2])


def by_kmeans(features: Tensor, options: Discover) -> NDArray[np.int32]:
    """Cosine k-means on the patches of this image alone."""
    x = F.normalize(features.flatten(0, 1), dim=1)
    k = min(options.segments, len(x))
    labels = kmeans(x, k, seed=options.seed, restarts=1, iterations=30).labels
    return labels.cpu().numpy().astype(np.int32).reshape(features.shape[:2])


DISCOVER: dict[str, Callable[[Tensor, Discover], NDArray[np.int32]]] = {
    "louvain": by_louvain,
    "kmeans": by_kmeans,
}
