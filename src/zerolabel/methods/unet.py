"""U-Net: told the classes by labels (Ronneberger et al., 2015), to stand beside W-Net.

The reference of "Context is all you need": the network that W-Net is made of, learning what the
labels say instead of cutting and drawing again.
Shapes: `C` bands, `H W` pixels, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.methods.built import Built
from zerolabel.methods.configs import pick
from zerolabel.methods.pixels import PixelMethod
from zerolabel.methods.told import ToldMethod
from zerolabel.networks.unet import UNet, UNetConfig, random_unet
from zerolabel.stages import wnet
from zerolabel.stages.pictures import kept_scale, picture, scale
from zerolabel.store import Store
from zerolabel.training.unet import UnetTraining
from zerolabel.types import Sample


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


class Unet(ToldMethod, PixelMethod):
    """A U-Net that learns from labels."""

    name = "unet"
    PRESETS = PRESETS
    config: Config

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self._net = Built[UNet]()

    @property
    def k(self) -> int:
        """See `Method.k`."""
        return len(self.arrays["head.bias"])

    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """See `Method.fit`; samples without a label are left out."""
        c = self.config
        advice = (
            "unet learns from labels, and none of these images has one. Give a labelled data set; "
            "wnet is made of the same network and needs no labels."
        )
        labelled, seen = self.told(samples, advice=advice, store=store)
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

    def _look(self, sample: Sample) -> Tensor:
        """Probabilities of the classes in an image, float32 (K, H, W)."""
        size = None if self.config.native else self.config.size
        image = picture(sample, kept_scale(self.arrays), size=size).to(self.backbone.device) / 255
        return wnet.look(self.network(), image, tile=self.config.tile)

    def network(self) -> UNet:
        """The network with the weights of the model, built once: frozen, in evaluation mode."""
        return self._net.get(self.arrays["head.bias"], self._build)

    def _build(self) -> UNet:
        bands = len(self.arrays["low"])
        net = random_unet(pick(UNetConfig, self.config, bands=bands, outputs=self.k), seed=0)
        net.load_state_dict({name: self.arrays[name] for name in net.state_dict()})
        return net.to(self.backbone.device).eval().requires_grad_(False)
