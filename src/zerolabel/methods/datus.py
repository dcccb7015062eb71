"""DatUS2: data-driven unsupervised semantic segmentation (Kumar et al., arXiv 2401.12820).

Up to the initial masks: A patch features, B affinity graph, C communities and their connected
parts, D one vector per segment and k-means over the data set, E masks. The published code's choices
are the preset "paper"; the default labels every pixel and weighs the edges of the graph.
Shapes: `B` images, `h w` patch grid, `D` channels, `R` regions, `K` categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.backbones.crop_encoder import CropEncoder, check_crop_encoder, load_crop_encoder
from zerolabel.errors import DataError, UsageError
from zerolabel.methods.base import BATCH
from zerolabel.methods.regions import RegionConfig, RegionMethod
from zerolabel.stages.describe import wants
from zerolabel.stages.discover import Encoded, each, needs
from zerolabel.stages.encode import Loaded, read
from zerolabel.store import Stage, Store
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class Config(RegionConfig):
    """Settings; those that all region methods have are documented with them.

    Attributes:
        weighted, resolution: of the graph; the paper's are False and 1. Weighted edges and a finer
            resolution scored higher on training splits (docs/methods/datus.md).
        channel_order: "rgb", or "bgr" as the published code feeds the network by oversight.
        features: "keys" of the last block (the paper's) or "tokens".
        centre: "none" (the paper's raw dot products), "image" or "dataset": mean subtracted first.
        crop_encoder: who describes crops: the "backbone", or a "resnet" from `crop_weights`.
        crop_weights: a file with a residual network in the layout of torchvision, DINO or MoCo.
        crop_norm: its normalisation of colours, "imagenet" or, as published for SUIM, "suim".
    """

    weighted: bool = True
    resolution: float = 1.5
    channel_order: str = "rgb"
    features: str = "keys"
    centre: str = "none"
    crop_encoder: str = "backbone"
    crop_weights: str = ""
    crop_norm: str = "imagenet"


PAPER = Config(weighted=False, resolution=1.0, starts=1, noise="ignore", refine="nearest")
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),  # every pixel labelled, without help from the photo
    "paper": PAPER,
    "paper-code": replace(
        PAPER, channel_order="bgr", init="random", categorise="minibatch", restarts=1
    ),
    "suim8": replace(PAPER, k=8),
    "suim6": replace(PAPER, k=6),
    "suim5": replace(PAPER, k=5),
    "coco27": replace(PAPER, k=27),
}


class Datus(RegionMethod):
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
        check_crop_encoder(config.crop_encoder, config.crop_weights, config.crop_norm)
        self._crops: CropEncoder | None = None
        if config.crop_encoder != "backbone":
            if config.describe != "crop-cls":
                raise UsageError(
                    f"crop_encoder describes crops, and describe={config.describe} makes none. "
                    "Leave it out, or give --describe crop-cls."
                )
            self.encode = lambda crops: self.crops(crops)
        super().__init__(config, backbone)
        if config.features in backbone.gives:
            return
        centre = "dataset" if config.centre == "none" else config.centre
        mean = "data-set" if centre == "dataset" else "image's"
        self.notes.insert(0, f"tokens centred by the {mean} mean: {backbone.name} gives no keys")
        self.config = replace(self.config, features="tokens", centre=centre)

    @property
    def crops(self) -> CropEncoder:
        """What describes crops in the place of the backbone, read when it is first needed."""
        if self._crops is None:
            c = self.config
            device = self.backbone.device
            self._crops = load_crop_encoder(c.crop_weights, norm=c.crop_norm, device=device)
            self.notes += [self._crops.note] if self._crops.note else []
        return self._crops

    def others(self) -> dict[str, str]:
        """See `Method.others`."""
        return {} if self.encode is None else {"crop encoder": self.crops.digest}

    def prepare(self, samples: Sequence[Sample], store: Store) -> None:
        """Find the mean that is subtracted from patch features."""
        if self.config.centre == "dataset" and self.backbone.learns == 0:
            self.arrays["mean"] = self._dataset_mean(samples, store)

    def facts(self) -> tuple[object, ...]:
        """See `RegionMethod.facts`."""
        c = self.config
        mean = self.arrays["mean"].numpy().tobytes() if "mean" in self.arrays else b""
        return c.channel_order, c.features, c.centre, mean, *self.others().values()

    def look(self, batch: Loaded, store: Store) -> Sequence[Encoded]:
        """Stage A: the patch features the graph is built on."""
        c = self.config
        images = batch.images.flip(1) if c.channel_order == "bgr" else batch.images
        seen = self.backbone.encode(images, want={c.features} | needs(c) | wants(c))
        found: Tensor = getattr(seen, c.features)  # (B, h, w, D)
        if c.centre == "image":
            found = found - found.mean((1, 2), keepdim=True)
        elif "mean" in self.arrays:
            found = found - self.arrays["mean"].to(found)
        return each(seen, found)

    def _dataset_mean(self, samples: Sequence[Sample], store: Store) -> Tensor:
        """Mean patch feature over the data set, (D,), batch by batch as stages of the run."""
        c, total, count = self.config, torch.zeros(self.backbone.dim, dtype=torch.float64), 0
        for _, batch in store.track("centre", samples, BATCH):

            def work(batch: Sequence[Sample] = batch) -> Stage:
                loaded = read(batch, c.size)
                if not loaded.kept:
                    nothing = {"sum": np.zeros(self.backbone.dim), "count": np.zeros(1)}
                    return Stage(nothing, loaded.failures)
                seen = self.look(loaded, store)
                patches = torch.cat([image.features.flatten(0, 1) for image in seen])
                total = patches.cpu().double().sum(0)
                return Stage({"sum": total.numpy(), "count": np.array([len(patches)])})

            facts = (self.backbone.digest, c.size, c.features, c.channel_order)
            found = store.stage(cache.key("centre", batch, *facts), work).arrays
            total, count = total + torch.from_numpy(found["sum"]), count + int(found["count"][0])
        if not count:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        return (total / count).float()


CHOICES = {
    "channel_order": ("rgb", "bgr"),
    "features": ("keys", "tokens"),
    "centre": ("none", "image", "dataset"),
}
