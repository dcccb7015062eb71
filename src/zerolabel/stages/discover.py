"""The verb discover: from the patch features, or the attention, of one image to its regions.

Every function takes an `Encoded` image and returns group labels int (h, w); `discover` turns groups
into regions. Shapes: `h w` patch grid, `N = h*w`, `D` channels, `R` regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.affinity import affinity
from zerolabel.ops.cluster import kmeans
from zerolabel.ops.communities import louvain
from zerolabel.ops.maps import combine, mass_threshold
from zerolabel.ops.regions import components, sizes
from zerolabel.stages.baselines import by_affinity_propagation, by_agglomerative, by_spectral
from zerolabel.types import Features, RegionMap

BACKGROUND = -1  # a group that is one region wherever it lies, and never noise


@dataclass(frozen=True)
class Encoded:
    """What a backbone saw in one image.

    Attributes:
        features: patch features float32 (h, w, D).
        attention: from CLS to the patches, float32 (heads, h, w), 0 or more.
        received: attention every patch receives, float32 (h, w), 0 or more.
        context: all tokens as the last block gets them, float32 (T, D).
        concepts: what the patches are compared with to group them, float32 (K, D).

    All but the features are None where nobody looks at them.
    """

    features: Tensor
    attention: Tensor | None = None
    received: Tensor | None = None
    context: Tensor | None = None
    concepts: Tensor | None = None


def each(seen: Features, features: Tensor, concepts: Tensor | None = None) -> list[Encoded]:
    """Cut what a backbone saw in a batch into images.

    Args:
        seen: of B images; what it lacks stays None.
        features: patch features to group by, float32 (B, h, w, D).
        concepts: float32 (B, K, D) or None.

    Returns:
        B encoded images.
    """
    parts = (seen.attention, seen.received, seen.context, concepts)
    rows = zip(*([None] * len(features) if part is None else part for part in parts), strict=True)
    return [Encoded(x, *row) for x, row in zip(features, rows, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Discover:
    """Options of the verb.

    Attributes:
        discover: "louvain" (communities of the affinity graph), "kmeans" (per image), "attention"
            (what holds most of the CLS token's attention, and the rest), "concepts" (the nearest
            of those that ACSeg learned), or "spectral", "affinity-propagation" or "agglomerative"
            (see stages/baselines.py; they need scikit-learn).
        weighted: edges carry max(a, 0) instead of DatUS2's binary a > 0 (eq. 1).
        self_loops: keep the diagonal of the affinity, as DatUS2's code does.
        resolution: Louvain's gamma; larger gives more and smaller communities.
        starts: 1 climbs once in a fixed order; further starts cut the best communities in two and
            climb again.
        segments: groups per image for "kmeans", "spectral" and "agglomerative".
        merge: concepts of an image with a higher cosine are one, and 1 keeps all apart; ACSeg does
            not say so, but its loss is the same for one concept and for two equal ones.
        mass: share of the attention that the kept patches hold; 0.6 in DINO's figures.
        heads: for "attention": "mean" over heads, "union" of their masks, "all" (each head's part
            is a group of its own), or the index of one.
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
    merge: float = 0.9
    mass: float = 0.6
    heads: int | str = "mean"
    split: bool = True
    connectivity: int = 8
    minimum: int = 6
    seed: int = 0


def needs(options: Discover) -> frozenset[str]:
    """Fields of `Encoded` that a discovery looks at beside the patch features."""
    return frozenset({options.discover} & {"attention", "concepts"})


def discover(image: Encoded, options: Discover) -> RegionMap:
    """Group the patches of one image and split the groups into connected regions.

    Args:
        image: what the backbone saw in it.
        options: which function, and its settings.

    Returns:
        The regions; those below the minimum size are marked as noise. If no region of a group
        reaches that size, the largest one is kept. A background is the last region, in one piece
        and never noise.

    Raises:
        UsageError: the function's name or a setting is unknown, or there is no attention.
    """
    if options.discover not in DISCOVER:
        raise unknown_name("discover stage", options.discover, DISCOVER)
    groups = DISCOVER[options.discover](image, options)
    ids = components(groups, connectivity=options.connectivity) if options.split else groups
    behind = groups == BACKGROUND
    ids = np.where(behind, ids.max() + 1, ids)
    ids = np.unique(ids, return_inverse=True)[1].reshape(groups.shape).astype(np.int32)
    count = sizes(ids)
    always = np.zeros(len(count), np.bool_)
    always[ids[behind]] = True
    largest = count[~always].max(initial=0)
    own = np.empty(len(count), np.int32)
    own[ids] = groups
    return RegionMap(ids, always | (count >= min(options.minimum, largest)), own)


