"""U-Net: told the classes by labels (Ronneberger et al., 2015), to stand beside W-Net.

The reference of "Context is all you need": the network that W-Net is made of, learning what the
labels say instead of cutting and drawing again.
Shapes: `C` bands, `H W` pixels, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import ImageError, UsageError
from zerolabel.methods.base import Anatomy, Evidence, Method, class_names, pick, surest
from zerolabel.networks.unet import UNet, UNetConfig, random_unet
from zerolabel.stages import supervise, wnet
from zerolabel.stages.pictures import kept_scale, picture, scale
from zerolabel.store import Store
from zerolabel.training.unet import UnetTraining
from zerolabel.types import Sample

NOTE = "labels: "
GRID = 28  # cells a side of what `explain` compares
SHOWN = 4  # classes that it draws


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings; see `networks.unet` and `training.unet`.

    Attributes:
        k: number of classes; "auto" takes those of the data set, or the highest id in the labels.
        size: (H, W) in pixels to which images are squashed.
        native: whether images are predicted at their own size instead.
        tile: sides of larger images are cut into so many pixels.
        base, depth, separable, norm_last, dropout: of the network.
        lr, decay: of the training.
        batch, iterations: images per step, and steps.
        flip: mirror half of the images.
        seed: fixes every draw.
        refine: see stages/refine.py.
    """

    k: int | str = "auto"
    size: tuple[int, int] = (224, 224)
    native: bool = False
    tile: int = 1024
    base: int = 16
    depth: int = 4
    separable: bool = True
    norm_last: bool = False
    dropout: float = 0.2
    lr: float = 0.003
    decay: float = 0.01
    batch: int = 4
    iterations: int = 300
    flip: bool = True
    seed: int = 0
    refine: str = "guided"


PRESETS = {"default": Config(), "protocol": Config(refine="bilinear")}


class Unet(Method):
    """A U-Net that learns from labels."""

    name = "unet"
    PRESETS = PRESETS
    auto_backbone = "none"
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self._net: tuple[Tensor, UNet] | None = None

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays["head.bias"])

    def names(self) -> dict[int, str]:
        """See `Method.names`: those of the classes, where the data set has names."""
        return dict(enumerate(self.class_names[: self.k]))

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`; samples without a label are left out."""
        c = self.config
        labelled = [sample for sample in samples if sample.load_label is not None]
        if not labelled:
            raise UsageError(
                "unet learns from labels, and none of these images has one. Give a labelled data "
                "set; wnet is made of the same network and needs no labels."
            )
        self.class_names = class_names(labelled)
        asked = c.k if isinstance(c.k, int) else len(self.class_names)
        seen = supervise.inspect(labelled, classes=asked or None, store=store)
        self.notes = [note for note in self.notes if not note.startswith(NOTE)]
        self.notes += [NOTE + problem for problem in seen.problems()]
        found = scale(labelled, store=store)
        weights, self.losses = wnet.train_on_labels(
            pick(UNetConfig, c, bands=found.bands, outputs=len(seen.pixels)),
            pick(UnetTraining, c),
            labelled,
            found,
            size=c.size,
            flip=c.flip,
            device=self.backbone.device,
            store=store,
        )
        self.arrays = weights | found.arrays()

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities at the size that the network saw."""
        found, failures = [], {}
        for sample in samples:
            try:
                scores = self._look(sample)
            except ImageError as error:
                failures[sample.id] = str(error)
                continue
            found.append((sample, Evidence(scores, surest(scores))))
        return found, failures

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; there are no patches, so pixels are averaged over a grid."""
        scores = self._look(sample)
        coarse = torch.nn.functional.adaptive_avg_pool2d(scores[None], GRID)[0]
        most = torch.bincount(scores.argmax(0).flatten(), minlength=self.k)
        chosen = most.argsort(descending=True)[:SHOWN].tolist()
        names = self.names()
        maps = {names.get(k, f"class {k}"): scores[k] for k in chosen}
        return Anatomy(coarse.permute(1, 2, 0), coarse.argmax(0), maps=maps)

    def _look(self, sample: Sample) -> Tensor:
        """Probabilities of the classes in an image, float32 (K, H, W)."""
        size = None if self.config.native else self.config.size
        image = picture(sample, kept_scale(self.arrays), size=size).to(self.backbone.device) / 255
        return wnet.look(self._built(), image, tile=self.config.tile)

    def _built(self) -> UNet:
        """The network with the weights of the model, built once."""
        mark = self.arrays["head.bias"]
        if self._net is None or self._net[0] is not mark:
            bands = len(self.arrays["low"])
            net = random_unet(pick(UNetConfig, self.config, bands=bands, outputs=self.k), seed=0)
            net.load_state_dict({name: self.arrays[name] for name in net.state_dict()})
            self._net = mark, net.to(self.backbone.device).eval().requires_grad_(False)
        return self._net[1]
