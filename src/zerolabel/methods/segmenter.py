"""Segmenter: a transformer that is told the classes (Strudel et al., ICCV 2021).

The reference that methods without labels are measured against: the verb refine, learned from true
labels. An encoder, frozen or tuned; a decoder, linear or a mask transformer, on top; sliding
windows over a photo, merged into one class per pixel.
Shapes: `h w` patch grid, `H W` pixels, `K` classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from zerolabel.backbones import Backbone, require
from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import UsageError, unknown_name
from zerolabel.methods import METHODS, SUPERVISED
from zerolabel.methods.base import Anatomy, Evidence, class_names, surest
from zerolabel.methods.built import Built
from zerolabel.methods.configs import pick
from zerolabel.methods.pixels import one_by_one
from zerolabel.methods.told import NOTE, ToldMethod
from zerolabel.networks.mask_transformer import (
    LinearConfig,
    MaskTransformerConfig,
    mask_transformer_config,
)
from zerolabel.networks.vit import ViT
from zerolabel.ops.resize import resize
from zerolabel.stages import slide, supervise, whole
from zerolabel.store import Store
from zerolabel.training.lessons import Lessons
from zerolabel.training.precision import use_amp
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining
from zerolabel.types import Sample

CHOICES = {
    "decoder": ("mask", "linear"),
    "decoder_preset": ("official", "seed"),
    "encoder": ("tuned", "frozen"),
    "fit": ("keep", "squash"),
    "colours": ("auto", *whole.COLOURS),
    "amp": ("auto", "on", "off"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        k: number of classes; "auto" takes those of the data set, or the highest id in the labels.
        decoder, decoder_preset: "linear"; or "mask" (transformer), "official" or "seed".
        encoder: "tuned" (the backbone learns, too) or "frozen".
        checkpoint: a file with a whole Segmenter; nothing is trained, the backbone not used.
        colours: normalisation of a checkpoint: "half" (mean, deviation 0.5), "imagenet", "auto".
        short, fit: pixels of the short side; "keep" the shape of images, or "squash" to squares.
        window, stride, window_batch: of the sliding windows, in pixels; how many per forward.
        scales, flip: factors on `short`, and mirror images, all averaged.
        crop: side of a crop in training, in pixels.
        ratio, longest: factors on `short` in training; the most that a long side is of it.
        distort: change brightness, contrast, saturation and hue in training.
        held: share of the labelled images that is judged and not learned from.
        batch, iterations: crops per step, and steps.
        lr, decay, optimiser, schedule, warmup, drop_path, dropout: see training/supervised.py.
        amp: train in bfloat16: "auto" (where it is faster), "on" or "off".
        seed: fixes every draw.
        refine: see stages/refine.py; "bilinear" decides pixels by the merged windows alone.
    """

    k: int | str = "auto"
    decoder: str = "linear"
    decoder_preset: str = "official"
    encoder: str = "tuned"
    checkpoint: str = ""
    colours: str = "auto"
    short: int = 224
    fit: str = "keep"
    window: int = 160
    stride: int = 96
    window_batch: int = 4
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    crop: int = 160
    ratio: tuple[float, float] = (0.75, 1.5)
    longest: float = 4.0
    distort: bool = True
    held: float = 0.0
    batch: int = 2
    iterations: int = 4000
    lr: float = 5e-4
    decay: float = 0.05
    optimiser: str = "adamw"
    schedule: str = "poly"
    warmup: int = 50
    drop_path: float = 0.0
    dropout: float = 0.0
    amp: str = "auto"
    seed: int = 0
    refine: str = "guided"


ADE20K = Config(
    decoder="mask",
    short=512,
    window=512,
    stride=512,
    crop=512,
    ratio=(0.5, 2.0),
    batch=8,
    iterations=160_000,
    lr=1e-3,
    decay=0.0,
    optimiser="sgd",
    warmup=0,
    drop_path=0.1,
    refine="bilinear",
)
PRESETS = {
    "default": Config(),
    "protocol": Config(refine="bilinear"),
    "official-ade20k": ADE20K,
    "official-context": replace(
        ADE20K,
        short=520,
        window=480,
        stride=320,
        crop=480,
        longest=8.0,
        batch=16,
        iterations=80_000,
    ),
    "official-cityscapes": replace(
        ADE20K, short=1024, window=768, crop=768, longest=2.0, iterations=80_000, lr=1e-2
    ),
    "seed": replace(
        ADE20K,
        decoder_preset="seed",
        fit="squash",
        short=384,
        window=384,
        stride=384,
        crop=384,
        ratio=(1.0, 1.0),
        distort=False,
        held=0.1,
        batch=16,
        iterations=37_890,
        schedule="plateau",
        drop_path=0.2,
        dropout=0.2,
    ),
}


