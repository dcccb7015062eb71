"""From pixels to patch tokens: one linear projection, or a few convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cuts an image into patches, dropping the rest at the border, and projects each."""

    def __init__(self, patch: int, dim: int, *, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w)."""
        out: Tensor = self.proj(x)
        return out


class StemStage(nn.Module):
    """Halves the resolution: 4x4 convolution of stride 2, norm over all channels, GELU.

    An even kernel keeps every output in the middle of the pixels it stands for (a 3x3 one would
    look to the upper left, by half a patch in the end), and repeated border pixels leave no frame
    around the features, as zeros would.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel_size=4,
            stride=2,
            padding=1,
            padding_mode="replicate",
            bias=False,
        )
        self.norm = nn.GroupNorm(1, outputs)  # no statistics of the batch: one image is enough

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/2, W/2); H and W are even."""
        return F.gelu(self.norm(self.conv(x)))


class ConvStem(nn.Module):
    """Turns patches into tokens by halving the image until a patch is one pixel.

    The widths double up to D, as in recipe 48, 96, 192 for D = 192 and patches of 8 pixels.

    Source:
        Xiao et al. 2021, Early convolutions help transformers see better; their kernels are 3x3.
    """

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        count = patch.bit_length() - 1
        widths = [3, *(dim >> (count - 1 - i) for i in range(count))]
        self.stages = nn.ModuleList(StemStage(*pair) for pair in pairwise(widths))
        self.proj = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w)."""
        h, w = (side // self.patch * self.patch for side in x.shape[-2:])
        x = x[..., :h, :w]
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.proj(x)
        return out
