"""What the methods that categorise regions share; each says how it looks at an image.

Shapes: `B` images, `h w` patch grid, `D` channels, `K` categories.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.errors import DataError, UsageError
from zerolabel.methods.base import BATCH, ENOUGH, Evidence, Method, sample_rows
from zerolabel.stages import encode
from zerolabel.stages.categorise import Categorise, categorise
from zerolabel.stages.discover import Encoded, needs
from zerolabel.stages.segments import Segment, Segments, paint, patch_sums, segment
from zerolabel.store import Store
from zerolabel.types import Sample

NOISE = ("nearest", "ignore")


@dataclass(frozen=True, kw_only=True)
class RegionConfig(Segment, Categorise):
    """Settings that region methods share; those of the verbs are documented there.

    Attributes:
        noise: "nearest" gives regions below the minimum size the category nearest in patch
            features; "ignore" leaves them at 255.
        refine: see stages/refine.py.
    """

    noise: str = "nearest"
    refine: str = "guided"


class RegionMethod(Method):
    """Discover and describe regions per image, categorise them over the data set, paint them."""

    config: RegionConfig

    def __init__(self, config: RegionConfig, backbone: Backbone) -> None:
        if config.noise not in NOISE:
            raise UsageError(f"noise must be one of {', '.join(NOISE)}, got {config.noise!r}.")
        require(backbone, *sorted(needs(config)))
        super().__init__(config, backbone)
        self.config = config
        if config.describe == "crop-cls" and "cls" not in backbone.gives:
            self.notes.append(
                f"segments described by masked pooling: {backbone.name} gives no CLS token"
            )
            self.config = replace(config, describe="pool")

    @abstractmethod
    def look(self, images: Tensor) -> Sequence[Encoded]:
        """Encode uint8 (B, 3, H, W) images for discovery, one result per image."""

    def facts(self) -> tuple[object, ...]:
        """What `look` depends on, apart from the backbone and the options of the verbs."""
        return ()

    def prepare(self, samples: Sequence[Sample], store: Store) -> None:
        """Find in the whole data set what `look` needs, before any region is found."""

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c = self.config
        self.arrays = {}  # what an earlier fit had prepared would change this one's features
        encode.learn(self.backbone, samples, size=c.size, seed=c.seed, store=store)
        self.prepare(samples, store)
        share = max(1, ENOUGH // len(samples))  # segments per image
        drawn: list[Tensor] = []
        for i, batch in store.track("segments", samples, BATCH):
            for j, found in enumerate(self._segments(batch, store)):
                drawn.append(sample_rows(found.vectors, share, seed=c.seed + i * BATCH + j))
        if not drawn:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        with store.timed("categorise"):
            categories = categorise(torch.cat(drawn), c)
        self.curve = categories.curve
        self.arrays["centroids"] = categories.centroids
        # What noise is compared with: the mean patch feature of every category's segments, (K, D).
        self.arrays["patches"] = sum(
            (
                patch_sums(found, categories.centroids)
                for _, batch in store.track("categorise", samples, BATCH)
                for found in self._segments(batch, store)
            ),
            torch.zeros(()),
        )

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; every segment is painted with its category."""
        pairs, failures = self._find(samples, store)
        return [(sample, self._paint(found)) for sample, found in pairs], failures

    def _find(
        self, samples: Sequence[Sample], store: Store
    ) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
        return segment(
            samples,
            self.look,
            backbone=self.backbone,
            options=self.config,
            facts=self.facts(),
            store=store,
        )

    def _segments(self, samples: Sequence[Sample], store: Store) -> list[Segments]:
        return [found for _, found in self._find(samples, store)[0]]

    def _paint(self, found: Segments) -> Evidence:
        scores, typical = paint(found, self.arrays["centroids"], self.arrays["patches"])
        hidden = self.config.noise == "ignore"
        return Evidence(scores, typical, found.valid[found.ids] if hidden else None)
