"""What the methods that categorise regions share; each says how it looks at images.

Shapes: `B` images, `h w` patch grid, `D` channels, `K` categories.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.methods.base import BATCH, ENOUGH, Anatomy, Evidence, Method, sample_rows
from zerolabel.ops.cluster import assign
from zerolabel.stages import encode
from zerolabel.stages.categorise import Categorise, categorise
from zerolabel.stages.describe import Encode
from zerolabel.stages.discover import Encoded, discover, needs, similarities
from zerolabel.stages.encode import Loaded
from zerolabel.stages.segments import Segment, Segments, paint, patch_sums, segment
from zerolabel.store import Store
from zerolabel.types import RegionMap, Sample

NOISE = ("nearest", "ignore")
COUNTED = ("images", "segments", "valid")  # valid: those that are large enough to be described


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
    encode: Encode | None = None  # describes crops in the place of the backbone
    learns: frozenset[str] = frozenset()  # fields of `Encoded` that the method itself fills

    def __init__(self, config: RegionConfig, backbone: Backbone) -> None:
        if config.noise not in NOISE:
            raise UsageError(f"noise must be one of {', '.join(NOISE)}, got {config.noise!r}.")
        looked = needs(config) | ({"concepts"} if config.describe == "concept" else set())
        if "concepts" in looked - self.learns:
            raise UsageError(
                f"{self.name} learns no concepts: discover 'concepts' and describe 'concept' are "
                "for acseg. Choose others."
            )
        if config.describe == "concept" and config.discover != "concepts":
            raise UsageError(
                "Only regions that come from concepts can be described by them: choose discover "
                "'concepts', or another --describe."
            )
        require(backbone, *sorted(needs(config) - self.learns))
        super().__init__(config, backbone)
        self.config = config
        lacking = {"crop-cls": "cls", "masked-cls": "context"}.get(config.describe, "tokens")
        if lacking not in backbone.gives and not (lacking == "cls" and self.encode):
            self.notes.append(
                f"segments described by masked pooling: {backbone.name} gives no CLS token"
            )
            self.config = replace(config, describe="pool")

    @abstractmethod
    def look(self, batch: Loaded, store: Store) -> Sequence[Encoded]:
        """Encode the B images of a batch for discovery and description, one result per image."""

    def facts(self) -> tuple[object, ...]:
        """What `look` depends on, apart from the backbone and the options of the verbs."""
        return ()

    def prepare(self, samples: Sequence[Sample], store: Store) -> None:
        """Find in the whole data set what `look` needs, before any region is found."""

    def score(self, image: Encoded, regions: RegionMap) -> Tensor:
        """Say how much every region is foreground, float32 (R,); all the same unless told."""
        return torch.zeros(regions.count)

    def classify(self, found: Segments) -> tuple[Tensor, Tensor]:
        """Give every described segment of an image its category: the nearest centroid's.

        Returns:
            Categories int64 (R valid,) and float32 (R valid,), cosine to what stands for them.
        """
        centroids = self.arrays["centroids"]
        labels, _ = assign(found.vectors, centroids)
        return labels, F.cosine_similarity(found.vectors, centroids[labels])

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c = self.config
        self.arrays = {}  # what an earlier fit had prepared would change this one's features
        encode.learn(self.backbone, samples, size=c.size, seed=c.seed, store=store)
        self.prepare(samples, store)
        self.gather(samples, store)
        patches, counts = torch.zeros(()), torch.zeros(len(COUNTED), dtype=torch.int64)
        for _, batch in store.track("categorise", samples, BATCH):
            for _, found in self.find(batch, store)[0]:
                patches = patches + patch_sums(found, self.classify(found)[0], self.k)
                counts += torch.tensor([1, len(found.valid), int(found.valid.sum())])
        # What noise is compared with: the mean patch feature of every category's segments, (K, D).
        self.arrays["patches"], self.arrays["counted"] = patches, counts

    def counted(self) -> dict[str, float]:
        """See `Method.counted`; models of older versions did not count."""
        if "counted" not in self.arrays:
            return {}
        found = dict(zip(COUNTED, self.arrays["counted"].tolist(), strict=True))
        return found | {"valid_share": found["valid"] / found["segments"]}

    def gather(self, samples: Sequence[Sample], store: Store) -> None:
        """Find the categories from the segments of all images, as arrays of the model."""
        share = max(1, ENOUGH // len(samples))  # segments per image
        drawn: list[Tensor] = []
        for i, batch in store.track("segments", samples, BATCH):
            for j, (_, found) in enumerate(self.find(batch, store)[0]):
                vectors = self.eligible(found)
                drawn.append(sample_rows(vectors, share, seed=self.config.seed + i * BATCH + j))
        if not drawn:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        vectors = torch.cat(drawn)
        if not len(vectors):
            raise UsageError(
                "Every region is background or smaller than the minimum, so there is nothing to "
                "categorise. Try --set minimum=1 or --set background=none."
            )
        self.categorise(vectors, self.config, store)

    def eligible(self, found: Segments) -> Tensor:
        """Descriptions that are clustered, float32 (n, D): those of all described segments."""
        return found.vectors

    def categorise(self, vectors: Tensor, options: Categorise, store: Store) -> None:
        """Cluster descriptions (N, D)."""
        with store.timed("categorise"):
            categories = categorise(vectors, options)
        self.curve, self.arrays["centroids"] = categories.curve, categories.centroids

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; every segment is painted with its category."""
        pairs, failures = self.find(samples, store)
        return [(sample, self._paint(found)) for sample, found in pairs], failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`."""
        batch = encode.read([sample], self.config.size)
        if batch.failures:
            raise ImageError(batch.failures[sample.id])
        [seen] = self.look(batch, store)
        regions = discover(seen, self.config)
        parts, valid = torch.from_numpy(regions.ids).long(), torch.from_numpy(regions.valid)
        if seen.concepts is None:
            return Anatomy(seen.features.cpu(), parts, valid)
        nearest = similarities(seen).argmax(0).cpu()  # (h, w)
        homes = torch.full((len(seen.concepts),), -1)
        for concept in set(nearest.flatten().tolist()):
            homes[concept] = torch.bincount(parts[nearest == concept]).argmax()
        return Anatomy(seen.features.cpu(), parts, valid, seen.concepts.cpu(), homes)

    def find(
        self, samples: Sequence[Sample], store: Store
    ) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
        """Find and describe the segments of a batch; id -> reason where that failed."""
        return segment(
            samples,
            lambda batch: self.look(batch, store),
            backbone=self.backbone,
            options=self.config,
            score=self.score,
            encode=self.encode,
            facts=self.facts(),
            store=store,
        )

    def _paint(self, found: Segments) -> Evidence:
        scores, typical = paint(found, *self.classify(found), self.arrays["patches"])
        hidden = self.config.noise == "ignore"
        covered = found.valid[found.ids] if hidden else None
        return Evidence(scores, typical, covered, found.ids)
