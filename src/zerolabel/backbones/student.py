"""Students of CLIP: where they start from, and what they learned as a backbone for probes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones import resnet_layouts
from zerolabel.backbones.layouts import load_exactly, some
from zerolabel.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from zerolabel.backbones.weights import digest, load_file
from zerolabel.errors import DataError, UsageError, WeightsError
from zerolabel.networks.bias import BiasConfig, Rectifier
from zerolabel.networks.deeplab import DeepLabConfig, DeepLabV2, random_deeplab, settings_of
from zerolabel.networks.distilled import BIASED, Distilled, StudentHead
from zerolabel.store import below
from zerolabel.types import Features

PREFIX = "student."  # of a student's tensors among those of a model
BRANCH = re.compile(r"aspp\.(\d+)\.conv\.weight$")


def start(config: DeepLabConfig, weights: str | Path | None = None, *, seed: int) -> DeepLabV2:
    """Build a student that has learned nothing yet, or only what a residual network knows.

    Args:
        config: the network; without a file all of it, with one all but the body's layers.
        weights: a file with a residual network in any layout of `resnet_layouts`, which decides
            blocks, depths, width and stem; empty or None for random weights.
        seed: of what is random.

    Returns:
        The network on the CPU in training mode.

    Raises:
        WeightsError: the file cannot be read, or holds no residual network.
    """
    if not weights:
        return random_deeplab(config, seed=seed)
    state = resnet_layouts.convert(load_file(weights))
    found = resnet_layouts.infer_config(state)
    asked = config.resnet
    body = replace(found, output_stride=asked.output_stride, fixed_norm=asked.fixed_norm)
    net = random_deeplab(replace(config, resnet=body), seed=seed)
    net.backbone = resnet_layouts.build(state, net.config.resnet, frozen=False)
    return net


def normalise(images: Tensor) -> Tensor:
    """Bring uint8 RGB images (B, 3, H, W) to what residual networks of ImageNet were trained on."""
    mean, std = (
        torch.tensor(colour, device=images.device)[:, None, None]
        for colour in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return images.float().div_(255).sub_(mean).div_(std)


def infer_config(state: Mapping[str, Tensor]) -> DeepLabConfig:
    """Tell a student from its tensors.

    Args:
        state: tensors by the names of `DeepLabV2`.

    Returns:
        The configuration; where there are no `settings`, with the default output stride, dilations
        and rectifiers.

    Raises:
        WeightsError: these are no tensors of a student.
    """
    branches = sorted(name for name in state if BRANCH.match(name))
    if not branches:
        raise WeightsError(
            f"These are not the weights of a student: aspp.0.conv.weight expected, "
            f"{some(state) or 'nothing'} found. Pass the model of a distillation."
        )
    body = replace(resnet_layouts.infer_config(below(state, "backbone.")), output_stride=8)
    config = DeepLabConfig(
        resnet=body, out=len(state[branches[0]]), norm="aspp.0.bn.weight" in state
    )
    if "settings" not in state:
        return config
    stride, relu, *dilations = state["settings"].tolist()
    return replace(
        config,
        resnet=replace(body, output_stride=stride),
        relu=bool(relu),
        dilations=tuple(dilations),
    )


def build(state: Mapping[str, Tensor]) -> DeepLabV2:
    """Build the student that holds these weights, frozen and in evaluation mode.

    Args:
        state: tensors by the names of `DeepLabV2`; the network shares their memory.

    Returns:
        The network on the device of the weights.

    Raises:
        WeightsError: these are no tensors of a student, or one is missing or of another shape.
    """
    config = infer_config(state)
    with torch.device("meta"):  # no memory for weights about to be replaced
        net = DeepLabV2(config)
    held = dict(state) | {"settings": state.get("settings", torch.tensor(settings_of(config)))}
    load_exactly(net, held, what=str(config))
    return net.eval().requires_grad_(False)


def rebuild(
    weights: Mapping[str, Tensor], *, head: str, unit: bool = True, bias: BiasConfig | None = None
) -> Distilled:
    """Build a student with its head from what `DistilTrainer.weights` returned, to predict with it.

    Args:
        weights: tensors by the names "student.*" and "head.*"; their memory is shared.
        head: kind of the head it learned with, a name in `networks.distilled.HEADS`.
        unit: whether that head saw vectors of length 1.
        bias: settings of the rectifier that the head inherited, where it did.

    Returns:
        Both, frozen and in evaluation mode.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
        UsageError: a head with a bias without its settings.
    """
    held = below(weights, "head.")
    if "queries" not in held:
        raise WeightsError(f"Expected head.queries among the weights, found {some(weights)}.")
    with torch.device("meta"):
        made = StudentHead(
            head,
            torch.empty(held["queries"].shape),
            references=torch.empty(held["queries"].shape) if head in BIASED else None,
            rectifier=Rectifier(bias) if bias is not None else None,
            unit=unit,
        )
    load_exactly(made, held, what=f"the head {head!r}")
    net = Distilled(build(below(weights, PREFIX)), made)
    return net.eval().requires_grad_(False)


class StudentBackbone:
    """What a student has learned, frozen, with ImageNet's normalisation.

    Attributes:
        name: what the user called it.
        gives: patch tokens only.
        learns: images it wants to learn from: none, it comes trained.
        stride: pixels per cell of the feature grid.
        dim: channels of a token, P.
        digest: hash of the weights.
        device: where it computes and leaves its results.
    """

    gives = frozenset({"tokens"})
    learns = 0

    def __init__(self, name: str, net: DeepLabV2, *, device: torch.device | str = "cpu") -> None:
        self.name = name
        self.digest = digest(net.state_dict())
        self.device = torch.device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.stride, self.dim = net.stride, net.config.out

    def encode(self, images: Tensor, *, want: Collection[str]) -> Features:
        """Compute patch tokens of a batch.

        Args:
            images: uint8 RGB (B, 3, H, W), at least `stride` pixels high and wide.
            want: "tokens", or nothing.

        Returns:
            Tokens float32 (B, ceil(H/stride), ceil(W/stride), dim), not normalised, on the
            backbone's device.

        Raises:
            UsageError: another feature, or images of another type or shape.
            DataError: images smaller than a cell of the grid.
        """
        if set(want) - self.gives:
            raise UsageError(
                f"{self.name} gives patch tokens only, found {', '.join(sorted(want))}. Use "
                "another --backbone."
            )
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            found = f"{images.dtype} {tuple(images.shape)}"
            raise UsageError(f"Expected uint8 images (B, 3, H, W), found {found}.")
        if min(images.shape[-2:]) < self.stride:
            raise DataError(
                f"{self.name} needs images of at least {self.stride}x{self.stride} pixels, found "
                f"{images.shape[-2]}x{images.shape[-1]}. Enlarge them first."
            )
        if not want:
            return Features()
        # Not inference_mode: autograd refuses to save its tensors when heads train on features.
        with torch.no_grad():
            found_maps: Tensor = self.net(self.prepare(images))
        return Features(tokens=found_maps.permute(0, 2, 3, 1).contiguous())  # (B, h, w, dim)

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """Refuse: a convolutional network has no CLS token that could look at a region."""
        raise UsageError(
            f"{self.name} has no CLS token to describe a region with. Use another --backbone, or "
            "--describe pool."
        )

    def prepare(self, images: Tensor) -> Tensor:
        """Bring uint8 RGB images (B, 3, H, W) to the device, as the network was trained on them."""
        return normalise(images.to(self.device))

    def learn(self, batches: Iterable[Tensor], *, seed: int) -> StudentBackbone:
        """Do nothing: this backbone comes trained."""
        return self

    def state(self) -> dict[str, Tensor]:
        """Nothing: a saved model refers to these weights by name and digest."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> StudentBackbone:
        """Do nothing: `state` is empty."""
        return self


def load_student(
    path: str | Path, *, device: torch.device | str = "cpu", name: str = "student"
) -> StudentBackbone:
    """Load what a distillation learned as a backbone, e.g. for a linear probe.

    Args:
        path: a model's weights, among them "student.*"; whatever else is in it is left alone.
        device: where to compute.
        name: what to call it.

    Returns:
        The backbone.

    Raises:
        WeightsError: the file cannot be read, or holds no student.
    """
    state = below(load_file(path), PREFIX)
    if not state:
        raise WeightsError(
            f"{path} holds no student: no name begins with {PREFIX!r}. Pass the model.safetensors "
            "of maskclip+, or of reclip or reclip++ with --set student=resnet-50."
        )
    return StudentBackbone(name, build(state), device=device)
