"""DatUS2: data-driven unsupervised semantic segmentation (Kumar et al., arXiv 2401.12820).

Up to the initial masks: A patch features, B affinity graph, C communities and their connected
parts, D one vector per segment and k-means over the data set, E masks. The published code's choices
are the preset "paper"; the default labels every pixel and weighs the edges of the graph.
Shapes: `B` images, `h w` patch grid, `D` channels, `R` regions, `K` categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError, UsageError
from zerolabel.methods.base import BATCH, ENOUGH, Evidence, Method, sample_rows
from zerolabel.ops.cluster import assign
from zerolabel.stages import encode
from zerolabel.stages.categorise import Categorise, categorise
from zerolabel.stages.describe import Describe, describe, pool
from zerolabel.stages.discover import Discover, discover
from zerolabel.store import Stage, Store
from zerolabel.types import RegionMap, Sample


@dataclass(frozen=True, kw_only=True)
class Config(Discover, Describe, Categorise):
    """Settings; those of discover, describe and categorise are documented there.

    Attributes:
        weighted, resolution: of the graph; the paper's are False and 1. Weighted edges and a finer
            resolution scored higher on training splits (docs/methods/datus.md).
        size: (H, W) in pixels to which every image is squashed; the paper's T x T, T = 224.
        channel_order: "rgb", or "bgr" as the published code feeds the network by oversight.
        features: "keys" of the last block (the paper's) or "tokens".
        centre: "none" (the paper's raw dot products), "image" or "dataset": mean subtracted first.
        noise: "nearest" gives segments below the minimum size the category nearest in patch
            features; "ignore" leaves them at 255, as the paper does.
        refine: see stages/refine.py.
    """

    weighted: bool = True
    resolution: float = 1.5
    size: tuple[int, int] = (224, 224)
    channel_order: str = "rgb"
    features: str = "keys"
    centre: str = "none"
    noise: str = "nearest"
    refine: str = "guided"


PAPER = Config(weighted=False, resolution=1.0, starts=1, noise="ignore", refine="nearest")
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),  # every pixel labelled, without help from the photo
    "paper": PAPER,
    "paper-code": replace(
        PAPER, channel_order="bgr", init="random", categorise="minibatch", restarts=1
    ),
}


class Datus(Method):
    """DatUS2 up to its initial masks."""

    name = "datus"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        for field, allowed in CHOICES.items():
            if getattr(config, field) not in allowed:
                raise UsageError(
                    f"{field} must be one of {', '.join(allowed)}, got {getattr(config, field)!r}."
                )
        super().__init__(config, backbone)
        self.config = self._adapt(config)

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c = self.config
        self.arrays = {}  # the mean of an earlier fit would be subtracted from this one's features
        encode.learn(self.backbone, samples, size=c.size, seed=c.seed, store=store)
        if c.centre == "dataset" and self.backbone.learns == 0:
            self.arrays["mean"] = self._dataset_mean(samples, store)
        share = max(1, ENOUGH // len(samples))  # segments per image
        drawn = []
        for i, batch in store.track("segments", samples, BATCH):  # stages A to D, without k-means
            found = self._segments(batch, store).arrays
            for j, vectors in enumerate(_per_image(found["vectors"], found["described"])):
                drawn.append(sample_rows(vectors, share, seed=c.seed + i * BATCH + j))
        if not drawn:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        with store.timed("categorise"):
            categories = categorise(torch.cat(drawn), c)
        self.curve = categories.curve
        self.arrays["centroids"] = categories.centroids
        self.arrays["patches"] = self._patch_centroids(samples, store)

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; stage E, the painted segments."""
        done = self._segments(samples, store)
        found = done.arrays
        kept = [sample for sample, ok in zip(samples, found["ok"], strict=True) if ok]
        vectors = _per_image(found["vectors"], found["described"])
        pooled = _per_image(found["pooled"], found["regions"])
        valid = _per_image(found["valid"], found["regions"])
        maps = torch.from_numpy(found["ids"]).long()  # (B, h, w)
        return [
            (sample, self._paint(ids, v, p, ok))
            for sample, ids, v, p, ok in zip(kept, maps, vectors, pooled, valid, strict=True)
        ], done.info

    def _adapt(self, config: Config) -> Config:
        """Do what the backbone can, and note what differs from the paper."""
        gives, name = self.backbone.gives, self.backbone.name
        if config.features not in gives:
            centre = "dataset" if config.centre == "none" else config.centre
            mean = "data-set" if centre == "dataset" else "image's"
            self.notes.append(f"tokens centred by the {mean} mean: {name} gives no keys")
            config = replace(config, features="tokens", centre=centre)
        if config.describe == "crop-cls" and "cls" not in gives:
            self.notes.append(f"segments described by masked pooling: {name} gives no CLS token")
            config = replace(config, describe="pool")
        return config

    def _segments(self, samples: Sequence[Sample], store: Store) -> Stage:
        """Stages A to D for one batch: segments, and one vector per valid segment."""
        c = self.config

        def work() -> Stage:
            images, kept, failures = load_batch(samples, c.size)
            ids = {sample.id for sample in kept}
            ok = np.array([sample.id in ids for sample in samples])
            if not kept:
                return Stage({"ok": ok, **NOTHING}, failures)
            features = self._patches(images)  # A
            regions = [discover(image, c) for image in features]  # B and C
            pooled = [pool(image, r) for image, r in zip(features, regions, strict=True)]
            vectors = describe(images, regions, pooled, self.backbone, c)  # D
            return Stage(_pack(ok, regions, pooled, vectors), failures)

        options = {name: getattr(c, name) for name in SEGMENT_OPTIONS}
        mean = self.arrays["mean"].numpy().tobytes() if "mean" in self.arrays else b""
        name = cache.key("segments", samples, self.backbone.digest, options, mean)
        return store.stage(name, work)

    def _patches(self, images: Tensor) -> Tensor:
        """Stage A: the patch features the graph is built on, float32 (B, h, w, D)."""
        c = self.config
        images = images.flip(1) if c.channel_order == "bgr" else images
        found = getattr(self.backbone.encode(images, want={c.features}), c.features)
        if c.centre == "image":
            found = found - found.mean((1, 2), keepdim=True)
        elif "mean" in self.arrays:
            found = found - self.arrays["mean"].to(found)
        return found  # type: ignore[no-any-return]

    def _dataset_mean(self, samples: Sequence[Sample], store: Store) -> Tensor:
        """Mean patch feature over the data set, (D,), batch by batch as stages of the run."""
        c, total, count = self.config, torch.zeros(self.backbone.dim, dtype=torch.float64), 0
        for _, batch in store.track("centre", samples, BATCH):

            def work(batch: Sequence[Sample] = batch) -> Stage:
                images, _, failures = load_batch(batch, c.size)
                if not len(images):
                    return Stage(
                        {"sum": np.zeros(self.backbone.dim), "count": np.zeros(1)}, failures
                    )
                patches = self._patches(images).flatten(0, 2).cpu().double()
                return Stage({"sum": patches.sum(0).numpy(), "count": np.array([len(patches)])})

            facts = (self.backbone.digest, c.size, c.features, c.channel_order)
            found = store.stage(cache.key("centre", batch, *facts), work).arrays
            total, count = total + torch.from_numpy(found["sum"]), count + int(found["count"][0])
        if not count:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        return (total / count).float()

    def _patch_centroids(self, samples: Sequence[Sample], store: Store) -> Tensor:
        """Mean patch feature of every category's segments, (K, D): what noise is compared with."""
        K, total = self.k, None
        for _, batch in store.track("categorise", samples, BATCH):
            found = self._segments(batch, store).arrays
            if not len(found["vectors"]):
                continue
            labels, _ = assign(torch.from_numpy(found["vectors"]), self.arrays["centroids"])
            valid = torch.from_numpy(found["valid"])
            pooled = F.normalize(torch.from_numpy(found["pooled"])[valid], dim=1)
            if total is None:
                total = torch.zeros(K, pooled.shape[1])
            total.index_add_(0, labels, pooled)
        return total if total is not None else torch.zeros(K, 1)

    def _nearest_category(self, pooled: Tensor) -> Tensor:
        """Category whose segments look most like these patches, (R,), by cosine."""
        patches = F.normalize(self.arrays["patches"], dim=1)
        return (F.normalize(pooled, dim=1) @ patches.T).argmax(1)

    def _paint(self, ids: Tensor, vectors: Tensor, pooled: Tensor, valid: Tensor) -> Evidence:
        """Stage E for one image: the category of every segment, painted on its patches.

        Args:
            ids: int64 (h, w), segment of every patch.
            vectors: float32 (R valid, D), L2-normalised.
            pooled: float32 (R, D).
            valid: bool (R,).
        """
        centroids = self.arrays["centroids"]
        labels, _ = assign(vectors, centroids)
        best = F.cosine_similarity(vectors, centroids[labels])  # (R valid,)
        categories = torch.zeros(len(valid), dtype=torch.int64)
        categories[valid] = labels
        categories[~valid] = self._nearest_category(pooled[~valid])
        typical = torch.full((self.k,), -1.0).scatter_reduce(0, labels, best, "amax")
        scores = F.one_hot(categories[ids], self.k).permute(2, 0, 1).float()  # (K, h, w)
        return Evidence(scores, typical, valid[ids] if self.config.noise == "ignore" else None)


# What the segments of a batch depend on: the options of discover and describe, and the encoding.
SEGMENT_OPTIONS = (
    *(field.name for field in fields(Discover)),
    *(field.name for field in fields(Describe)),
    *("size", "channel_order", "features", "centre"),
)

NOTHING = {  # the segments of a batch of which no image could be read
    "ids": np.zeros((0, 1, 1), np.int16),
    "valid": np.zeros(0, bool),
    "regions": np.zeros(0, np.int64),
    "described": np.zeros(0, np.int64),
    "pooled": np.zeros((0, 1), np.float32),
    "vectors": np.zeros((0, 1), np.float32),
}

CHOICES = {
    "channel_order": ("rgb", "bgr"),
    "features": ("keys", "tokens"),
    "centre": ("none", "image", "dataset"),
    "noise": ("nearest", "ignore"),
}


def _pack(
    ok: np.ndarray, regions: list[RegionMap], pooled: list[Tensor], vectors: Tensor
) -> dict[str, np.ndarray]:
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


def _per_image(rows: np.ndarray, counts: np.ndarray) -> list[Tensor]:
    """Cut rows that were laid end to end back into images."""
    return list(torch.split(torch.from_numpy(rows), counts.tolist()))
