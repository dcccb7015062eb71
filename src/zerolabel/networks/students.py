"""What may learn TransFGU's lessons in the place of its own decoder: a table of the paper.

A student is a module with `decode(x) -> (logits (B, K, h, w), class embeddings (B, K, D) of length
1)`. What x is depends on it: the mask transformer and the convolutional decoder take the patch
tokens of a frozen backbone, a residual network with its pyramid takes normalised images.
Shapes: `B` images, `H W` pixels, `h w` patch grid, `K` classes, `D` channels.

Source: Yin et al., "TransFGU", ECCV 2022, table 4, which names its encoders and decoders only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.fpn import PyramidConfig, ResNetFPN, random_pyramid
from zerolabel.networks.mask_transformer import (
    MaskTransformer,
    MaskTransformerConfig,
    decoder,
    mask_transformer_config,
)
from zerolabel.networks.resnet import ARCHITECTURES, STAGES, STEM_STRIDE, ResNetConfig

RESNET50 = ARCHITECTURES["resnet-50"]
KINDS = ("segmenter", "conv", "r50-fpn-segmenter", "r50-fpn-conv")
IMAGES = frozenset({"r50-fpn-segmenter", "r50-fpn-conv"})  # those that take images, not tokens
COARSEST = 32  # pixels per cell of the last stage
OWN = "encoder.body."  # prefix of the residual network's weights in those of a student


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """The convolutional decoder.

    Attributes:
        encoder_dim: channels of the patch tokens that come in.
        classes: K.
        dim: D, channels inside; 0 stands for `encoder_dim`.
    """

    encoder_dim: int
    classes: int
    dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", self.dim or self.encoder_dim)


@dataclass(frozen=True, kw_only=True)
class FpnConfig:
    """A residual network, its pyramid, and a decoder on the finest level.

    Attributes:
        pyramid: encoder.
        head: decoder.
        patch: pixels per cell of the grid on which it decides.
    """

    pyramid: PyramidConfig
    head: MaskTransformerConfig | ConvConfig
    patch: int


class ConvDecoder(nn.Module):
    """A 3x3 convolution, a norm and a rectifier, then one 1x1 convolution to the scores.

    The paper calls its decoder a classifier of convolutions and does not describe it; neither the
    number of layers nor the norm is known, so this is one of many that fit the words. The norm is
    over all channels and patches of an image, so that results do not depend on the batch.
    """

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(config.encoder_dim, config.dim, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(1, config.dim)
        self.head = nn.Conv2d(config.dim, config.classes, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score patch tokens (B, h, w, encoder_dim): logits (B, K, h, w)."""
        return self.decode(tokens)[0]

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Score every class at every patch.

        Args:
            tokens: patch tokens, float32 (B, h, w, encoder_dim).

        Returns:
            Logits (B, K, h, w), and class embeddings float32 (B, K, D) of length 1: what the last
            layer compares patches with, the same for every image.

        Raises:
            UsageError: tokens of another width.
        """
        dim = self.config.encoder_dim
        if tokens.ndim != 4 or tokens.shape[3] != dim:
            found = tuple(tokens.shape)
            raise UsageError(
                f"The decoder expects patch tokens (B, h, w, {dim}), found {found}. Use the "
                "backbone that it was trained with."
            )
        z = F.relu(self.norm(self.conv(tokens.permute(0, 3, 1, 2))))  # (B, dim, h, w)
        classes = F.normalize(self.head.weight.flatten(1), dim=1)  # (K, dim)
        return self.head(z), classes.expand(len(tokens), -1, -1)


class FpnStudent(nn.Module):
    """A residual network with its pyramid, and a decoder on the finest level.

    All of it learns, but for what would smooth the coarser levels, which nobody looks at.
    """

    def __init__(self, config: FpnConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ResNetFPN(config.pyramid)
        head = config.head
        self.decoder = ConvDecoder(head) if isinstance(head, ConvConfig) else MaskTransformer(head)

    def forward(self, images: Tensor) -> Tensor:
        """Score the patches of normalised images (B, 3, H, W): logits (B, K, h, w)."""
        return self.decode(images)[0]

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score every class at every patch.

        Args:
            images: normalised, float32 (B, 3, H, W), H and W multiples of the patch.

        Returns:
            Logits (B, K, H/patch, W/patch), and class embeddings (B, K, D) of length 1.

        Raises:
            UsageError: something else than images.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"This student expects images (B, 3, H, W), found {tuple(images.shape)}."
            )
        if self.training and len(images) == 1 and max(images.shape[2:]) <= COARSEST:
            found = f"{images.shape[2]}x{images.shape[3]}"
            raise UsageError(
                f"The norms of this student compare values, and of one image of {found} pixels a "
                "single one is left. Give more images, or a larger size."
            )
        grid = images.shape[2] // self.config.patch, images.shape[3] // self.config.patch
        tokens = self.encoder.patches(images)
        if tokens.shape[1:3] != grid:
            pooled = F.adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), grid)
            tokens = pooled.permute(0, 2, 3, 1)  # (B, h, w, D)
        return self.decoder.decode(tokens)


Student = MaskTransformer | ConvDecoder | FpnStudent
StudentConfig = MaskTransformerConfig | ConvConfig | FpnConfig


def student_config(
    kind: str,
    *,
    encoder_dim: int,
    classes: int,
    patch: int,
    body: ResNetConfig = RESNET50,
    dim: int = 256,
) -> StudentConfig:
    """Describe a student.

    Args:
        kind: a name in `KINDS`.
        encoder_dim: channels of the backbone's patch tokens.
        classes: K.
        patch: pixels per cell of the backbone's grid, on which every student decides; of the
            pyramid the coarsest level that is not coarser is taken, and pooled if it is finer.
        body: the residual network, where there is one.
        dim: channels of its pyramid.

    Returns:
        The configuration.

    Raises:
        UsageError: the kind is unknown.
    """
    if kind not in KINDS:
        raise unknown_name("student", kind, KINDS)
    width = dim if kind in IMAGES else encoder_dim
    head: MaskTransformerConfig | ConvConfig = (
        mask_transformer_config("transfgu", encoder_dim=width, classes=classes)
        if kind.endswith("segmenter")
        else ConvConfig(encoder_dim=width, classes=classes)
    )
    if kind not in IMAGES:
        return head
    strides = [STEM_STRIDE << level for level in range(len(STAGES))]
    level = max((i for i, stride in enumerate(strides) if stride <= patch), default=0)
    return FpnConfig(pyramid=PyramidConfig(body, dim, STAGES[level]), head=head, patch=patch)


def student(config: StudentConfig, *, seed: int) -> Student:
    """Build a student with random weights that depend on the seed alone.

    Args:
        config: which one.
        seed: of the generators; the global random state is neither used nor changed.

    Returns:
        The student on the CPU, trainable.
    """
    if isinstance(config, MaskTransformerConfig):
        return cast(MaskTransformer, decoder(config, seed=seed))
    if isinstance(config, ConvConfig):
        return _conv_decoder(config, seed=seed)
    with torch.device("meta"):  # replaced below, without a draw from the global generator
        made = FpnStudent(config)
    made.encoder = random_pyramid(config.pyramid, seed=seed)
    made.decoder = cast("MaskTransformer | ConvDecoder", student(config.head, seed=seed))
    return made


def blank(config: StudentConfig) -> Student:
    """Build a student without memory for its weights, which are to be loaded with `assign`."""
    with torch.device("meta"):
        if isinstance(config, MaskTransformerConfig):
            return MaskTransformer(config)
        return ConvDecoder(config) if isinstance(config, ConvConfig) else FpnStudent(config)


def _conv_decoder(config: ConvConfig, *, seed: int) -> ConvDecoder:
    """Build the convolutional decoder: He's deviations before the rectifier, small scores."""
    with torch.device("meta"):
        made = ConvDecoder(config)
    made = made.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    nn.init.kaiming_normal_(made.conv.weight, nonlinearity="relu", generator=generator)
    nn.init.trunc_normal_(made.head.weight, std=0.02, generator=generator)
    assert made.head.bias is not None  # it was asked for
    nn.init.zeros_(made.head.bias)
    nn.init.ones_(made.norm.weight)
    nn.init.zeros_(made.norm.bias)
    return made