def by_louvain(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """Communities of the affinity graph (DatUS2, sections III.B and III.C)."""
    features = image.features
    graph = affinity(
        features.flatten(0, 1), weighted=options.weighted, self_loops=options.self_loops
    )
    labels = louvain(
        graph,
        resolution=options.resolution,
        starts=options.starts,
        seed=options.seed,
        overwrite=True,
    )
    return labels.reshape(features.shape[:2])


def by_kmeans(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """Cosine k-means on the patches of this image alone."""
    x = F.normalize(image.features.flatten(0, 1), dim=1)
    k = min(options.segments, len(x))
    labels = kmeans(x, k, seed=options.seed, restarts=1, iterations=30).labels
    return labels.cpu().numpy().astype(np.int32).reshape(image.features.shape[:2])


def by_attention(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """What holds most of the attention's mass (DINO, section 4.2.2) before the background."""
    if image.attention is None:
        raise UsageError(
            "To discover by attention, the attention of the CLS token is needed, and the method "
            "did not ask its backbone for it. Choose another --discover."
        )
    attention, heads = image.attention, options.heads
    if heads == "all":
        kept = mass_threshold(attention, options.mass)  # (heads, h, w)
        share = attention / attention.sum((1, 2), keepdim=True).clamp_min(1e-12)
        groups = torch.where(kept, share, -1.0).argmax(0)  # the head that looks there most
        mask = kept.any(0)
    else:
        if heads == "union":
            mask = combine(mass_threshold(attention, options.mass), heads)
        elif heads == "mean" or isinstance(heads, int):
            mask = mass_threshold(combine(attention, heads), options.mass)
        else:
            raise unknown_name("choice of heads", heads, ("mean", "union", "all"))
        groups = torch.zeros(mask.shape, dtype=torch.int64)
    found: NDArray[np.int32] = torch.where(mask.cpu(), groups.cpu(), BACKGROUND).numpy()
    return found.astype(np.int32)


def by_concepts(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """The concept that every patch is most like; those that no patch is like vanish (ACSeg)."""
    if image.concepts is None:
        raise UsageError(
            "To discover by concepts, a method that learns them is needed, such as acseg. Choose "
            "another --discover."
        )
    nearest = similarities(image).argmax(0).cpu().numpy()  # (h, w)
    used = np.unique(nearest)
    c = F.normalize(image.concepts.cpu(), dim=1).numpy()[used]
    cosines = np.minimum(c @ c.T, 1)  # rounding goes beyond
    _, same = connected_components(cosines > options.merge, directed=False)
    first = np.unique(same, return_index=True)[1]  # of the concepts that are one
    home = np.zeros(len(image.concepts), np.int32)
    home[used] = used[first[same]]
    found: NDArray[np.int32] = home[nearest]
    return found


def similarities(image: Encoded) -> Tensor:
    """Cosine of every patch to every concept of an image that has some, float32 (K, h, w)."""
    if image.concepts is None:
        raise UsageError("This image has no concepts.")
    x, c = F.normalize(image.features, dim=-1), F.normalize(image.concepts, dim=1)
    return (x @ c.T).permute(2, 0, 1)


def likeness(image: Encoded, regions: RegionMap) -> Tensor | None:
    """Cosine of every patch to the concepts of every region, to be interpolated before deciding.

    Args:
        image: what the backbone saw.
        regions: found in it.

    Returns:
        float32 (R, h, w), the highest of a region's concepts; a patch is most like its own region.
        None where the regions are not those of concepts, but of something else or pieces of them.
    """
    if image.concepts is None:
        return None
    cosines = similarities(image).flatten(1).cpu()  # (K, N)
    ids = torch.from_numpy(regions.ids).long().flatten()
    owned = torch.zeros(len(cosines), regions.count, dtype=torch.bool)
    owned[cosines.argmax(0), ids] = True
    if int(owned.sum(1).max()) > 1:
        return None
    used, home = owned.nonzero(as_tuple=True)
    best = torch.full((regions.count, len(ids)), -1.0)
    best.scatter_reduce_(0, home[:, None].expand(-1, len(ids)), cosines[used], "amax")
    return best.reshape(regions.count, *regions.ids.shape)


DISCOVER: dict[str, Callable[[Encoded, Discover], NDArray[np.int32]]] = {
    "louvain": by_louvain,
    "kmeans": by_kmeans,
    "attention": by_attention,
    "concepts": by_concepts,
    "spectral": by_spectral,
    "affinity-propagation": by_affinity_propagation,
    "agglomerative": by_agglomerative,
}
