"""k-means on patch tokens: the honest floor that every other method must beat.

Encode, then categorise; no regions.
Shapes: `B` images, `h w` patch grid, `D` channels, `K` categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from zerolabel.errors import DataError, ImageError
from zerolabel.methods.base import BATCH, ENOUGH, Anatomy, Evidence, Method, sample_rows
from zerolabel.stages import encode
from zerolabel.stages.categorise import Categorise, categorise
from zerolabel.store import Store
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class Config(Categorise):
    """Settings of the floor.

    Attributes:
        size: (H, W) in pixels to which every image is squashed before encoding.
        sharpness: of the softmax over squared distances; larger gives harder borders.
        refine: see stages/refine.py.
    """

    size: tuple[int, int] = (224, 224)
    sharpness: float = 20.0
    refine: str = "guided"


PRESETS = {"default": Config(), "protocol": Config(refine="bilinear")}


class KMeans(Method):
    """Cosine k-means on the patch tokens of all images."""

    name = "kmeans"
    PRESETS = PRESETS
    config: Config

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        c = self.config
        encode.learn(self.backbone, samples, size=c.size, seed=c.seed, store=store)
        share = max(1, ENOUGH // len(samples))  # patches per image
        drawn = []
        for i, batch in store.track("encode", samples, BATCH):
            tokens, _, _ = encode.tokens(self.backbone, batch, size=c.size, store=store)
            for j, image in enumerate(tokens):
                rows = sample_rows(image.flatten(0, 1), share, seed=c.seed + i * BATCH + j)
                drawn.append(F.normalize(rows, dim=1))
        if not drawn:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        with store.timed("categorise"):
            found = categorise(torch.cat(drawn), c)
        self.arrays, self.curve = {"centroids": found.centroids}, found.curve

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are a softmax over negative squared distances."""
        size, centroids = self.config.size, self.arrays["centroids"]
        tokens, kept, failures = encode.tokens(self.backbone, samples, size=size, store=store)
        x = F.normalize(tokens, dim=-1)  # (B, h, w, D)
        # -|x - c|^2 / 2 up to what all categories share
        closeness = x @ centroids.T - 0.5 * centroids.square().sum(1)  # (B, h, w, K)
        scores = (closeness * self.config.sharpness).softmax(-1).permute(0, 3, 1, 2)
        winners = closeness.argmax(-1)  # (B, h, w)
        cosine = F.cosine_similarity(x, centroids[winners], dim=-1)
        typical = torch.full((len(x), self.k), -1.0)
        typical.scatter_reduce_(1, winners.flatten(1), cosine.flatten(1), "amax")
        pairs = zip(kept, scores, typical, strict=True)
        return [(sample, Evidence(s, t)) for sample, s, t in pairs], failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; there are no regions."""
        tokens, _, failures = encode.tokens(
            self.backbone, [sample], size=self.config.size, store=store
        )
        if failures:
            raise ImageError(failures[sample.id])
        [(_, found)], _ = self.evidence([sample], store=store)
        return Anatomy(tokens[0], found.scores.argmax(0))
