"""The verbs discover and describe on a batch of images, kept as one stage of the run.

Shapes: `B` images, `h w` patch grid, `D` channels, `R` regions of one image, `K` categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.stages.describe import Describe, Encode, describe, pool
from zerolabel.stages.discover import Discover, Encoded, discover, likeness
from zerolabel.stages.encode import Loaded, read
from zerolabel.store import Arrays, Stage, Store
from zerolabel.types import RegionMap, Sample

Look = Callable[[Loaded], Sequence[Encoded]]  # B images -> what is seen in each
Score = Callable[[Encoded, RegionMap], Tensor]  # how much each region is foreground, float32 (R,)


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
        scores: float32 (R,), how much each is foreground; 0 where nobody asked.
        soft: float32 (R, h, w), how much each patch is like each region, its own the most; None
            where no more is known than the ids.
        cosines: float32 (R valid, C), to the texts of classes; None where nobody compared.
    """

    ids: Tensor
    valid: Tensor
    pooled: Tensor
    vectors: Tensor
    scores: Tensor
    soft: Tensor | None = None
    cosines: Tensor | None = None

    @property
    def maps(self) -> Tensor:
        """How much each patch is like each region, float32 (R, h, w), one-hot if not soft."""
        if self.soft is not None:
            return self.soft
        return F.one_hot(self.ids, len(self.valid)).permute(2, 0, 1).float()


def segment(
    samples: Sequence[Sample],
    look: Look,
    *,
    backbone: Backbone,
    options: Segment,
    score: Score | None = None,
    encode: Encode | None = None,
    facts: Sequence[object] = (),
    store: Store,
) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
    """Find and describe the regions of a batch, or read them if this was done before.

    Args:
        samples: one batch.
        look: encodes images for discovery.
        backbone: describes regions.
        options: of both verbs.
        score: says how much a region is foreground, or None.
        encode: describes crops in the place of the backbone, or None.
        facts: everything else that the result depends on, apart from the backbone's digest.
        store: keeps the result.

    Returns:
        Sample and segments for all that could be read, and id -> reason for the others.
    """

    def work() -> Stage:
        loaded = read(samples, options.size)
        ids = {sample.id for sample in loaded.kept}
        ok = np.array([sample.id in ids for sample in samples])
        if not loaded.kept:
            return Stage({"ok": ok, **NOTHING}, loaded.failures)
        seen = look(loaded)
        regions = [discover(image, options) for image in seen]
        vectors = describe(loaded.images, regions, seen, backbone, options, encode=encode)
        return Stage({"ok": ok, **_pack(seen, regions, vectors, score)}, loaded.failures)

    own = {name: getattr(options, name) for name in OPTIONS}
    done = store.stage(cache.key("segments", samples, backbone.digest, own, *facts), work)
    kept = [sample for sample, ok in zip(samples, done.arrays["ok"], strict=True) if ok]
    return list(zip(kept, _unpack(done.arrays), strict=True)), done.info


def patch_sums(found: Segments, labels: Tensor, count: int) -> Tensor:
    """Add up the unit patch features of an image's segments by category.

    Args:
        found: the segments.
        labels: int64 (R valid,), category of each described segment.
        count: number of categories K.

    Returns:
        float32 (K, D).
    """
    pooled = F.normalize(found.pooled[found.valid], dim=1)
    return torch.zeros(count, pooled.shape[1]).index_add_(0, labels, pooled)


def paint(
    found: Segments, labels: Tensor, closeness: Tensor, patches: Tensor
) -> tuple[Tensor, Tensor]:
    """Give every patch the category of the segment it is most like; noise takes the nearest.

    Args:
        found: the segments of one image.
        labels: int64 (R valid,), category of each described segment.
        closeness: float32 (R valid,), cosine of the segment to what stands for its category.
        patches: float32 (K, D), mean patch feature of every category's segments.

    Returns:
        Scores float32 (K, h, w), the likeness of a patch to the segment of each category that it is
        most like, -1 for categories that the image lacks; and float32 (K,), closeness of the
        image's most typical segment of each category, -1 for none.
    """
    K = len(patches)
    categories = torch.zeros(len(found.valid), dtype=torch.int64)
    categories[found.valid] = labels
    noise = F.normalize(found.pooled[~found.valid], dim=1)
    categories[~found.valid] = (noise @ F.normalize(patches, dim=1).T).argmax(1)
    typical = torch.full((K,), -1.0).scatter_reduce(0, labels, closeness, "amax")
    if found.soft is None:  # there may be hundreds of regions, and maps of all would be large
        scores = F.one_hot(categories[found.ids], K).permute(2, 0, 1).float()
        scores[~torch.isin(torch.arange(K), categories)] = -1
        return scores, typical
    rows = categories[:, None, None].expand_as(found.soft)
    start = torch.full((K, *found.ids.shape), -1.0)
    return start.scatter_reduce(0, rows, found.soft, "amax"), typical


TIE = 1e-6  # less than any step of half precision from 0.002 on
OPTIONS = tuple(field.name for field in fields(Segment))

NOTHING: Arrays = {  # the segments of a batch of which no image could be read
    "ids": np.zeros((0, 1, 1), np.int16),
    "valid": np.zeros(0, bool),
    "regions": np.zeros(0, np.int64),
    "described": np.zeros(0, np.int64),
    "pooled": np.zeros((0, 1), np.float32),
    "vectors": np.zeros((0, 1), np.float32),
    "scores": np.zeros(0, np.float32),
    "soft": np.zeros(0, bool),
    "maps": np.zeros((0, 1, 1), np.float16),
}


def _pack(
    seen: Sequence[Encoded], regions: Sequence[RegionMap], vectors: Tensor, score: Score | None
) -> Arrays:
    """Lay the results of a batch end to end; maps only where they say more than the ids."""
    pairs = list(zip(seen, regions, strict=True))
    maps = [likeness(image, r) for image, r in pairs]
    soft = [found.half().numpy() for found in maps if found is not None]
    h, w = regions[0].ids.shape
    scores = [torch.zeros(r.count) if score is None else score(image, r) for image, r in pairs]
    return {
        "ids": np.stack([r.ids for r in regions]).astype(np.int16),
        "valid": np.concatenate([r.valid for r in regions]),
        "regions": np.array([r.count for r in regions]),
        "described": np.array([r.valid.sum() for r in regions]),
        "pooled": torch.cat([pool(image.features, r) for image, r in pairs]).cpu().numpy(),
        "vectors": vectors.cpu().numpy(),
        "scores": torch.cat(scores).numpy(),
        "soft": np.array([found is not None for found in maps]),
        "maps": np.concatenate([*soft, np.zeros((0, h, w), np.float16)]),
    }


def _unpack(found: Arrays) -> Iterable[Segments]:
    """Cut what was laid end to end back into images."""
    ids = torch.from_numpy(found["ids"]).long()
    counts = {name: found[name].tolist() for name in ("regions", "described")}
    rows = [
        torch.split(torch.from_numpy(found[name]), counts[count])
        for name, count in (
            ("valid", "regions"),
            ("pooled", "regions"),
            ("vectors", "described"),
            ("scores", "regions"),
        )
    ]
    soft = found["soft"]
    given = iter(torch.split(torch.from_numpy(found["maps"]), found["regions"][soft].tolist()))
    for i, (valid, pooled, vectors, scores) in enumerate(zip(*rows, strict=True)):
        one = Segments(ids[i], valid, pooled, vectors, scores)
        # Half precision has ties, which the region that a patch is in wins.
        yield replace(one, soft=next(given).float() + TIE * one.maps) if soft[i] else one
