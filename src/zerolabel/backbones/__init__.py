"""Named frozen feature extractors; each declares what it gives.

Importing this package imports neither torch nor any backbone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zerolabel.backbones.registry import BACKBONES, giving
from zerolabel.errors import UsageError, WeightsError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zerolabel.types import Features

AUTO = "auto"
BETTER, SHIPPED = "dino-vits16", "embedded"  # what "auto" takes, in this order
NONE = "none"  # for methods that learn everything themselves
STUDENT = "student"  # what a method with words has taught, out of its model
DEVICES = ("auto", "cpu", "cuda", "mps")


class Backbone(Protocol):
    """What methods know of a backbone."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def gives(self) -> frozenset[str]:
        """Fields of `Features` it can compute."""

    @property
    def stride(self) -> int:
        """Pixels per cell of the feature grid."""

    @property
    def dim(self) -> int:
        """Channels D of a token."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def digest(self) -> str:
        """Hash of everything its features depend on, apart from the image."""

    def encode(self, images: Tensor, *, want: Collection[str]) -> Features:
        """Compute the wanted features, float32, of uint8 RGB images (B, 3, H, W)."""

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """CLS token of each region (R, D), of one image's context (T, D) and bool (R, h, w)."""

    @property
    def learns(self) -> int:
        """Images that `learn` wants to see; 0 for a backbone that comes trained."""

    def learn(self, batches: Iterable[Tensor], *, seed: int) -> Backbone:
        """Adapt to unlabelled uint8 images (B, 3, H, W), where the backbone can."""

    def state(self) -> dict[str, Tensor]:
        """What was learned, to be saved with a model; empty for published weights."""

    def restore(self, state: Mapping[str, Tensor]) -> Backbone:
        """Take over what was learned before."""


def choose(name: str, *, weights: Path | str | None = None) -> tuple[str, str]:
    """Decide which backbone "auto" is on this machine; other names stay.

    Args:
        name: what the user asked for.
        weights: a weights file, which decides if it is given.

    Returns:
        The name, and one line on how to get a better one, empty if there is nothing to say.
    """
    from zerolabel.backbones.weights import find, megabytes

    if name != AUTO:
        return name, ""
    if weights is not None:
        return Path(weights).stem, ""
    better = BACKBONES[BETTER]
    if find(better) is not None:
        return BETTER, ""
    return SHIPPED, (
        f"features are those of the small backbone that comes along; `zerolabel models get "
        f"{BETTER}` fetches a better one ({megabytes(better)}, {better.licence})"
    )


def load(name: str, *, weights: Path | str | None = None, device: str = "auto") -> Backbone:
    """Load a backbone; weights that are not on this machine are an error, never a download.

    Args:
        name: a registry name, or any name together with a weights file, or "random-vits16",
            "random-clipb16" and the like: fixed random weights for tests and benchmarks; without
            "clip" all tokens of an image are nearly identical. "student" is what a method with
            words has taught a student; "none" gives nothing.
        weights: a weights file (original, transformers or timm layout) to use for the name; a CLIP
            is known by its tensors, and its vocabulary lies beside it. A student's is the
            `model.safetensors` of its run.
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.

    Returns:
        The backbone.

    Raises:
        UsageError: an unknown name, an unavailable device, or weights for a backbone that has none.
        WeightsError: the weights are not cached, are not given for a student, cannot be read, or
            are of another network.
    """
    fixed = name in ("filterbank", NONE) or name.startswith("random-")
    if fixed and weights is not None:
        raise UsageError(f"{name} takes no weights. Leave --weights out, or name another backbone.")
    if name == "filterbank":
        from zerolabel.backbones.filterbank import FilterBank

        return FilterBank(device=str(pick_device(device)))
    if name == NONE:
        from zerolabel.backbones.nothing import NoBackbone

        return NoBackbone(device=pick_device(device))
    if name == STUDENT:
        return _student(weights, device)
    from zerolabel.backbones.clip import load_clip, random_clip
    from zerolabel.backbones.clip_layouts import is_clip
    from zerolabel.backbones.vit import load_vit, random_backbone
    from zerolabel.backbones.weights import load_file

    where = pick_device(device)
    if fixed:
        random = random_clip if name.startswith("random-clip") else random_backbone
        return random(name, device=where)
    tensors = None if weights is None else load_file(weights)
    item = BACKBONES.get(name)
    if (item is not None and item.is_clip) or is_clip(tensors or ()):
        return load_clip(name, weights=weights, device=where, tensors=tensors)
    return load_vit(name, weights=weights, device=where, tensors=tensors)


def _student(weights: Path | str | None, device: str) -> Backbone:
    """Load the student of a model."""
    from zerolabel.backbones.student import load_student

    if weights is None:
        raise WeightsError(
            "A student lies in the model of the run that taught it. Expected its file, e.g. "
            "--weights RUN/model.safetensors."
        )
    return load_student(weights, device=pick_device(device), name=STUDENT)


def require(backbone: Backbone, *what: str) -> None:
    """Complain if a backbone does not give what a method needs.

    Args:
        backbone: the backbone.
        what: fields of `Features`.

    Raises:
        UsageError: it lacks one; the message names the backbones that give all of them.
    """
    lacking = [name for name in what if name not in backbone.gives]
    if lacking:
        able = [name for name in giving(what[0]) if all(name in giving(w) for w in what)]
        raise UsageError(
            f"Backbone {backbone.name!r} gives {', '.join(sorted(backbone.gives))}, but "
            f"{', '.join(lacking)} is needed. Use --backbone {' or '.join(able) or '(none known)'}."
        )


def pick_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Returns:
        The device.

    Raises:
        UsageError: the name is unknown or this machine has no such device.
    """
    import torch

    count = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    there = [kind for kind, number in count.items() if number]
    if device == "auto":
        return torch.device(there[0])
    match = re.fullmatch(r"(cpu|cuda|mps)(?::([0-9]+))?", device)
    if match is None:
        raise unknown_name("device", device, DEVICES)
    if int(match[2] or 0) >= count[match[1]]:
        raise UsageError(
            f"Device {device!r} is not on this machine, or this torch ({torch.__version__}) cannot "
            f"use it; found: {', '.join(there)}. Use --device auto."
        )
    return torch.device(device)
