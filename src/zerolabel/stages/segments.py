"""The verbs discover and describe on a batch of images, kept as one stage of the run.

Shapes: `B` images, `h w` patch grid, `D` channels, `R` regions of one image, `K` categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.data.transforms import load_batch
from zerolabel.ops.cluster import assign
from zerolabel.stages.describe import Describe, describe, pool
from zerolabel.stages.discover import Discover, Encoded, discover
from zerolabel.store import Arrays, Stage, Store
from zerolabel.types import RegionMap, Sample

Look = Callable[[Tensor], Sequence[Encoded]]  # images uint8 (B, 3, H, W) -> what is seen in each


@dataclass(frozen=True, kw_only=True)
class Segment(Discover, Describe):
    """Options of both verbs.

    Attributes:
        size: (H, W) in pixels to which every image is squashed.
    """

    size: tuple[int, int] = (224, 224)


@dataclass(frozen=True)
class Segments:
    """The regions of one image.

    Attributes:
        ids: int64 (h, w), region of every patch.
        valid: bool (R,), False for noise.
        pooled: float32 (R, D), mean patch feature.
        vectors: float32 (R valid, D), L2-normalised descriptions.
    """

    ids: Tensor
    valid: Tensor
    pooled: Tensor
    vectors: Tensor


def segment(
    samples: Sequence[Sample],
    look: Look,
    *,
    backbone: Backbone,
    options: Segment,
    facts: Sequence[object] = (),
    store: Store,
) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
    """Find and describe the regions of a batch, or read them if this was done before.

    Args:
        samples: one batch.
        look: encodes images for discovery.
        backbone: describes regions.
        options: of both verbs.
        facts: everything else that the result depends on, apart from the backbone's digest.
        store: keeps the result.

    Returns:
        Sample and segments for all that could be read, and id -> reason for the others.
    """

    def work() -> Stage:
        images, kept, failures = load_batch(samples, options.size)
        ids = {sample.id for sample in kept}
        ok = np.array([sample.id in ids for sample in samples])
        if not kept:
            return Stage({"ok": ok, **NOTHING}, failures)
        seen = look(images)
        regions = [discover(image, options) for image in seen]
        pooled = [pool(image.features, r) for image, r in zip(seen, regions, strict=True)]
        vectors = describe(images, regions, pooled, backbone, options)
        return Stage(_pack(ok, regions, pooled, vectors), failures)

    own = {name: getattr(options, name) for name in OPTIONS}
    done = store.stage(cache.key("segments", samples, backbone.digest, own, *facts), work)
    kept = [sample for sample, ok in zip(samples, done.arrays["ok"], strict=True) if ok]
    return list(zip(kept, _unpack(done.arrays), strict=True)), done.info


def patch_sums(found: Segments, centroids: Tensor) -> Tensor:
    """Add up the unit patch features of an image's segments by category.

    Args:
        found: the segments.
        centroids: float32 (K, D').

    Returns:
        float32 (K, D).
    """
    labels, _ = assign(found.vectors, centroids)
    pooled = F.normalize(found.pooled[found.valid], dim=1)
    return torch.zeros(len(centroids), pooled.shape[1]).index_add_(0, labels, pooled)


def paint(found: Segments, centroids: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Paint the category of every segment on its patches; noise takes the nearest in features.

    Args:
        found: the segments of one image.
        centroids: float32 (K, D'), of descriptions.
        patches: float32 (K, D), mean patch feature of every category's segments.

    Returns:
        Scores float32 (K, h, w), 1 for the category of a patch and 0 for the others, and float32
        (K,), similarity of the image's most typical segment to each centroid, -1 for none.
    """
    K = len(centroids)
    labels, _ = assign(found.vectors, centroids)
    best = F.cosine_similarity(found.vectors, centroids[labels])  # (R valid,)
    categories = torch.zeros(len(found.valid), dtype=torch.int64)
    categories[found.valid] = labels
    noise = F.normalize(found.pooled[~found.valid], dim=1)
    categories[~found.valid] = (noise @ F.normalize(patches, dim=1).T).argmax(1)
    typical = torch.full((K,), -1.0).scatter_reduce(0, labels, best, "amax")
    return F.one_hot(categories[found.ids], K).permute(2, 0, 1).float(), typical


OPTIONS = tuple(field.name for field in fields(Segment))

NOTHING: Arrays = {  # the segments of a batch of which no image could be read
    "ids": np.zeros((0, 1, 1), np.int16),
    "valid": np.zeros(0, bool),
    "regions": np.zeros(0, np.int64),
    "described": np.zeros(0, np.int64),
    "pooled": np.zeros((0, 1), np.float32),
    "vectors": np.zeros((0, 1), np.float32),
}


def _pack(
    ok: NDArray[np.bool_], regions: list[RegionMap], pooled: list[Tensor], vectors: Tensor
) -> Arrays:
    """Lay the results of a batch end to end."""
    return {
        "ok": ok,
        "ids": np.stack([r.ids for r in regions]).astype(np.int16),
        "valid": np.concatenate([r.valid for r in regions]),
        "regions": np.array([r.count for r in regions]),
        "described": np.array([r.valid.sum() for r in regions]),
        "pooled": torch.cat(pooled).cpu().numpy(),
        "vectors": vectors.cpu().numpy(),
    }


def _unpack(found: Arrays) -> Iterable[Segments]:
    """Cut what was laid end to end back into images."""
    ids = torch.from_numpy(found["ids"]).long()
    rows = [
        torch.split(torch.from_numpy(found[name]), found[count].tolist())
        for name, count in (("valid", "regions"), ("pooled", "regions"), ("vectors", "described"))
    ]
    return map(Segments, ids, *rows)
