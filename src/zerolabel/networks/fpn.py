"""Feature pyramid: the maps of a residual network's stages, each told what the coarser ones saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.resnet import STAGES, ResNet, ResNetConfig, reset_resnet


class FPN(nn.Module):
    """Lateral 1x1 convolutions, a way from coarse to fine, 3x3 convolutions to smooth.

    No norm and no rectifier, as in the paper.

    Source:
        Lin et al. 2017, Feature pyramid networks for object detection, section 3 and figure 3;
        `inner_blocks` are its lateral connections, `layer_blocks` what it appends to each map.
    """

    def __init__(self, channels: Sequence[int], *, dim: int = 256) -> None:
        super().__init__()
        self.dim = dim
        self.inner_blocks = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.layer_blocks = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in channels)

    def merge(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Project every map and add the next coarser result to it, enlarged.

        Args:
            maps: finest first, float32 (B, C_i, h_i, w_i), C_i as the constructor's channels.

        Returns:
            As many, of the same sizes, (B, dim, h_i, w_i), finest first, not smoothed yet.

        Raises:
            UsageError: another number of maps than of channels.
        """
        if len(maps) != len(self.inner_blocks):
            raise UsageError(
                f"This pyramid has {len(self.inner_blocks)} levels, but {len(maps)} maps came."
            )
        merged: list[Tensor] = []
        for lateral, x in zip(reversed(self.inner_blocks), reversed(maps), strict=True):
            z: Tensor = lateral(x)
            if merged:  # to the finer map's size rather than by 2: odd sizes, dilated stages
                z = z + F.interpolate(merged[-1], size=z.shape[-2:], mode="nearest")
            merged.append(z)
        return merged[::-1]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid of maps (see `merge`): (B, dim, h_i, w_i), finest first."""
        merged = self.merge(maps)
        return tuple(smooth(z) for smooth, z in zip(self.layer_blocks, merged, strict=True))

    def finest(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the finest level alone, (B, dim, h, w); the others are not smoothed."""
        out: Tensor = self.layer_blocks[0](self.merge(maps)[0])
        return out


@dataclass(frozen=True)
class PyramidConfig:
    """What fixes a residual network with its pyramid.

    Attributes:
        body: the residual network.
        dim: channels of the pyramid.
        finest: the finest stage in the pyramid; all coarser ones are in it, too.
    """

    body: ResNetConfig
    dim: int = 256
    finest: str = STAGES[0]


class ResNetFPN(nn.Module):
    """A residual network and the pyramid over its stages.

    Raises:
        UsageError: no stage is called as `finest` says.

    Source:
        Lin et al. 2017; its finest level is the encoder "ResNet-50 with FPN" of Yin et al. 2022
        (TransFGU), table 4.
    """

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        if config.finest not in STAGES:
            raise unknown_name("stage", config.finest, STAGES)
        self.config = config
        self.stages = STAGES[STAGES.index(config.finest) :]
        self.body = ResNet(config.body)
        channels = [self.body.channels[name] for name in self.stages]
        self.fpn = FPN(channels, dim=config.dim)

    @property
    def patch(self) -> int:
        """Pixels between neighbouring patch features."""
        return self.body.strides[self.stages[0]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the pyramid, finest level first.

        Args:
            x: normalised images, float32 (B, 3, H, W).

        Returns:
            For every stage, from `config.finest` on, float32 (B, dim, ceil(H/s), ceil(W/s)), s the
            stage's stride.
        """
        pyramid: tuple[Tensor, ...] = self.fpn(self._maps(x))
        return pyramid

    def patches(self, x: Tensor) -> Tensor:
        """Compute the finest level as patch features; the coarser levels are not smoothed.

        Args:
            x: normalised images, float32 (B, 3, H, W).

        Returns:
            float32 (B, ceil(H/patch), ceil(W/patch), dim).
        """
        return self.fpn.finest(self._maps(x)).permute(0, 2, 3, 1)  # (B, h, w, dim)

    def _maps(self, x: Tensor) -> list[Tensor]:
        found = self.body(x, want=self.stages)
        return [found[name] for name in self.stages]


def random_pyramid(config: PyramidConfig, *, seed: int) -> ResNetFPN:
    """Build a network and its pyramid with random weights that depend on the seed alone.

    Args:
        config: the network and its pyramid.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU in training mode. Weights of the pyramid keep the deviation of a map
        whose values are independent (1 over the root of a unit's inputs), biases are zero. Replace
        `body` to put a pyramid over weights that are there already.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = ResNetFPN(config)
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    reset_resnet(net.body, generator=generator)
    for conv in (*net.fpn.inner_blocks, *net.fpn.layer_blocks):
        nn.init.normal_(conv.weight, std=conv.weight[0].numel() ** -0.5, generator=generator)
        nn.init.zeros_(conv.bias)
    return net
