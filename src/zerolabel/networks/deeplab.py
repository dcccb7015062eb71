"""DeepLab: a dilated residual network, and convolutions of several dilations on its last map.

What they give here is no score but a vector at every place, e.g. in the space of CLIP's texts.
Shapes: `B` images, `H W` pixels, `h w` grid of the last map, `P` channels of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError
from zerolabel.networks.resnet import ARCHITECTURES, STAGES, ResNet, ResNetConfig, reset_resnet

LAST = STAGES[-1]
DILATIONS = (6, 12, 18, 24)


def dilated(arch: str, *, output_stride: int = 8) -> ResNetConfig:
    """Describe a published residual network, dilated.

    Args:
        arch: a name in `networks.resnet.ARCHITECTURES`.
        output_stride: pixels between neighbours of the last map: 32, 16 or 8.

    Returns:
        The configuration.
    """
    return replace(ARCHITECTURES[arch], output_stride=output_stride)


@dataclass(frozen=True, kw_only=True)
class DeepLabConfig:
    """What fixes a network, apart from its weights.

    Attributes:
        resnet: the body; without classifier.
        out: P.
        dilations: of the convolutions on its last map.
        norm: a batch norm after each of them.
        relu: a rectifier after each of them, so that no value of the sum is below 0.
    """

    resnet: ResNetConfig = field(default_factory=lambda: dilated("resnet-50"))
    out: int = 512
    dilations: tuple[int, ...] = DILATIONS
    norm: bool = True
    relu: bool = True

    def __post_init__(self) -> None:
        if not self.dilations or min(self.out, *self.dilations) < 1:
            raise UsageError(
                f"Expected 1 or more channels and dilations, found {self.out} and {self.dilations}."
            )
        object.__setattr__(self, "resnet", replace(self.resnet, classes=0))


class Branch(nn.Module):
    """A 3x3 convolution that keeps the size, a batch norm and a rectifier, as far as asked for."""

    def __init__(self, inputs: int, outputs: int, dilation: int, *, norm: bool, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, 3, padding=dilation, dilation=dilation, bias=not norm
        )
        self.bn = nn.BatchNorm2d(outputs) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        z = self._convolve(x)
        if self.bn is not None:
            z = self.bn(z)
        return F.relu(z, inplace=True) if self.relu else z

    def _convolve(self, x: Tensor) -> Tensor:
        """Leave out rows and columns of the kernel that reach beyond any map of this size."""
        dilation = self.conv.dilation
        cuts = [d >= side for d, side in zip(dilation, x.shape[2:], strict=True)]
        rows, columns = (slice(1, 2) if cut else slice(None) for cut in cuts)
        padding = [0 if cut else d for cut, d in zip(cuts, dilation, strict=True)]
        weight = self.conv.weight[:, :, rows, columns]
        return F.conv2d(x, weight, self.conv.bias, padding=padding, dilation=dilation)


class Aspp(nn.ModuleList):
    """Atrous spatial pyramid pooling: the sum of convolutions of several dilations.

    Source:
        Chen et al. 2018, DeepLab, section 3.2. Batch norm and rectifier are those of the students
        of MaskCLIP and ReCLIP++; the paper sums the scores of four branches.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dilations: Sequence[int],
        *,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        super().__init__(Branch(inputs, outputs, d, norm=norm, relu=relu) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        first, *others = self
        total: Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class DeepLabV2(nn.Module):
    """A dilated residual network with `Aspp` on its last map.

    Names: `backbone.*` as torchvision's ResNet, `aspp.<branch>.conv.*` and `aspp.<branch>.bn.*`,
    and `settings`, int64: what shapes do not tell, which is the output stride, whether branches
    have rectifiers, and their dilations.

    Attributes:
        config: what it was built from.
        stride: pixels between neighbours of the result.

    Source:
        Chen et al. 2018, DeepLab: Semantic image segmentation with deep convolutional nets, atrous
        convolution, and fully connected CRFs.
    """

    settings: Tensor

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.resnet)
        self.stride = self.backbone.strides[LAST]
        inputs = self.backbone.channels[LAST]
        self.aspp = Aspp(inputs, config.out, config.dilations, norm=config.norm, relu=config.relu)
        self.register_buffer("settings", torch.tensor(settings_of(config)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute a vector at every place.

        Args:
            x: normalised images, float32 (B, 3, H, W).

        Returns:
            float32 (B, P, ceil(H/stride), ceil(W/stride)), 0 or more if branches have rectifiers.
        """
        z: Tensor = self.aspp(self.backbone(x, want=(LAST,))[LAST])
        return z


def settings_of(config: DeepLabConfig) -> list[int]:
    """What the shapes of a network's tensors do not tell of its configuration."""
    return [config.resnet.output_stride, int(config.relu), *config.dilations]


def random_deeplab(config: DeepLabConfig, *, seed: int) -> DeepLabV2:
    """Build a network with random weights that depend on the seed alone.

    Args:
        config: the network.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network on the CPU in training mode: convolutions as `reset_resnet` draws them, biases
        0, norms the identity. Replace the weights of `backbone` to start from a trained body.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = DeepLabV2(config)
    net = net.to_empty(device="cpu")
    net.settings.copy_(torch.tensor(settings_of(config)))
    reset_resnet(net, generator=torch.Generator().manual_seed(seed))
    for module in net.aspp.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return net
