"""The names that the same residual network has in different files, turned into torchvision's.

Read are torchvision's files (timm's carry the same names), DINO's, the backbone alone or with the
wrappers of its training, and MoCo's checkpoints, version 1 and 2. Networks with a deep stem have it
under `stem.*` as OpenMMLab's do, or under timm's `conv1.*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from zerolabel.backbones.layouts import load_exactly, some
from zerolabel.errors import WeightsError
from zerolabel.networks.resnet import STAGES, ResNet, ResNetConfig

# A training checkpoint holds a network twice; the first of each pair is what its authors evaluate.
TWINS = (("teacher", "student"), ("encoder_q", "encoder_k"))
PREFIX = re.compile(r"^(?:(module|model|state_dict|backbone|teacher|student|encoder_[qk])\.)")
DEEP_STEM = re.compile(r"^conv1\.(?=\d+\.)")  # timm's name of it; its last norm stays `bn1`
UNUSED = re.compile(r"^(head\.|queue(_ptr)?$)")
PROJECTED = {
    "head",
    "encoder_q",
    "encoder_k",
}  # what tells that `fc` is a projection, no classifier


def convert(state: Mapping[str, Tensor], *, classifier: bool = False) -> dict[str, Tensor]:
    """Rename the tensors of a file to torchvision's names.

    Of a DINO checkpoint with student and teacher the teacher is taken, of a MoCo checkpoint the
    query encoder; projection heads and queues are left out.

    Args:
        state: tensors by the names of any known layout.
        classifier: keep torchvision's `fc`; without, nothing that has seen labels remains of it
            but the features.

    Returns:
        Tensors by the names that `ResNet` uses, weights in float32. A name of an unknown layout is
        kept as it is, and `build` complains of it.

    Raises:
        WeightsError: two tensors of the file would get the same name.
    """
    parted = {key: _part(key) for key in state}
    wrappers = set().union(*(over for over, _ in parted.values()))
    dropped = {second for first, second in TWINS if first in wrappers}
    projected = bool(PROJECTED & wrappers)
    deep = any(DEEP_STEM.match(name) for _, name in parted.values())
    out: dict[str, Tensor] = {}
    for key, (over, original) in parted.items():
        if over & dropped or UNUSED.match(original):
            continue
        name = _in_stem(original) if deep else original
        if name.startswith("fc.") and (projected or not classifier):
            continue
        if name in out:
            raise WeightsError(
                f"Two networks in one file: {name} comes twice, the second time as {key}. "
                "Save the tensors of one network alone and pass that file."
            )
        value = state[key]
        out[name] = value.float() if value.is_floating_point() else value
    for name in [n for n in out if n.endswith(".running_var")]:  # old files lack the counters
        out.setdefault(name.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return out


def without_classifier(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Rename the tensors of a file, and tell apart what may have seen labels.

    Args:
        state: tensors by the names of any known layout.

    Returns:
        Tensors as of `convert`, and how many classes its classifier has, 0 without one.

    Raises:
        WeightsError: two tensors of the file would get the same name.
    """
    found = convert(state, classifier=True)
    told = [found.pop(name) for name in ("fc.weight", "fc.bias") if name in found]
    return found, len(told[0]) if told else 0


def infer_config(state: Mapping[str, Tensor]) -> ResNetConfig:
    """Tell the network from the names and shapes of its tensors.

    Args:
        state: what `convert` returned.

    Returns:
        The configuration, of output stride 32 and with norms that train; `dataclasses.replace`
        changes both, as weights do not depend on them.

    Raises:
        WeightsError: these are no tensors of such a network.
    """
    deep = "stem.0.weight" in state
    first = "stem.0.weight" if deep else "conv1.weight"
    needed = (first, *(f"{stage}.0.conv1.weight" for stage in STAGES))
    lacking = [name for name in needed if name not in state]
    if lacking:
        raise WeightsError(
            f"These are not the weights of a residual network: {some(lacking)} expected, "
            f"{some(state) or 'nothing'} found. Pass a file of torchvision, DINO or MoCo."
        )
    shape = tuple(state[first].shape)
    if shape[1:] != ((3, 3, 3) if deep else (3, 7, 7)):
        raise WeightsError(
            "Expected one 7x7 convolution of RGB images at the start, weights (64, 3, 7, 7), or a "
            f"deep stem of three 3x3 ones, stem.0.weight (32, 3, 3, 3); found {first} {shape}."
        )
    depths = [
        1 + max(int(m[1]) for name in state if (m := re.match(rf"{stage}\.(\d+)\.", name)))
        for stage in STAGES
    ]
    return ResNetConfig(
        block="bottleneck" if "layer1.0.conv3.weight" in state else "basic",
        depths=cast(tuple[int, int, int, int], tuple(depths)),
        width=shape[0] * 2 if deep else shape[0],
        classes=len(state["fc.weight"]) if "fc.weight" in state else 0,
        deep_stem=deep,
    )


def build(
    state: Mapping[str, Tensor], config: ResNetConfig | None = None, *, frozen: bool = True
) -> ResNet:
    """Build the network that holds these weights.

    Args:
        state: what `convert` returned; a frozen network shares its memory, another one copies it.
        config: what to build; inferred from names and shapes by default.
        frozen: return it in evaluation mode, and no weight learns; else in training mode.

    Returns:
        The network on the CPU.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):  # no memory and no random numbers for weights about to be replaced
        net = ResNet(config or infer_config(state))
    held = state if frozen else {name: value.clone() for name, value in state.items()}
    load_exactly(net, held, what=str(net.config))
    return net.eval().requires_grad_(False) if frozen else net


def _part(key: str) -> tuple[set[str], str]:
    """Part a key into the names of the wrappers around its network and its name in there."""
    over = set()
    while m := PREFIX.match(key):
        over.add(m[1])
        key = key[m.end() :]
    if key.startswith("head."):
        over.add("head")
    return over, key


def _in_stem(name: str) -> str:
    """Turn timm's names of a deep stem into those of `ResNet`."""
    name = DEEP_STEM.sub("stem.", name)
    return f"stem.7.{name[4:]}" if name.startswith("bn1.") else name
