"""The vision transformer of DINO, DINOv2, CLIP and this project; it computes what is asked for.

The last block is where features are read, so that is where work is saved, see `networks.reading`.
No N x N matrix is ever held: the blocks use fused attention. State-dict names are those of the
original checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.reading import OUTPUTS, read, within
from zerolabel.networks.stem import ConvStem, PatchEmbed
from zerolabel.networks.transformer import Block, regularise
from zerolabel.ops.activations import Activation
from zerolabel.ops.position import PosInterp, interpolate_positions
from zerolabel.types import Features

HEAD_DIM = 64  # in every published DINO and DINOv2 network


@dataclass(frozen=True)
class Architecture:
    """Width, depth and heads of a published size."""

    dim: int
    depth: int
    heads: int


ARCHITECTURES = {
    "vit-nano": Architecture(dim=128, depth=4, heads=2),  # not published: sizes for two CPU cores
    "vit-mini": Architecture(dim=192, depth=6, heads=3),
    "vit-tiny": Architecture(dim=192, depth=12, heads=3),
    "vit-small": Architecture(dim=384, depth=12, heads=6),
    "vit-base": Architecture(dim=768, depth=12, heads=12),
    "vit-large": Architecture(dim=1024, depth=24, heads=16),
}


@dataclass(frozen=True)
class VitConfig:
    """What fixes a network, apart from its weights.

    Attributes:
        patch: side of a patch, in pixels.
        dim: channels D of a token.
        depth: number of blocks.
        heads: attention heads; `dim` is a multiple of it.
        grid: side of the square grid that the position embeddings were trained on, in patches.
        layerscale: whether each residual branch has a learned scale per channel (DINOv2).
        registers: extra tokens between CLS and the patches (0 or 4 in published weights).
        pos_interp: how position embeddings reach other grids, see `ops.position`.
        mlp_ratio: hidden width of the MLP over `dim`.
        eps: epsilon of the layer norms.
        conv_stem: patches come from stride-2 convolutions instead of one linear projection.
        pre_norm: whether tokens are normed before the first block, too, and patches projected
            without bias (CLIP).
        activation: of the MLPs, see `ops.activations`.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    grid: int
    layerscale: bool = False
    registers: int = 0
    pos_interp: PosInterp = "dino"
    mlp_ratio: float = 4.0
    eps: float = 1e-6
    conv_stem: bool = False
    pre_norm: bool = False
    activation: Activation = "gelu"


