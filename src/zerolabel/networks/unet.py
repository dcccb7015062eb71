"""U-Net, and W-Net: one U-Net from an image to K channels, another one back to the image.

At depth 4 a W-Net has 18 modules of two 3x3 convolutions each; with 8 up-samplings and two 1x1
convolutions at the ends that makes 46 convolution layers. Modules 1 and 9 are the first and the
last of the encoder, 10 and 18 those of the decoder; all others are depthwise separable. Shapes:
`B` images, `H W` pixels, `K` channels that stand for categories.

Source: Xia and Kulis, "W-Net: a deep model for fully unsupervised image segmentation", 2017,
section 3; Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
2015, figure 1, for widths and skips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What fixes a U-Net, apart from its weights.

    Attributes:
        bands: channels of an image.
        outputs: channels of the result.
        base: channels of the first module; each module on the way down has twice as many.
        depth: poolings on the way down; there are 2 * depth + 1 modules.
        separable: all modules but the first and the last are depthwise separable.
        norm_last: convolution, rectifier, norm, as the paper has it; else the norm comes before
            the rectifier, as in the code of "Context is all you need".
        dropout: share of what the two deepest modules on the way down (4 and 5, 13 and 14) give
            that is dropped while training. The paper names the share (0.65) but not the place;
            U-Net drops at the end of its way down.
    """

    bands: int = 3
    outputs: int
    base: int = 64
    depth: int = 4
    separable: bool = True
    norm_last: bool = True
    dropout: float = 0.65

    def __post_init__(self) -> None:
        if min(self.bands, self.outputs, self.base, self.depth) < 1:
            found = f"{self.bands}, {self.outputs}, {self.base} and {self.depth}"
            raise UsageError(
                f"Expected bands, outputs, base and depth of 1 or more, found {found}."
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"Expected a dropout from 0 up to below 1, found {self.dropout}.")


class ConvLayer(nn.Module):
    """A 3x3 convolution, ordinary or depthwise and pointwise, with its rectifier and its norm."""

    def __init__(self, inputs: int, outputs: int, *, separable: bool, norm_last: bool) -> None:
        super().__init__()
        self.norm_last = norm_last
        # a norm right after the convolution would take its bias away again
        self.depthwise = (
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
            if separable
            else nn.Identity()
        )
        self.conv = (
            nn.Conv2d(inputs, outputs, 1, bias=norm_last)
            if separable
            else nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm_last)
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        z: Tensor = self.conv(self.depthwise(x))
        if self.norm_last:
            return self.norm(F.relu(z, inplace=True))  # type: ignore[no-any-return]
        return F.relu(self.norm(z), inplace=True)


class ConvModule(nn.Sequential):
    """Two convolution layers, one after the other."""

    def __init__(self, inputs: int, outputs: int, *, separable: bool, norm_last: bool) -> None:
        super().__init__(
            ConvLayer(inputs, outputs, separable=separable, norm_last=norm_last),
            ConvLayer(outputs, outputs, separable=separable, norm_last=norm_last),
        )


class UNet(nn.Module):
    """A U-Net; see `UNetConfig` for what it can be.

    Attributes:
        config: what it was built from.
        down: modules on the way down, the bottom included.
        rise: up-sampling by transposed 2x2 convolutions, which halve the channels.
        up: modules on the way up; each sees what has risen beside what was there before pooling.
        head: a 1x1 convolution to the outputs.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base << level for level in range(config.depth + 1)]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = widths[level - 1] if level else config.bands
            self.down.append(self._module(inputs, width, separable=level > 0))
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(config.depth)):
            width = widths[level]
            self.rise.append(nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.up.append(self._module(2 * width, width, separable=level > 0))
        self.head = nn.Conv2d(config.base, config.outputs, 1)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs of every pixel.

        Args:
            x: normalised images, float32 (B, bands, H, W) of any size. Below and on the right they
                are continued to a multiple of 2**depth: by reflection, or where an image is too
                small for that by its last pixel.

        Returns:
            float32 (B, outputs, H, W), of any sign.

        Raises:
            UsageError: another number of bands, or a training batch with so few pixels that a norm
                has nothing to compare.
        """
        config = self.config
        if x.shape[1] != config.bands:
            raise UsageError(f"Expected images of {config.bands} bands, found {x.shape[1]}.")
        height, width = x.shape[2:]
        z = _continued(x, 1 << config.depth)
        if self.training and len(z) * z[0, 0].numel() == 1 << 2 * config.depth:
            raise UsageError(
                f"One image of {height} x {width} is one location at the bottom of the network: "
                "train on larger images, or on more than one at a time."
            )
        if z.device.type == "cpu":
            z = z.contiguous(memory_format=torch.channels_last)  # 1.4 times faster there
        before: list[Tensor] = []
        for level, module in enumerate(self.down):
            z = module(F.max_pool2d(z, 2) if level else z)
            z = self.drop(z) if level + 1 >= config.depth else z
            before.append(z)
        before.pop()
        for rise, module in zip(self.rise, self.up, strict=True):
            z = module(torch.cat([before.pop(), rise(z)], dim=1))
        found: Tensor = self.head(z)
        return found[:, :, :height, :width]

    def _module(self, inputs: int, outputs: int, *, separable: bool) -> ConvModule:
        config = self.config
        return ConvModule(
            inputs, outputs, separable=separable and config.separable, norm_last=config.norm_last
        )


class WNet(nn.Module):
    """Two U-Nets, one behind the other; the softmax between them belongs to this network.

    Attributes:
        encoder: bands to K logits.
        decoder: K probabilities to bands, linear at the end.
    """

    def __init__(self, config: UNetConfig) -> None:
        """Build both; `config` is the encoder's, the decoder's is the same but for its ends."""
        super().__init__()
        self.encoder = UNet(config)
        self.decoder = UNet(replace(config, bands=config.outputs, outputs=config.bands))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute channels, and the images that can be told from them.

        Args:
            x: normalised images, float32 (B, bands, H, W).

        Returns:
            Logits, float32 (B, K, H, W), without the softmax that the decoder sees; and the
            reconstruction, float32 (B, bands, H, W), normalised like `x`.
        """
        logits = self.encoder(x)
        return logits, self.decoder(logits.softmax(dim=1))


def random_unet(config: UNetConfig, *, seed: int) -> UNet:
    """Build a U-Net with random weights that depend on the seed alone; see `random_wnet`."""
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = UNet(config)
    return _drawn(net, seed=seed)


def random_wnet(config: UNetConfig, *, seed: int) -> WNet:
    """Build a W-Net with random weights that depend on the seed alone.

    Args:
        config: of the encoder.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU in training mode.

    Source:
        Ronneberger et al. 2015, section 3: deviations of sqrt(2 / inputs of a unit); here without
        the 2 where no rectifier follows.
    """
    with torch.device("meta"):
        net = WNet(config)
    return _drawn(net, seed=seed)


def _drawn(net: Net, *, seed: int) -> Net:
    """Give a network without values its weights: norms the identity, biases 0."""
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, module in net.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # ones and zeros; the running statistics, too
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                # one input reaches each output of a transposed convolution that strides by its side
                rising = isinstance(module, nn.ConvTranspose2d)
                inputs = module.in_channels if rising else module.weight[0].numel()
                gain = 2.0 if name.endswith("conv") else 1.0
                module.weight.normal_(std=(gain / inputs) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return net


def _continued(x: Tensor, multiple: int) -> Tensor:
    """Continue images below and on the right to sides that are multiples."""
    height, width = x.shape[2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, below), mode=mode)
