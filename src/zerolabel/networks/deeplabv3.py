"""DeepLabV3: a dilated residual network, a pyramid of dilations and the whole image, a classifier.

Names of tensors are those of torchvision's `deeplabv3_resnet50`, without its auxiliary classifier.
Shapes: `B` images, `H W` pixels, `h w` grid of the last map, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.errors import UsageError
from zerolabel.networks.deeplab import LAST, dilated
from zerolabel.networks.resnet import ResNet, ResNetConfig, reset_resnet

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # of the dilated convolutions, by output stride


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config:
    """What fixes a network, apart from its weights.

    Attributes:
        classes: K.
        resnet: the body, of output stride 8 or 16; without classifier.
        width: channels of every branch, and of what they are projected to.
        dropout: share of the projected channels' values that is dropped while training.
    """

    classes: int
    resnet: ResNetConfig = field(default_factory=lambda: dilated("resnet-50"))
    width: int = 256
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.resnet.output_stride not in RATES:
            raise UsageError(
                f"Expected an output stride of 8 or 16, found {self.resnet.output_stride}."
            )
        if min(self.classes, self.width) < 1 or not 0 <= self.dropout < 1:
            raise UsageError(
                "Expected 1 or more classes and channels and a dropout from 0 up to below 1, found "
                f"{self.classes}, {self.width} and {self.dropout}."
            )
        object.__setattr__(self, "resnet", replace(self.resnet, classes=0))

    @property
    def rates(self) -> tuple[int, ...]:
        """Dilations of the pyramid."""
        return RATES[self.resnet.output_stride]


class ImagePooling(nn.Sequential):
    """What the whole image is like, said at every place; names 1 (convolution) and 2 (norm)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *_unit(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        z = x
        for layer in self:
            z = layer(z)
        # one place upsampled bilinearly is that place everywhere
        return z.expand(-1, -1, x.shape[2], x.shape[3])


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling with a 1x1 convolution and image features, side by side.

    Source:
        Chen et al. 2017, section 3.3 and figure 5: the branches are concatenated, then projected.
    """

    def __init__(
        self, inputs: int, width: int, rates: Sequence[int], *, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Sequential(*_unit(inputs, width, 1))])
        self.convs.extend(nn.Sequential(*_unit(inputs, width, 3, rate=r)) for r in rates)
        self.convs.append(ImagePooling(inputs, width))
        project = _unit(len(self.convs) * width, width, 1)
        self.project = nn.Sequential(*project, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        out: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return out


class DeepLabV3(nn.Module):
    """A dilated residual network that scores classes.

    Attributes:
        config: what it was built from.
        patch: images need no padding to multiples of anything.
        stride: pixels between neighbours of the result.

    Source:
        Chen et al. 2017, Rethinking atrous convolution for semantic image segmentation, without
        multi-grid.
    """

    patch = 1

    def __init__(self, config: DeepLabV3Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.resnet)
        self.stride = self.backbone.strides[LAST]
        inputs, width = self.backbone.channels[LAST], config.width
        self.classifier = nn.Sequential(
            Pyramid(inputs, width, config.rates, dropout=config.dropout),
            *_unit(width, width, 3),
            nn.Conv2d(width, config.classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Score classes.

        Args:
            x: normalised images, float32 (B, 3, H, W); two or more while training.

        Returns:
            Logits, float32 (B, K, ceil(H/stride), ceil(W/stride)).

        Raises:
            UsageError: one image in training, of whose mean the pyramid's norm can learn nothing.
        """
        if self.training and len(x) < 2:
            raise UsageError(
                "DeepLabV3 compares images of a step with each other and found one. Give a batch "
                "of 2 or more."
            )
        out: Tensor = self.classifier(self.backbone(x, want=(LAST,))[LAST])
        return out


def random_deeplabv3(config: DeepLabV3Config, *, seed: int) -> DeepLabV3:
    """Build a network with random weights that depend on the seed alone.

    Args:
        config: the network.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU in training mode. Replace the weights of `backbone` to start from a
        trained body.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = DeepLabV3(config)
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    reset_resnet(net, generator=generator)
    last = cast(nn.Conv2d, net.classifier[-1])
    assert last.bias is not None  # it was asked for
    nn.init.normal_(last.weight, std=0.01, generator=generator)
    nn.init.zeros_(last.bias)
    return net


def _unit(inputs: int, outputs: int, side: int, *, rate: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, its norm and a rectifier."""
    pad = rate * (side // 2)
    conv = nn.Conv2d(inputs, outputs, side, padding=pad, dilation=rate, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
