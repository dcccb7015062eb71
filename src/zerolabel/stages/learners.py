"""Part of the verb refine: a student between its backbone, its weights and the images it decodes.

Shapes: `B` images, `H W` pixels, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.backbones.resnet_layouts import convert, infer_config
from zerolabel.backbones.vit import VitBackbone
from zerolabel.backbones.weights import load_file
from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.students import (
    IMAGES,
    KINDS,
    OWN,
    RESNET50,
    Student,
    StudentConfig,
    blank,
    student_config,
)
from zerolabel.stages import encode
from zerolabel.store import Store, below
from zerolabel.types import Sample


def check(kind: str, backbone: Backbone, *, weights: str = "") -> None:
    """Refuse students that cannot be, before any work is done.

    Args:
        kind: a name in `KINDS`.
        backbone: what encodes, or says how images are normalised.
        weights: a file with a residual network to start from, or empty.

    Raises:
        UsageError: an unknown kind, weights for a student that has no use for them, or a backbone
            that does not normalise images.
    """
    if kind not in KINDS:
        raise unknown_name("choice of student", kind, KINDS)
    if weights and kind not in IMAGES:
        raise UsageError(
            f"student_weights are those of a residual network, and student={kind} has none. Leave "
            f"them out, or give student={' or '.join(sorted(IMAGES))}."
        )
    if kind in IMAGES and not isinstance(backbone, VitBackbone):
        raise UsageError(f"Expected a vision transformer beside {kind}, found {backbone.name}.")


def read_body(path: str) -> dict[str, Tensor] | None:
    """Read the residual network that a student starts from; None without a file.

    Raises:
        WeightsError: the file cannot be read.
    """
    return convert(load_file(path)) if path else None


def describe(
    kind: str, backbone: Backbone, *, classes: int, body: Mapping[str, Tensor] | None
) -> StudentConfig:
    """Describe a student.

    Args:
        kind: a name in `KINDS`.
        backbone: on whose grid it decides.
        classes: K.
        body: weights of its residual network, which tell its layers; 50 layers if None.

    Returns:
        The configuration.

    Raises:
        WeightsError: these are no weights of a residual network.
    """
    return student_config(
        kind,
        encoder_dim=backbone.dim,
        classes=classes,
        patch=backbone.stride,
        body=RESNET50 if body is None else infer_config(body),
    )


def rebuild(
    kind: str, weights: Mapping[str, Tensor], backbone: Backbone, *, classes: int
) -> Student:
    """Build a student that has learned, frozen, on the backbone's device.

    Args:
        kind: a name in `KINDS`.
        weights: of the student; their memory is shared.
        backbone: on whose grid it decides.
        classes: K.

    Returns:
        The student in evaluation mode.
    """
    made = blank(describe(kind, backbone, classes=classes, body=below(weights, OWN) or None))
    made.load_state_dict(dict(weights), assign=True)
    return made.requires_grad_(False).eval().to(backbone.device)


def crops(kind: str, images: Tensor, backbone: Backbone, *, amp: bool) -> Tensor:
    """Turn crops into what a student decodes.

    Args:
        kind: a name in `KINDS`.
        images: float32 (B, 3, H, W), 0..255.
        backbone: encodes, or normalises only.
        amp: let it compute in bfloat16.

    Returns:
        Patch tokens float32 (B, h, w, D), or normalised images float32 (B, 3, H, W).
    """
    if kind in IMAGES:
        return _normalised(images, backbone)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        tokens = backbone.encode(images.round().byte(), want={"tokens"}).tokens
    assert tokens is not None  # it was asked for
    return tokens.float()


def whole(
    kind: str,
    samples: Sequence[Sample],
    backbone: Backbone,
    *,
    size: tuple[int, int],
    store: Store,
) -> tuple[Tensor, list[Sample], dict[str, str]]:
    """Turn whole images into what a student decodes.

    Args:
        kind: a name in `KINDS`.
        samples: a batch.
        backbone: encodes, or normalises only.
        size: (H, W) in pixels.
        store: keeps patch tokens.

    Returns:
        Patch tokens float32 (B, h, w, D), or normalised images float32 (B, 3, H, W), of the B
        samples that could be read; these; and id -> reason for the others.
    """
    if kind not in IMAGES:
        return encode.tokens(backbone, samples, size=size, store=store)
    loaded = encode.read(samples, size)
    return _normalised(loaded.images, backbone), loaded.kept, loaded.failures


def _normalised(images: Tensor, backbone: Backbone) -> Tensor:
    """Normalise images (B, 3, H, W) of 0..255 as the backbone was trained, on its device."""
    assert isinstance(backbone, VitBackbone)  # see check
    return backbone.prepare(images.float().clone() if images.is_floating_point() else images)
