"""TransFGU: crops have categories before patches do (Yin et al., ECCV 2022).

CLS tokens of crops, clustered over the data set; how strongly every patch of an image responds to
every cluster, from the gradient of its likeness; a mask transformer that learns from the responses
in rounds. Where the paper and its code differ, the code is followed; docs/methods/transfgu.md lists
both.
Shapes: `B` images, `h w` patch grid, `D` channels, `K` categories, the background's included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.errors import DataError, ImageError, UsageError, unknown_name
from zerolabel.methods.base import BATCH, ENOUGH, Anatomy, Evidence, Method, sample_rows
from zerolabel.methods.transfgu_config import PRESETS, Config
from zerolabel.networks.students import KINDS, Student
from zerolabel.ops.bootstrapping import normalise, separate, with_background
from zerolabel.stages import bootstrap, encode, exams, learners
from zerolabel.stages.categorise import MOST, categorise, without
from zerolabel.stages.crops import OBJECTS, STUFF, bank
from zerolabel.stages.crops import check as check_crops
from zerolabel.stages.responses import WANTS, Responding, Responses, respond
from zerolabel.stages.responses import check as check_responses
from zerolabel.store import Store, below
from zerolabel.training.bootstrap import Bootstrapping
from zerolabel.training.precision import use_amp
from zerolabel.types import Sample

LEARNED = "student."  # prefix of the decoder's weights in the model
NOTE = "labels: "
CHOICES = {
    "background": ("none", "quiet"),
    "train": ("initial", "trained", "bootstrapped"),
    "student": KINDS,
    "select": ("last", "labels"),
    "amp": ("auto", "on", "off"),
}
SHOWN = 12  # most categories whose responses are drawn


class Transfgu(Method):
    """Cluster crops, let patches respond to the clusters, and let a decoder learn from that."""

    name = "transfgu"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        for field, allowed in CHOICES.items():
            if getattr(config, field) not in allowed:
                raise unknown_name(f"choice of {field}", getattr(config, field), allowed)
        require(backbone, *sorted(WANTS), "tokens")
        check_crops(config)
        check_responses(config)
        learners.check(config.student, backbone, weights=config.student_weights)
        if config.select == "labels" and config.train == "initial":
            raise UsageError("train=initial trains nothing to select from. Leave select=last.")
        super().__init__(config, backbone)
        quiet = config.background == "quiet"
        if config.stuff < 0 or (isinstance(config.k, int) and config.k - quiet <= config.stuff):
            raise UsageError(
                f"Of k = {config.k} categories {config.stuff} are stuff and {int(quiet)} is the "
                "background; at least one must be left for objects. Give a larger --k."
            )
        if config.stuff and not config.prior:
            raise UsageError("Stuff is told by the prior: give --set prior=true, or stuff=0.")
        self._training = self._schedule()
        self._decoder: tuple[Tensor, Student] | None = None

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays["centroids"]) + (self.config.background == "quiet")

    def names(self) -> dict[int, str]:
        """See `Method.names`."""
        return {0: "background"} if self.config.background == "quiet" else {}

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`."""
        objects, stuff = self._crops(samples, store)
        self.curve, self.losses = {}, {}
        with store.timed("categorise"):
            # Crops of one image overlap, and would make it a category of its own.
            most = max(2, min(MOST, len(samples) // 2))
            self.arrays = {"centroids": self._categorise(objects, stuff, most=most)}
        if self.config.train != "initial":
            self._train(samples, store)

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are the decoder's, or the responses."""
        if self.config.train == "initial":
            found = self._respond(samples, store)
            kept, failures = found.samples, found.failures
            if not kept:
                return [], failures
            scores = self._answers(found)  # (B, K, h, w)
            sure = normalise(scores)
        else:
            seen, kept, failures = self._see(samples, store)
            if not kept:
                return [], failures
            scores = self._decode(seen)
            sure = scores.softmax(1)
        pairs = zip(kept, scores, sure, strict=True)
        return [(sample, Evidence(s, _typical(p))) for sample, s, p in pairs], failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; there are no regions, but responses to the categories."""
        found = self._respond([sample], store)
        if found.failures:
            raise ImageError(found.failures[sample.id])
        [(_, decided)], _ = self.evidence([sample], store=store)
        tokens, _, _ = encode.tokens(self.backbone, [sample], size=self.config.size, store=store)
        parts, shift = decided.scores.argmax(0), self.k - len(self.arrays["centroids"])
        seen = parts.flatten().bincount(minlength=self.k).argsort(descending=True)[:SHOWN]
        maps = {
            f"response to category {i}": found.maps[0, i - shift]
            for i in seen.tolist()
            if i >= shift and bool((parts == i).any())
        }
        return Anatomy(tokens[0], parts, maps=maps)

    def _crops(self, samples: Sequence[Sample], store: Store) -> tuple[Tensor, Tensor]:
        """CLS tokens of the crops of objects and of stuff, of all images, each (n, D)."""
        c = self.config
        share = max(1, ENOUGH // len(samples))  # crops of an image and kind
        found: tuple[list[Tensor], list[Tensor]] = [], []
        for i, batch in store.track("crops", samples, BATCH):
            seen = bank(self.backbone, batch, c, size=c.size, stuff=c.stuff > 0, store=store)
            for kind in (OBJECTS, STUFF):
                for j in range(len(seen.samples)):
                    own = seen.cls[(seen.kinds == kind) & (seen.owners == j)]
                    found[kind].append(sample_rows(own, share, seed=c.seed + i * BATCH + j))
        if not found[OBJECTS]:
            raise DataError("None of the images could be read; failures.json lists the reasons.")
        return torch.cat(found[OBJECTS]), torch.cat(found[STUFF])

    def _categorise(self, objects: Tensor, stuff: Tensor, *, most: int) -> Tensor:
        """Cluster objects and stuff apart: centres (K without background, D), objects first.

        Scores of the numbers tried, up to `most`, are kept by the K that each would make.
        """
        c = self.config
        others = c.stuff + (c.background == "quiet")
        k = without(c.k, others)
        centres = []
        for crops, count, word in ((objects, k, "objects"), (stuff, c.stuff, "background")):
            least = count if isinstance(count, int) else 1
            if least > len(crops):
                hint = ", or --set prior=false, which takes all crops for objects" * c.prior
                raise UsageError(
                    f"{count} categories of {word} were asked for, but only {len(crops)} crops "
                    f"show {word}. Give more images or a smaller --k{hint}."
                )
            if count:
                found = categorise(crops, replace(c, k=count), most=most)
                centres.append(found.centroids)
                self.curve |= {tried + others: score for tried, score in found.curve.items()}
        return torch.cat(centres)

    def _respond(self, batch: Sequence[Sample] | encode.Loaded, store: Store) -> Responses:
        """What responds to the categories, without a background."""
        c = self.config
        found = respond(self.backbone, batch, self.arrays["centroids"], c, size=c.size, store=store)
        if c.apart and c.stuff and found.samples:
            maps = separate(found.maps, found.foreground, stuff=c.stuff)
            return replace(found, maps=maps)
        return found

    def _answers(self, found: Responses) -> Tensor:
        """Responses, with the background where there is one: (B, K, h, w)."""
        if self.config.background == "none":
            return found.maps
        told = with_background(normalise(found.maps))
        # Background is faint, .1 at most: between patches it would give way to what is beside it.
        return told / told.sum(1, keepdim=True)

    def _train(self, samples: Sequence[Sample], store: Store) -> None:
        """Let the decoder learn."""
        c, backbone = self.config, self.backbone
        said = [getattr(c, field.name) for field in fields(Responding)]
        shards = [samples[i : i + BATCH] for i in range(0, len(samples), BATCH)]

        def read(shard: int) -> bootstrap.Shard:
            loaded = encode.read(shards[shard], c.size)
            return loaded.images, self._respond(loaded, store).maps

        def see(images: Tensor) -> Tensor:
            return learners.crops(c.student, images, backbone, amp=self._training.amp)

        exam = None
        if c.select == "labels":
            grid = c.size[0] // backbone.stride, c.size[1] // backbone.stride
            whole = partial(self._see, store=store)
            exam = exams.prepare(lambda i: whole(shards[i])[:2], samples, grid, store=store)
        body = learners.read_body(c.student_weights)
        learned = bootstrap.train(
            learners.describe(c.student, backbone, classes=self.k, body=body),
            self._training,
            bootstrap.Lessons(read, see, backbone.stride, backbone.device, exam),
            shards=shards,
            body=body,
            facts=(
                backbone.digest,
                c.size,
                c.apart,
                c.stuff,
                said,
                self.arrays["centroids"].tolist(),
            ),
            store=store,
        )
        self.arrays |= {LEARNED + name: value for name, value in learned.weights.items()}
        self.losses = learned.losses
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        if exam is not None:
            self.notes.append(
                f"{NOTE}they chose epoch {learned.epoch} of {c.epochs}, the best on the images "
                "fitted on: scores on these leak, and none is one without labels"
            )

    def _schedule(self) -> Bootstrapping:
        """What the settings say of the training."""
        c = self.config
        names = ["epochs", "repeat", "batch", "lr", "decay", "intervals"]
        names += ["norm", "peer", "uncertainty"]
        return Bootstrapping(
            **{name: getattr(c, name) for name in names},
            diversity=c.diversity,
            teacher=c.teacher,
            start=c.start if c.train == "bootstrapped" else c.epochs,
            background=c.background == "quiet",
            distort=c.distort,
            amp=use_amp(c.amp, self.backbone.device),
            seed=c.seed,
        )

    def _see(
        self, samples: Sequence[Sample], store: Store
    ) -> tuple[Tensor, list[Sample], dict[str, str]]:
        """What the student decodes of a batch, its samples, and why others could not be read."""
        c = self.config
        return learners.whole(c.student, samples, self.backbone, size=c.size, store=store)

    def _decode(self, seen: Tensor) -> Tensor:
        """Scores of what the student decodes: (B, K, h, w)."""
        weights = below(self.arrays, LEARNED)
        mark = next(iter(weights.values()))
        if self._decoder is None or self._decoder[0] is not mark:
            kind = self.config.student
            self._decoder = mark, learners.rebuild(kind, weights, self.backbone, classes=self.k)
        with torch.no_grad():
            scores, _ = self._decoder[1].decode(seen.to(self.backbone.device))
        return scores.cpu()


def _typical(sure: Tensor) -> Tensor:
    """How sure the surest patch (K, h, w) of every category is, -1 where it does not occur."""
    best = sure.amax(0)
    winners = sure.argmax(0)
    typical = torch.full((len(sure),), -1.0)
    return typical.scatter_reduce(0, winners.flatten(), best.flatten(), "amax")