def vit_config(
    arch: str, patch: int, *, grid: int | None = None, conv_stem: bool = False
) -> VitConfig:
    """Describe a DINO network by the name of its size.

    Args:
        arch: a name in `ARCHITECTURES`.
        patch: side of a patch, in pixels.
        grid: side of the trained grid, in patches; by default that of 224x224 images.
        conv_stem: whether patches come from convolutions; then `patch` is a power of two.

    Returns:
        The configuration, without layer scale and registers.

    Raises:
        UsageError: the architecture is unknown, or the patch cannot be halved down to one pixel.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    if conv_stem and patch not in (2, 4, 8, 16, 32):
        raise UsageError(f"A convolutional stem needs a patch of 2, 4, 8, 16 or 32, got {patch}.")
    size = ARCHITECTURES[arch]
    config = VitConfig(patch, size.dim, size.depth, size.heads, grid=grid or 224 // patch)
    return replace(config, conv_stem=True, pos_interp="size") if conv_stem else config


class ViT(nn.Module):
    """A vision transformer; see `VitConfig` for what it can be.

    Source:
        Dosovitskiy et al. 2021; Caron et al. 2021 (DINO); Oquab et al. 2023 (DINOv2); Darcet et al.
        2023 (registers); Radford et al. 2021 (CLIP).
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, dim))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, dim))
        plain = partial(PatchEmbed, bias=not config.pre_norm)
        self.patch_embed = (ConvStem if config.conv_stem else plain)(config.patch, dim)
        self.norm_pre = nn.LayerNorm(dim, eps=config.eps) if config.pre_norm else nn.Identity()
        hidden = round(dim * config.mlp_ratio)
        block = partial(Block, dim, config.heads, hidden, eps=config.eps, scaled=config.layerscale)
        blocks = (block(activation=config.activation) for _ in range(config.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.drop = nn.Dropout(0.0)  # of what enters the first block

    def regularise(self, *, drop_path: float = 0.0, dropout: float = 0.0) -> None:
        """Set what is dropped in training, in the blocks and of the tokens that enter.

        Args:
            drop_path: share of the images whose branches the last block drops, 0..1.
            dropout: share dropped of the tokens that enter, of the attention, and after each linear
                layer, 0..1.
        """
        self.drop.p = dropout
        regularise(list(self.blocks), drop_path=drop_path, dropout=dropout)

    def forward(self, x: Tensor, want: Collection[str]) -> Features:
        """Compute features of a batch, and nothing that was not asked for.

        Args:
            x: normalised images, float32 (B, 3, H, W), H and W at least one patch; what exceeds a
                multiple of the patch is cut off at the bottom and the right.
            want: names out of `networks.reading.OUTPUTS`.

        Returns:
            The features asked for; the others are None.

        Raises:
            UsageError: an unknown name in `want`.
        """
        for name in want:
            if name not in OUTPUTS:
                raise unknown_name("feature", name, OUTPUTS)
        z, grid = self.trunk(x)
        block = cast(Block, self.blocks[-1])
        return read(block, self.norm, z, grid=grid, want=frozenset(want))

    def forward_all(
        self, x: Tensor, *, masked: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute CLS and patch tokens after the last norm, for training.

        Args:
            x: normalised images, float32 (B, 3, H, W).
            masked: bool (B, h, w), patches whose content is hidden.
            mask_token: float32 (D,), put in their place; needed with `masked`.

        Returns:
            CLS (B, D) and patch tokens (B, h, w, D).
        """
        z, (h, w) = self.embed(x, masked=masked, mask_token=mask_token)
        for block in self.blocks:
            z = block(z)
        z = self.norm(z)
        return z[:, 0], z[:, 1 + self.config.registers :].unflatten(1, (h, w))

    def embed(
        self, x: Tensor, *, masked: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, 3, H, W) into CLS, register and patch tokens, and the grid (h, w)."""
        patches: Tensor = self.patch_embed(x)  # (B, D, h, w)
        batch, _, h, w = patches.shape
        if masked is not None and mask_token is not None:
            hidden = mask_token.to(patches.dtype)[:, None, None]
            patches = torch.where(masked[:, None], hidden, patches)
        pos = interpolate_positions(self.pos_embed[:, 1:], (h, w), rule=self.config.pos_interp)
        parts = [(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)]
        if self.config.registers:  # registers have no position
            parts.append(self.register_tokens.expand(batch, -1, -1))
        parts.append(patches.flatten(2).transpose(1, 2) + pos)
        z = self.norm_pre(torch.cat(parts, dim=1))  # (B, 1 + registers + h*w, D)
        return self.drop(z), (h, w)

    def trunk(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Run all blocks but the last: tokens (B, T, D) that enter it, and the grid (h, w)."""
        z, grid = self.embed(x)
        for block in list(self.blocks)[:-1]:
            z = block(z)
        return z, grid

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """Compute the CLS token as if the last block showed it one region only, for every region.

        Args:
            context: `Features.context` of one image, float32 (T, D).
            masks: patches of every region, bool (R, h, w).

        Returns:
            After the last norm, float32 (R, D); registers are hidden, too.

        Raises:
            UsageError: masks of another grid than the image's.
        """
        cells = len(context) - 1 - self.config.registers
        if masks.ndim != 3 or masks.shape[1] * masks.shape[2] != cells:
            raise UsageError(
                f"Expected masks (R, h, w) of {cells} patches, as the image has; found "
                f"{tuple(masks.shape)}."
            )
        return within(cast(Block, self.blocks[-1]), self.norm, context, masks)


def random_vit(config: VitConfig, *, seed: int) -> ViT:
    """Build a network with random weights that depend on the seed alone.

    Linear weights, CLS and positions are truncated normal with deviation 0.02 as in DINO; before
    training, such a network maps all patches to nearly the same token.

    Args:
        config: the network.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU, trainable.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = ViT(config)
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "norm" in name or (name.endswith(("bias", "gamma")) and "patch_embed" not in name):
                value.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.startswith("patch_embed."):
                # torch's default for a convolution, which DINO keeps: 1/sqrt(inputs of a unit)
                weight = net.get_parameter(name.replace(".bias", ".weight"))
                bound = weight[0].numel() ** -0.5
                value.uniform_(-bound, bound, generator=generator)
            else:
                nn.init.trunc_normal_(value, std=0.02, generator=generator)
    return net
