"""A light student: a small vision transformer with a convolutional stem, and a decoder beside it.

The encoder is built like the embedded backbone, so it can start from its weights. Tokens of patches
know what things are but not where they end; the stem, halfway, knows little but edges: the decoder
adds one to the other. It is made of plain convolutions with foldable norms, for runtimes and whole
numbers. At 224 x 224 pixels it is about a tenth of the work.
Shapes: `B` images, `H W` pixels, `h w` patch grid, `D` channels of a token, `K` classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError
from zerolabel.networks.resnet import reset_resnet
from zerolabel.networks.stem import ConvStem, StemStage
from zerolabel.networks.vit import ViT, VitConfig, random_vit

STRIDE = 4  # of the logits, and of the stem's map that they are told by
STAGE = STRIDE.bit_length() - 2  # the stem's stage that gives it


@dataclass(frozen=True, kw_only=True)
class LightConfig:
    """What fixes a student, apart from its weights.

    Attributes:
        classes: K.
        vit: the encoder, with a convolutional stem and patches of 8 pixels or more.
        width: channels of the decoder.
    """

    classes: int
    vit: VitConfig
    width: int = 96

    def __post_init__(self) -> None:
        if min(self.classes, self.width) < 1:
            raise UsageError(
                f"Expected 1 or more classes and channels, found {self.classes} and {self.width}."
            )
        vit = self.vit
        if not vit.conv_stem or vit.patch < 2 * STRIDE or vit.registers or vit.pre_norm:
            stem = "a convolutional" if vit.conv_stem else "no convolutional"
            raise UsageError(
                "Expected a vision transformer with a convolutional stem, patches of 8 pixels or "
                f"more, no registers and no norm before its blocks, found {stem} stem, patches of "
                f"{vit.patch} and {vit.registers} registers."
            )


class LightDecoder(nn.Module):
    """Adds tokens, enlarged, to the stem's map; a 3x3 convolution mixes them, a 1x1 one decides.

    Batch norms behind convolutions: they fold into them where the network is exported.
    """

    def __init__(self, dim: int, stem: int, *, width: int, classes: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(dim, width, 1, bias=False)
        self.fine = nn.Conv2d(stem, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, tokens: Tensor, fine: Tensor) -> Tensor:
        """Tokens (B, D, h, w) and the stem's map (B, C, H/4, W/4) -> logits (B, K, H/4, W/4)."""
        deep = F.interpolate(self.deep(tokens), size=fine.shape[2:], mode="bilinear")
        z = F.relu(self.norm1(deep + self.fine(fine)))
        out: Tensor = self.head(F.relu(self.norm2(self.mix(z))))
        return out


class Light(nn.Module):
    """The student; names `encoder.*`, as the backbone's, and `decoder.*`.

    Attributes:
        config: what it was built from.
        patch: images are padded to multiples of it, or their rest is cut off.
        stride: pixels between neighbours of the result.

    Source:
        Long et al. 2015 and Chen et al. 2018 (DeepLabV3+) for fine features of few channels beside
        coarse ones; the encoder is that of docs/backbone.md.
    """

    stride = STRIDE

    def __init__(self, config: LightConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = config.vit.patch
        self.encoder = ViT(config.vit)
        stage = cast(StemStage, self._stem().stages[STAGE])
        self.decoder = LightDecoder(
            config.vit.dim, stage.conv.out_channels, width=config.width, classes=config.classes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Score classes.

        Args:
            x: normalised images, float32 (B, 3, H, W), at least one patch high and wide; what
                exceeds whole patches is cut off at the bottom and the right.

        Returns:
            Logits, float32 (B, K, H/4, W/4) of what is left.
        """
        h, w = (side // self.patch for side in x.shape[2:])
        z = x[..., : h * self.patch, : w * self.patch]
        fine = z
        for i, stage in enumerate(self._stem().stages):
            z = stage(z)
            if i == STAGE:
                fine = z
        tokens = self._transform(self._stem().proj(z))
        return self.decoder(tokens, fine)  # type: ignore[no-any-return]

    def _transform(self, patches: Tensor) -> Tensor:
        """Patches (B, D, h, w) -> tokens (B, D, h, w), as `ViT.forward_all` has them.

        Written out because nothing here asks for a size, so that an exported network takes any.
        """
        net = self.encoder
        h, w = patches.shape[2:]
        side = net.config.grid
        place = net.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, side, side)  # (1, D, g, g)
        place = F.interpolate(place, size=(h, w), mode="bicubic")  # the rule "size"
        z = (patches + place).flatten(2).transpose(1, 2)  # (B, h*w, D)
        first = (net.cls_token + net.pos_embed[:, :1]).expand(z.shape[0], -1, -1)
        z = net.drop(torch.cat([first, z], dim=1))
        for block in net.blocks:
            z = block(z)
        return net.norm(z)[:, 1:].transpose(1, 2).unflatten(2, (h, w))  # type: ignore[no-any-return]

    def _stem(self) -> ConvStem:
        return cast(ConvStem, self.encoder.patch_embed)


def random_light(config: LightConfig, *, seed: int) -> Light:
    """Build a student with random weights that depend on the seed alone.

    Args:
        config: the student.
        seed: of the generators; the global random state is neither used nor changed.

    Returns:
        The student on the CPU in training mode. Replace the weights of `encoder` to start from a
        trained one.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = Light(config)
    net = net.to_empty(device="cpu")
    net.encoder.load_state_dict(random_vit(config.vit, seed=seed).state_dict())
    generator = torch.Generator().manual_seed(seed)
    reset_resnet(net.decoder, generator=generator)
    nn.init.normal_(net.decoder.head.weight, std=0.01, generator=generator)
    assert net.decoder.head.bias is not None  # it was asked for
    nn.init.zeros_(net.decoder.head.bias)
    return net