class Segmenter(ToldMethod):
    """Encoder and decoder, trained on the labels of a data set."""

    name = "segmenter"
    PRESETS = PRESETS
    config: Config
    backbone: VitBackbone

    def __init__(self, config: Config, backbone: Backbone) -> None:
        for field, allowed in CHOICES.items():
            if getattr(config, field) not in allowed:
                raise unknown_name(f"choice of {field}", getattr(config, field), allowed)
        require(backbone, "attention", "cls", "tokens")
        if not isinstance(backbone, VitBackbone):
            raise UsageError(f"Expected a vision transformer to train, found {backbone.name}.")
        super().__init__(config, backbone)
        c, squash = config, config.fit == "squash"
        scene: SceneConfig = pick(SceneConfig, c, flip=0.5, plain=squash)
        self._lessons: Lessons = pick(Lessons, c, scene=scene)
        self._slide: slide.Slide = pick(slide.Slide, c, squash=squash, batch=c.window_batch)
        amp = use_amp(c.amp, backbone.device)
        self._training: SupervisedTraining = pick(
            SupervisedTraining, c, tuned=c.encoder == "tuned", amp=amp
        )
        self._built = Built[tuple[ViT, nn.Module]]()

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return whole.classes(self.arrays)

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`; samples without a label are left out."""
        self.losses = {}
        if self.config.checkpoint:
            self._take(samples)
            return
        *most, last = sorted(METHODS.keys() - SUPERVISED)
        advice = (
            "segmenter learns from labels, and none of these images has one. Give a labelled "
            f"data set, or --set checkpoint=FILE; {', '.join(most)} and {last} need no labels."
        )
        labelled, seen = self.told(samples, advice=advice, store=store)
        found = supervise.train(
            copy.deepcopy(self.backbone.net),
            self._head(len(seen.pixels)),
            self._training,
            self._lessons,
            samples=labelled,
            prepare=self._prepare,
            facts=(self.backbone.digest, seen.pixels.tolist(), seen.images.tolist()),
            device=self.backbone.device,
            store=store,
        )
        self.arrays, self.losses = found.weights, found.losses
        self.notes += [NOTE + words for words in found.words()]

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities, at the centres of the patches."""
        encoder, head = self._networks()

        def see(sample: Sample) -> Evidence:
            image = to_tensor(sample.load())
            said = slide.look(encoder, head, image, self._slide, prepare=self._prepare)
            scores, labels = slide.on_grid(said), None
            if self.config.refine == "bilinear":
                labels = slide.decide(said, (image.shape[1], image.shape[2]))
            return Evidence(scores, surest(scores), labels=labels)

        return one_by_one(samples, see)

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; parts are classes, and the photo is seen whole."""
        encoder, head = self._networks()
        image = to_tensor(sample.load())
        size = slide.scaled((image.shape[1], image.shape[2]), self._slide)
        seen = self._prepare(resize(image[None], size, mode="bilinear"))
        tokens, parts, maps = slide.attentions(encoder, head, seen, names=self.names())
        return Anatomy(tokens, parts, maps=maps)

    def _take(self, samples: Sequence[Sample]) -> None:
        """Keep a checkpoint as the arrays of the model."""
        path = self.config.checkpoint
        self.arrays, self.class_names = whole.read(path), class_names(samples)
        if self.config.k not in ("auto", self.k):
            raise UsageError(
                f"{path} knows {self.k} classes, and {self.config.k} were asked for. Leave k=auto, "
                f"or give --k {self.k}."
            )

    def _head(self, K: int) -> LinearConfig | MaskTransformerConfig:
        """The decoder for so many classes."""
        dim = self.backbone.dim
        if self.config.decoder == "linear":
            return LinearConfig(encoder_dim=dim, classes=K)
        return mask_transformer_config(self.config.decoder_preset, encoder_dim=dim, classes=K)

    def _networks(self) -> tuple[ViT, nn.Module]:
        """Encoder and decoder with the weights of the model, built once."""
        return self._built.get(self.arrays[next(iter(self.arrays))], self._build)

    def _build(self) -> tuple[ViT, nn.Module]:
        if self.config.checkpoint:
            made = whole.rebuild(self.arrays)
        else:
            made = whole.trained(self.arrays, self.backbone.net, self._head(self.k))
        encoder, head = (network.to(self.backbone.device).eval() for network in made)
        return cast(ViT, encoder), head

    def _prepare(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W) of 0..255 as the encoder was trained with."""
        if not self.config.checkpoint:
            return self.backbone.prepare(images)
        kind = self.config.colours
        return whole.normalise(images.to(self.backbone.device), self.arrays, colours=kind)
