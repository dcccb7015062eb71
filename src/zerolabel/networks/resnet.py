"""Residual networks of 18 to 101 layers; they compute the stages that are asked for.

State-dict names are torchvision's, which DINO and MoCo kept. Bottlenecks halve the resolution in
their 3x3 convolution ("v1.5"), as all three do; He et al. halve it in the first 1x1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name

STAGES = ("layer1", "layer2", "layer3", "layer4")
OUTPUTS = (*STAGES, "pooled", "logits")
STEM_STRIDE = 4  # of the first convolution and the pooling after it


@dataclass(frozen=True)
class ResNetConfig:
    """What fixes a network, apart from its weights.

    Attributes:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        depths: residual blocks of each of the four stages.
        width: channels after the first convolution; 64 in every published network.
        classes: outputs of the classifier `fc`; 0 for none.
        output_stride: pixels between neighbours of the last map: 32, 16 or 8. What stages no
            longer stride they dilate, so every location sees the pixels it saw before.
        fixed_norm: batch norms keep their running statistics, scale and shift while training.
        deep_stem: begin with three 3x3 convolutions ("V1c") in the place of one 7x7.
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    width: int = 64
    classes: int = 0
    output_stride: int = 32
    fixed_norm: bool = False
    deep_stem: bool = False


ARCHITECTURES = {
    "resnet-18": ResNetConfig("basic", (2, 2, 2, 2)),
    "resnet-34": ResNetConfig("basic", (3, 4, 6, 3)),
    "resnet-50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
    "resnet-101": ResNetConfig("bottleneck", (3, 4, 23, 3)),
}


