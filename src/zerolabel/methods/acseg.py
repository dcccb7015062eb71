"""ACSeg: a few concepts that adapt to each image (Li et al., CVPR 2023).

Patch features, computed once; a generator that turns prototypes into the concepts of an image,
trained by the modularity of its assignments; every patch to its nearest concept; every region to
foreground or background, and to a category: a cluster, or a class by its neighbours or by words. No
code was published; what the paper leaves open is listed in docs/methods/acseg.md.
Shapes: `B` images, `h w` patch grid, `D` channels, `R` regions, `K` categories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.backbones.weights import digest
from zerolabel.errors import DataError, UsageError, unknown_name
from zerolabel.methods.acseg_config import CHOICES, PRESETS, Config
from zerolabel.methods.base import BATCH, class_names
from zerolabel.methods.regions import RegionMethod
from zerolabel.networks.concepts import ConceptConfig, ConceptGenerator
from zerolabel.stages import by_text, concepts, encode, foreground
from zerolabel.stages.categorise import Categorise, without
from zerolabel.stages.classify import region_labels, retrieve
from zerolabel.stages.describe import wants
from zerolabel.stages.discover import Encoded, each, needs
from zerolabel.stages.encode import Loaded
from zerolabel.stages.segments import Segments
from zerolabel.stages.words import BACKGROUND
from zerolabel.store import Store, below
from zerolabel.training.concepts import ConceptTraining
from zerolabel.training.precision import use_amp
from zerolabel.types import IGNORE, Features, RegionMap, Sample

LEARNED = "generator."  # prefix of the generator's weights in the model


class Acseg(RegionMethod):
    """Concepts per image, then categories over the data set."""

    name = "acseg"
    PRESETS = PRESETS
    config: Config
    learns = frozenset({"concepts"})

    def __init__(self, config: Config, backbone: Backbone) -> None:
        for field, allowed in CHOICES.items():
            if getattr(config, field) not in allowed:
                raise unknown_name(f"choice of {field}", getattr(config, field), allowed)
        require(backbone, config.features)
        if config.background != "none" and config.k == 1:
            raise UsageError("With a background there are at least two categories: give --k 2.")
        if config.classes and config.classify != "text":
            raise UsageError(
                f"Classes are given, but with classify={config.classify} nothing reads their "
                "words. Add --set classify=text, or leave the classes out."
            )
        self.clip: ClipBackbone | None = None
        if config.classify == "text":  # regions need no description then
            settled = by_text.settle(config, background=config.background != "none")
            config = replace(config, **settled, describe="pool")
            self.clip = by_text.load(config, device=backbone.device)
        super().__init__(config, backbone)
        if not foreground.wants(config) <= backbone.gives:
            self.notes.append(f"background told by the border: {backbone.name} has no attention")
            self.config = replace(self.config, background="border")
        self._shape = ConceptConfig(
            dim=backbone.dim,
            concepts=config.concepts,
            steps=config.steps,
            heads=config.attention_heads,
            hidden=config.hidden,
            norm_first=config.norm_first,
            share_steps=config.share_steps,
        )
        self._generator: tuple[Tensor, ConceptGenerator, str] | None = None

    @property
    def k(self) -> int:
        """See `Method.k`."""
        if self.config.classify == "retrieve":
            return int(self.arrays["classes"])
        if self.clip is not None:
            return len(self.class_names)
        return len(self.arrays["centroids"]) + (self.config.background != "none")

    def names(self) -> dict[int, str]:
        """See `Method.names`; where regions have classes, these are theirs."""
        named = {} if self.config.background == "none" else {0: "background"}
        return named | dict(enumerate(self.class_names[: self.k]))

    def others(self) -> dict[str, str]:
        """See `Method.others`."""
        return {} if self.clip is None else {self.clip.name: self.clip.digest}

    def facts(self) -> tuple[object, ...]:
        """See `RegionMethod.facts`."""
        said = [getattr(self.config, field) for field in foreground.CHOICES]
        generator = (self._shape, self._trained()[1]) if self.config.discover == "concepts" else ()
        return self.config.features, said, generator

    def prepare(self, samples: Sequence[Sample], store: Store) -> None:
        """Train the concept generator on cached features."""
        if self.config.discover != "concepts":
            return
        c = self.config
        shards = [samples[i : i + BATCH] for i in range(0, len(samples), BATCH)]

        def read(shard: int) -> Tensor:
            seen, kept, _ = self._see(shards[shard], store)
            return getattr(seen, c.features).flatten(1, 2).half() if kept else torch.empty(0)

        weights, self.losses = concepts.train(
            self._shape,
            ConceptTraining(
                steps=c.iterations,
                batch=c.batch,
                lr=c.lr,
                decay=c.decay,
                self_loops=c.self_loops,
                prototypes=c.prototypes,
                amp=use_amp(c.amp, self.backbone.device),
                seed=c.seed,
            ),
            read,
            shards=shards,
            facts=(self.backbone.digest, c.size, c.features),
            device=self.backbone.device,
            store=store,
        )
        self.arrays |= {LEARNED + name: value for name, value in weights.items()}

    def look(self, batch: Loaded, store: Store) -> Sequence[Encoded]:
        """Patch features, and the concepts that the prototypes become."""
        seen, _, _ = self._see(batch, store)
        x: Tensor = getattr(seen, self.config.features)  # (B, h, w, D)
        if self.config.discover != "concepts":
            return each(seen, x)
        generator, _ = self._trained()
        with torch.no_grad():
            found = generator(x.flatten(1, 2).to(self.backbone.device))  # (B, K, D)
        return each(seen, x, found.cpu())

    def score(self, image: Encoded, regions: RegionMap) -> Tensor:
        """See `RegionMethod.score`."""
        return foreground.region_scores(image, regions, self.config)

    def gather(self, samples: Sequence[Sample], store: Store) -> None:
        """See `RegionMethod.gather`; the threshold of the foreground comes first."""
        c = self.config
        if c.background == "attention" and c.grouping == "dataset":
            scores = [found.scores for _, found in self._all(samples, store)]
            limit = foreground.threshold(scores, c)
            self.arrays["threshold"] = torch.tensor(limit)
        if self.clip is not None:
            self._name_by_text(self.clip, samples, store)
        elif c.classify == "retrieve":
            self._keep_classes(samples, store)
        else:
            super().gather(samples, store)

    def eligible(self, found: Segments) -> Tensor:
        """Descriptions of the foreground."""
        return found.vectors[~self._background(found)]

    def categorise(self, vectors: Tensor, options: Categorise, store: Store) -> None:
        """Cluster the foreground; the background is a category of its own."""
        if self.config.background != "none":
            options = replace(options, k=without(options.k, 1))
        super().categorise(vectors, options, store)

    def classify(self, found: Segments) -> tuple[Tensor, Tensor]:
        """See `RegionMethod.classify`."""
        c, behind = self.config, self._background(found)
        if c.classify == "retrieve":
            labels, closeness = retrieve(
                found.vectors,
                self.arrays["bank"],
                self.arrays["labels"],
                neighbours=c.neighbours,
                classes=self.k,
            )
        elif found.cosines is not None:
            closeness, labels = found.cosines.max(1)
            labels = labels + (c.background != "none")
        else:
            labels, closeness = super().classify(found)
            labels = labels + (c.background != "none")
        return labels.masked_fill(behind, 0), closeness.masked_fill(behind, 0.0)

    def find(
        self, samples: Sequence[Sample], store: Store
    ) -> tuple[list[tuple[Sample, Segments]], dict[str, str]]:
        """See `RegionMethod.find`; where texts name regions, also how much they are alike."""
        pairs, failures = super().find(samples, store)
        if self.clip is None or "texts" not in self.arrays:
            return pairs, failures
        pairs, more = by_text.compare(self.clip, pairs, self.arrays, self.config, store=store)
        return pairs, failures | more

    def _name_by_text(self, clip: ClipBackbone, samples: Sequence[Sample], store: Store) -> None:
        """Embed the words; then look at all images, of which one at least must be readable."""
        behind = self.config.background != "none"
        known = () if self.config.classes else class_names(samples)
        words = by_text.listed(self.config, known, background=behind)
        self.class_names = (*((BACKGROUND,) if behind else ()), *words.names)
        self.arrays |= by_text.texts(clip, words, self.config, store=store)
        if not sum(1 for _ in self._all(samples, store)):
            raise DataError("None of the images could be read; failures.json lists the reasons.")

    def _keep_classes(self, samples: Sequence[Sample], store: Store) -> None:
        """Keep the regions that have a class by the labels of their images."""
        vectors, labels = [], []
        for sample, found in self._all(samples, store):
            own = self._labels(sample, found)  # (R valid,), -1 where no pixel has a class
            vectors.append(found.vectors[own >= 0])
            labels.append(own[own >= 0])
        if not labels:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        if not sum(map(len, labels)):
            raise DataError("No region has a class: the labels of all images are empty.")
        self.arrays["bank"], self.arrays["labels"] = torch.cat(vectors), torch.cat(labels)
        self.arrays["classes"] = self.arrays["labels"].max() + 1
        self.class_names = class_names(samples)

    def _trained(self) -> tuple[ConceptGenerator, str]:
        """The generator with the weights of the model, and their digest; built once."""
        mark = self.arrays[f"{LEARNED}prototypes"]
        if self._generator is None or self._generator[0] is not mark:
            weights = below(self.arrays, LEARNED)
            generator = ConceptGenerator(self._shape).requires_grad_(False)
            generator.load_state_dict(weights)
            self._generator = mark, generator.to(self.backbone.device), digest(weights)
        return self._generator[1:]

    def _see(
        self, batch: Sequence[Sample] | Loaded, store: Store
    ) -> tuple[Features, list[Sample], dict[str, str]]:
        """All that is ever asked of the backbone for a batch, computed once."""
        c = self.config
        want = {c.features} | (needs(c) - self.learns) | wants(c) | foreground.wants(c)
        return encode.features(self.backbone, batch, want=want, size=c.size, store=store)

    def _all(self, samples: Sequence[Sample], store: Store) -> Iterator[tuple[Sample, Segments]]:
        for _, batch in store.track("segments", samples, BATCH):
            yield from self.find(batch, store)[0]

    def _background(self, found: Segments) -> Tensor:
        """Which described segments of an image are background, bool (R valid,)."""
        limit = float(self.arrays["threshold"]) if "threshold" in self.arrays else None
        return foreground.is_background(found.scores, self.config, threshold=limit)[found.valid]

    def _labels(self, sample: Sample, found: Segments) -> Tensor:
        """The class of every described segment by the labels of its image, -1 for none."""
        if sample.load_label is None:
            raise UsageError(
                "classify=retrieve takes classes from labelled images, and these have no labels. "
                "Fit on a labelled split, or leave classify=cluster."
            )
        regions = RegionMap(
            found.ids.numpy(), found.valid.numpy(), np.arange(len(found.valid), dtype=np.int32)
        )
        labels = region_labels(
            sample.load_label(), regions, IGNORE, skip_background=self.config.skip_background
        )
        return torch.from_numpy(labels)[found.valid]
