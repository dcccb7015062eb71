"""ReCLIP++: learn the bias of CLIP from photos, and take it off (Wang and Kang, 2024).

CLIP prefers some classes, and objects in the middle. Which words a photo shows is guessed from
crops of it; a bias of words and places is learned that lets masks of these words look like them;
and what is left without the bias is taught to a student. ReCLIP is its first version.
Shapes: `B` images, `h w` patch grid, `P` channels of the space shared with texts, `Q` words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.data.words import Words
from zerolabel.errors import UsageError
from zerolabel.methods.configs import pick
from zerolabel.methods.taught import TaughtConfig, TaughtMethod, wants_student
from zerolabel.networks.bias import BiasConfig, Rectifier
from zerolabel.networks.distilled import BIASED
from zerolabel.stages import hypotheses, rectify
from zerolabel.stages.dense import Seen
from zerolabel.stages.hypotheses import Hypotheses
from zerolabel.stages.rectify import Bias
from zerolabel.store import Store, below
from zerolabel.training.rectify import RectifyTraining
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class Config(TaughtConfig, Hypotheses, Bias):
    """Settings; see also `stages.hypotheses`, `stages.rectify` and `training.rectify`.

    Attributes:
        steps: of the rectification; only if there are no epochs.
        epochs: passes over all photos instead.
        horizon: epoch after which the learning rate would be 0; 0 stands for the last one.
        lr: learning rate of the first epoch.
        scale: what scores are multiplied with before words are drawn.
        pool, cosine: of the loss, see `ops.rectification.contrastive`.
    """

    temperature: float = 10.0
    window_share: float = 1 / 4
    ratio: tuple[float, float] = (0.75, 1.5)
    steps: int = 400
    epochs: int = 0
    horizon: int = 0
    lr: float = 0.01
    scale: float = 10.0
    pool: str = "area"
    cosine: bool = False


# The first published settings, which belong to the numbers of the paper; of the code's batch of 16
# nothing reached its loader, so a step has one square.
PUBLISHED = Config(
    refine="bilinear",
    short=512,
    crop=512,
    views=0,
    batch=1,
    ratio=(0.5, 2.0),
    window_share=1 / 6,
    start="kaiming",
    scale=100.0,
    student_batch=16,
    student_relu=True,
)
VERSION_1: dict[str, Any] = {
    "bias": "joint",
    "decoder": False,
    "hypothesis": "whole",
    "scale": 1000.0,
    "temperature": 100.0,
}
VOC = {"classes": "voc20", "epochs": 200, "student_epochs": 100}
CONTEXT = {"classes": "context59", "short": 520, "crop": 480, "epochs": 150, "student_epochs": 150}
ADE20K = {"classes": "ade150", "epochs": 150, "student_epochs": 150}
CITYSCAPES = {"classes": "cityscapes19", "epochs": 150, "student_epochs": 100}
COCO27 = {"classes": "coco27", "epochs": 30, "student_epochs": 50}


def _published(words: dict[str, Any], **more: Any) -> Config:
    return replace(PUBLISHED, **{**words, **more})


PLUSPLUS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),
    "legacy_mmseg": Config(refine="bilinear", legacy=True),
    "voc": _published(VOC, least=0.07, denoise=0.99992),
    "context": _published(CONTEXT, least=0.0, denoise=0.75),
    "ade20k": _published(ADE20K, least=0.0),
    "cityscapes": _published(CITYSCAPES, least=0.07, denoise=0.74),
    "coco27": _published(COCO27, least=0.0, denoise=0.9),
}
START = Config(**VERSION_1 | {"scale": 100.0}, least=23.0)
FIRST = {
    "default": START,
    "protocol": replace(START, refine="bilinear"),
    "legacy_mmseg": replace(START, refine="bilinear", legacy=True),
    "voc": _published(VOC | VERSION_1, least=23.0, most=2, denoise=0.99992),
    "context": _published(CONTEXT | VERSION_1, least=20.0, most=6, denoise=0.6),
    "ade20k": _published(ADE20K | VERSION_1, least=21.0, most=5),
    "cityscapes": _published(CITYSCAPES | VERSION_1, least=21.5, most=2, denoise=0.74),
    "coco27": _published(COCO27 | VERSION_1, least=20.0, most=8, denoise=0.9),
}


class ReclipPlusPlus(TaughtMethod):
    """Words against dense features, less a learned bias; and where asked for, a student of that."""

    name = "reclip++"
    PRESETS = PLUSPLUS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        hypotheses.check(pick(Hypotheses, config))
        _training(config)
        if wants_student(config) and config.tower == "tuned":
            raise UsageError("A tower that learns is an ablation of the rectification: no student.")
        super().__init__(config, backbone)
        if wants_student(config) and not config.decoder and config.head == "inherited":
            # Nothing to inherit beyond texts and bias.
            self.config = replace(self.config, head="query+bias")
        self._rectifier: tuple[Tensor, Rectifier] | None = None
        self._tuned: tuple[Tensor, ClipBackbone] | None = None

    def learn(self, samples: Sequence[Sample], words: Words, *, store: Store) -> None:
        """See `WordMethod.learn`: hypotheses, rectification, distillation."""
        c = self.config
        _several(words)
        found = hypotheses.present(
            self.backbone, samples, self.arrays["queries"], pick(Hypotheses, c), store=store
        )
        library = self.library(found.samples, batch=c.batch, store=store)
        training = rectify.horizon(
            _training(c), epochs=c.epochs, last=c.horizon, epoch=library.epoch
        )
        rectified, self.losses = rectify.train(
            pick(Bias, c),
            training,
            library,
            words=words.words,
            queries=self.arrays["queries"],
            present=found.words,
            store=store,
        )
        self.arrays = self.arrays | rectified
        if wants_student(c):
            teacher = self.rectifier() if c.head in BIASED else None
            facts = (pick(Bias, c), training, found.words.tolist())
            self.teach(found.samples, teacher=teacher, facts=facts, store=store)

    def scores(self, dense: Tensor, positions: Tensor) -> Tensor:
        """See `TaughtMethod.scores`: M_o."""
        queries, references = self._texts()
        said: Tensor = self.rectifier()(
            F.normalize(dense, dim=-1), queries, references=references, positions=positions
        )
        return said

    def sight(self) -> ClipBackbone:
        """See `WordMethod.sight`: CLIP, or what became of its image tower, built once."""
        weights = below(self.arrays, rectify.TOWER)
        if not weights:
            return self.backbone
        if self._tuned is None or self._tuned[0] is not self.arrays["references"]:
            self._tuned = self.arrays["references"], self.backbone.tuned(weights)
        return self._tuned[1]

    def maps(self, seen: Seen, words: Sequence[int]) -> dict[str, Tensor]:
        """See `WordMethod.maps`: of every word its query, bias and rectified scores (figure 4)."""
        if self.taught():
            return super().maps(seen, words)
        grid = (seen.dense.shape[0], seen.dense.shape[1])
        dense = F.normalize(seen.dense[None], dim=-1).to(self.backbone.device)
        with torch.no_grad():
            bias = (
                self.rectifier()
                .bias(self.backbone.positions(grid), self._texts()[1], dense=dense)[0]
                .cpu()
            )
        query, rectified = self.cosines(seen), self.logits(seen)
        drawn: dict[str, Tensor] = {}
        for q in words:
            kinds = {"query": query[q], "bias": bias[q], "rectified": rectified[q]}
            drawn |= {f"{self.word(q)}: {kind}": values for kind, values in kinds.items()}
        return drawn

    def rectifier(self) -> Rectifier:
        """The rectifier with the weights of the model, built once."""
        mark = self.arrays["references"]
        if self._rectifier is None or self._rectifier[0] is not mark:
            made = rectify.rebuild(self.backbone, pick(Bias, self.config), self.arrays)
            self._rectifier = mark, made
        return self._rectifier[1]

    def inherited(self) -> BiasConfig | None:
        """See `TaughtMethod.inherited`."""
        return self.rectifier().config

    def _texts(self) -> tuple[Tensor, Tensor]:
        """Queries and references on the backbone's device."""
        queries, references = self.arrays["queries"], self.arrays["references"]
        return queries.to(self.backbone.device), references.to(self.backbone.device)


class Reclip(ReclipPlusPlus):
    """The first version: bias of each image, no decoder, whole photos say what they show."""

    name = "reclip"
    PRESETS = FIRST


def _training(config: Config) -> RectifyTraining:
    """How the rectifier learns, before the lengths of epochs are known."""
    made: RectifyTraining = pick(RectifyTraining, config, iterations=config.steps, horizon=0)
    return made


def _several(words: Words) -> None:
    """Refuse a single word: there is nothing to tell it from, and the loss would be 0.

    Raises:
        UsageError: there is only one.
    """
    if len(words.words) < 2:
        raise UsageError(
            f"Expected two words or more to tell apart, found only {words.words[0]!r}. Add what "
            "else the photos show, e.g. with --background."
        )