class FixedNorm(nn.BatchNorm2d):
    """A batch norm that stays in evaluation mode and does not learn."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FixedNorm:
        """Stay in evaluation mode."""
        return super().train(False)


class Steps(NamedTuple):
    """How far a block's convolutions step: the stride, and dilations before and after it."""

    stride: int = 1
    before: int = 1
    after: int = 1


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one strides."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, steps: Steps, norm: type[nn.BatchNorm2d]):
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride=steps.stride, dilation=steps.before)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, dilation=steps.after)
        self.bn2 = norm(width)
        self.downsample = _shortcut(inputs, width, stride=steps.stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h/stride, w/stride), rounded up."""
        z = F.relu(self.bn1(self.conv1(x)), inplace=True)
        z = self.bn2(self.conv2(z))
        return F.relu(z.add_(self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 strides and dilates."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, steps: Steps, norm: type[nn.BatchNorm2d]):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, stride=steps.stride, dilation=steps.before)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = norm(outputs)
        self.downsample = _shortcut(inputs, outputs, stride=steps.stride, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4*width, h/stride, w/stride), rounded up."""
        z = F.relu(self.bn1(self.conv1(x)), inplace=True)
        z = F.relu(self.bn2(self.conv2(z)), inplace=True)
        z = self.bn3(self.conv3(z))
        return F.relu(z.add_(self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """A residual network; see `ResNetConfig` for what it can be.

    Attributes:
        config: what it was built from.
        channels: of every stage's map, by the stage's name.
        strides: pixels between neighbours of every stage's map, by the stage's name.

    Raises:
        UsageError: an output stride other than 32, 16 and 8.

    Source:
        He et al. 2016, Deep residual learning for image recognition, table 1; Chen et al. 2018
        (DeepLab), section 3.1, for dilation in place of strides; He et al. 2019, Bag of tricks for
        image classification, section 4.1, ResNet-C, for the deep stem.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        if config.output_stride not in (32, 16, 8):
            raise UsageError(
                f"Expected an output stride of 32, 16 or 8, found {config.output_stride}."
            )
        block = BasicBlock if config.block == "basic" else Bottleneck
        norm = FixedNorm if config.fixed_norm else nn.BatchNorm2d
        self.stem = _deep_stem(config.width, norm=norm) if config.deep_stem else None
        if self.stem is None:
            self.conv1 = _conv(3, config.width, 7, stride=2)
            self.bn1 = norm(config.width)
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        inputs, stride, dilation = config.width, STEM_STRIDE, 1
        for i, (name, depth) in enumerate(zip(STAGES, config.depths, strict=True)):
            width = config.width << i
            wanted = 1 if i == 0 else 2
            kept = wanted if stride * wanted <= config.output_stride else 1
            first = Steps(kept, before=dilation, after=dilation * wanted // kept)
            stride, dilation = stride * kept, first.after
            later = Steps(1, before=dilation, after=dilation)
            blocks = []
            for j in range(depth):
                blocks.append(block(inputs, width, steps=later if j else first, norm=norm))
                inputs = width * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
            self.channels[name], self.strides[name] = inputs, stride
        self.fc = nn.Linear(inputs, config.classes) if config.classes else None

    def forward(self, x: Tensor, want: Collection[str]) -> dict[str, Tensor]:
        """Compute what is asked for and nothing beyond it: later stages do not run.

        Args:
            x: normalised images, float32 (B, 3, H, W).
            want: names out of `OUTPUTS`; "logits" needs a classifier.

        Returns:
            By name, float32: a stage's map (B, C, ceil(H/s), ceil(W/s)), C of `channels` and s of
            `strides`, 0 or more as it has passed a rectifier; "pooled" (B, C), the last map's mean
            over all locations; "logits" (B, classes).

        Raises:
            UsageError: an unknown name in `want`, or "logits" of a network without classifier.
        """
        depth = self._depth(want)
        found: dict[str, Tensor] = {}
        if not depth:
            return found
        z = self.bn1(self.conv1(x)) if self.stem is None else self.stem(x)
        z = F.max_pool2d(F.relu(z, inplace=True), kernel_size=3, stride=2, padding=1)
        for name in STAGES[:depth]:
            z = cast(nn.Module, getattr(self, name))(z)
            if name in want:
                found[name] = z
        if "pooled" in want or "logits" in want:
            z = z.mean((2, 3))
        if "pooled" in want:
            found["pooled"] = z
        if "logits" in want and self.fc is not None:
            found["logits"] = self.fc(z)
        return found

    def _depth(self, want: Collection[str]) -> int:
        """Count the stages that must run, after checking the names."""
        for name in want:
            if name not in OUTPUTS:
                raise unknown_name("feature", name, OUTPUTS)
        if "logits" in want and self.fc is None:
            raise UsageError("This network has no classifier (0 classes): ask for 'pooled'.")
        return max((min(1 + OUTPUTS.index(name), len(STAGES)) for name in want), default=0)


def random_resnet(config: ResNetConfig, *, seed: int) -> ResNet:
    """Build a network with random weights that depend on the seed alone.

    Args:
        config: the network.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU in training mode, trainable but for norms that are fixed.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = ResNet(config)
    net = net.to_empty(device="cpu")
    reset_resnet(net, generator=torch.Generator().manual_seed(seed))
    return net


def reset_resnet(net: nn.Module, *, generator: torch.Generator) -> None:
    """Draw a network's weights: convolutions as in the source below, norms the identity.

    Args:
        net: changed in place.
        generator: on the network's device.

    Source:
        He et al. 2015, Delving deep into rectifiers, section 2.2, the variant that keeps the
        deviation of gradients.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # ones and zeros; the running statistics, too
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.01, generator=generator)
            nn.init.zeros_(module.bias)


def _conv(inputs: int, outputs: int, side: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is as large as its input, over the stride."""
    pad = dilation * (side // 2)
    return nn.Conv2d(
        inputs, outputs, side, stride=stride, padding=pad, dilation=dilation, bias=False
    )


def _deep_stem(width: int, *, norm: type[nn.BatchNorm2d]) -> nn.Sequential:
    """Three 3x3 convolutions, the first one strides; names stem.0, .1, .3, .4, .6 and .7."""
    half = width // 2
    return nn.Sequential(
        *(_conv(3, half, 3, stride=2), norm(half), nn.ReLU(inplace=True)),
        *(_conv(half, half, 3), norm(half), nn.ReLU(inplace=True)),
        *(_conv(half, width, 3), norm(width)),
    )


def _shortcut(
    inputs: int, outputs: int, *, stride: int, norm: type[nn.BatchNorm2d]
) -> nn.Sequential:
    """A projection where a block changes the shape (names downsample.0 and .1), else nothing."""
    if inputs == outputs and stride == 1:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride=stride), norm(outputs))
