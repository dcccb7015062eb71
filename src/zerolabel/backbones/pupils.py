"""Networks that learn masks: what they start from, and back from the tensors of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from zerolabel.backbones import SHIPPED, layouts, resnet_layouts
from zerolabel.backbones.layouts import load_exactly, some
from zerolabel.backbones.weights import cached, digest, load_file
from zerolabel.errors import UsageError, WeightsError, unknown_name
from zerolabel.networks.deeplab import dilated
from zerolabel.networks.deeplabv3 import RATES, DeepLabV3, DeepLabV3Config, random_deeplabv3
from zerolabel.networks.light import Light, LightConfig, random_light
from zerolabel.networks.resnet import ARCHITECTURES as RESNETS
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.networks.vit import vit_config
from zerolabel.store import below

LIGHT, DEEP = "light", "deeplabv3"
NETWORKS = (LIGHT, DEEP)
EMBEDDED, RANDOM = SHIPPED, "random"  # starts; others are files
SMALL = "small"  # a body for tests, and where seconds count
TINY = ResNetConfig("basic", (1, 1, 1, 1), width=16)
HEADS = {LIGHT: "decoder.head.bias", DEEP: "classifier.4.bias"}  # a number for every class
PATCH = 8  # of a light student that starts from nothing

Pupil = DeepLabV3 | Light


@dataclass(frozen=True, kw_only=True)
class Student:
    """Which network learns.

    Attributes:
        network: "light" or "deeplabv3".
        arch: its encoder or body where it starts from random weights: "vit-nano", "vit-mini",
            "vit-tiny" or "vit-small" for "light"; "small", "resnet-18", "resnet-34", "resnet-50" or
            "resnet-101" for "deeplabv3". Weights decide by themselves.
        output_stride: of "deeplabv3": 8 or 16 pixels.
        start: "embedded" (for "light"), "random", or a weights file of the encoder or body.
    """

    network: str = LIGHT
    arch: str = "vit-mini"
    output_stride: int = 8
    start: str = EMBEDDED

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise unknown_name("network", self.network, NETWORKS)
        if self.network == DEEP and self.arch not in (SMALL, *RESNETS):
            raise unknown_name("body of deeplabv3", self.arch, (SMALL, *RESNETS))
        if self.network == DEEP and self.output_stride not in RATES:
            raise UsageError(f"output_stride must be 8 or 16, got {self.output_stride}.")
        if self.network == DEEP and self.start == EMBEDDED:
            raise UsageError(
                "The embedded backbone is a transformer, and deeplabv3 has a residual network. "
                "Expected start=random or a weights file; --set network=light can start from it."
            )
        if self.network == LIGHT:
            vit_config(self.arch, PATCH, conv_stem=True)  # complains of others


@dataclass(frozen=True)
class Start:
    """A student that has learned no masks yet.

    Attributes:
        net: on the CPU, in training mode.
        words: what it begins from, for people.
        digest: hash of the weights it begins from; "" where they are random.
    """

    net: Pupil
    words: str
    digest: str


def start(student: Student, *, classes: int, seed: int) -> Start:
    """Build a student.

    Args:
        student: which.
        classes: K.
        seed: of what is random.

    Returns:
        The student, and what it begins from.

    Raises:
        UsageError: `start` is neither a name nor a file.
        WeightsError: the file cannot be read, or holds another network.
    """
    if student.start not in (EMBEDDED, RANDOM) and not Path(student.start).is_file():
        raise UsageError(
            f"start is {EMBEDDED}, {RANDOM} or a weights file; found {student.start!r}, which is "
            "no file."
        )
    tensors = None
    if student.start != RANDOM:
        file = cached(EMBEDDED) if student.start == EMBEDDED else student.start
        tensors = load_file(file)
    build = _light if student.network == LIGHT else _deep
    return build(student, tensors, classes=classes, seed=seed)


def rebuild(arrays: Mapping[str, Tensor], student: Student) -> Pupil:
    """Build the student of a model, frozen and in evaluation mode; no file is needed.

    Args:
        arrays: tensors by the names of the network; their memory is shared.
        student: which.

    Returns:
        The student on the device of the tensors.

    Raises:
        WeightsError: these are not its tensors.
    """
    if HEADS[student.network] not in arrays:
        raise WeightsError(
            f"Expected {HEADS[student.network]} among the weights, found {some(arrays)}."
        )
    K = len(arrays[HEADS[student.network]])
    net: Pupil
    with torch.device("meta"):  # no memory for weights about to be replaced
        if student.network == LIGHT:
            vit = layouts.infer_config(below(arrays, "encoder."))
            width = len(arrays["decoder.head.weight"][0])
            net = Light(LightConfig(classes=K, vit=vit, width=width))
        else:
            body = resnet_layouts.infer_config(below(arrays, "backbone."))
            body = replace(body, output_stride=student.output_stride)
            width = len(arrays["classifier.4.weight"][0])
            net = DeepLabV3(DeepLabV3Config(classes=K, resnet=body, width=width))
    load_exactly(net, arrays, what=str(net.config))
    return net.eval().requires_grad_(False)


def _light(
    student: Student, tensors: Mapping[str, Tensor] | None, *, classes: int, seed: int
) -> Start:
    if tensors is None:
        vit = vit_config(student.arch, PATCH, conv_stem=True)
        net = random_light(LightConfig(classes=classes, vit=vit), seed=seed)
        return Start(net, f"random weights ({student.arch}, {_millions(net)})", "")
    state = layouts.convert(tensors)
    vit = layouts.infer_config(state)
    net = random_light(LightConfig(classes=classes, vit=vit), seed=seed)
    load_exactly(net.encoder, {k: v.clone() for k, v in state.items()}, what=str(vit))
    what = "the embedded backbone, which saw no label"
    if student.start != EMBEDDED:
        what = f"the transformer in {Path(student.start).name}"
    return Start(net, f"{what} ({_millions(net)})", digest(state))


def _deep(
    student: Student, tensors: Mapping[str, Tensor] | None, *, classes: int, seed: int
) -> Start:
    if tensors is None:
        body, width = (TINY, 64) if student.arch == SMALL else (dilated(student.arch), 256)
        body = replace(body, output_stride=student.output_stride)
        config = DeepLabV3Config(classes=classes, resnet=body, width=width)
        net = random_deeplabv3(config, seed=seed)
        words = f"random weights ({student.arch}, {_millions(net)}); a body that learned without "
        return Start(net, f"{words}labels (DINO, MoCo) knows more: --set start=FILE", "")
    state, told = resnet_layouts.without_classifier(tensors)
    body = replace(resnet_layouts.infer_config(state), output_stride=student.output_stride)
    net = random_deeplabv3(DeepLabV3Config(classes=classes, resnet=body), seed=seed)
    net.backbone = resnet_layouts.build(state, net.config.resnet, frozen=False)
    words = f"the residual network in {Path(student.start).name} ({_millions(net)})"
    if told:
        words += (
            f", which comes with a classifier of {told} classes: if those were labels, "
            "the masks are not without labels any more"
        )
    return Start(net, words, digest(state))


def _millions(net: Pupil) -> str:
    return f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M weights"
