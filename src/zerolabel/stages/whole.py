"""A whole Segmenter, encoder and decoder, as the arrays of a model, and back as networks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from zerolabel.backbones.registry import IMAGENET_MEAN, IMAGENET_STD, Colour
from zerolabel.backbones.segmenter_layouts import build, segmenter_state
from zerolabel.backbones.weights import load_file
from zerolabel.networks.mask_transformer import LinearConfig, MaskTransformerConfig, decoder
from zerolabel.networks.vit import ViT
from zerolabel.store import below

LAYOUTS = ("official", "mmsegmentation")  # of checkpoints; the number is saved with the model
LAYOUT = "layout"  # its name among the arrays
COLOURS: dict[str, tuple[Colour, Colour]] = {  # mean and deviation
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # the ViT of ImageNet-21k
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
}


def read(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint of the original project or of mmsegmentation.

    Args:
        path: the file.

    Returns:
        "encoder.*", "decoder.*" and whose layout it was, as the arrays of a model.

    Raises:
        WeightsError: it cannot be read, or is no Segmenter.
    """
    found = segmenter_state(load_file(path))
    arrays = {f"encoder.{name}": value for name, value in found.encoder.items()}
    arrays |= {f"decoder.{name}": value for name, value in found.decoder.items()}
    return arrays | {LAYOUT: torch.tensor(LAYOUTS.index(found.kind))}


def rebuild(arrays: Mapping[str, Tensor]) -> tuple[ViT, nn.Module]:
    """Build the frozen networks of what `read` returned; the file is not needed any more."""
    found = segmenter_state({name: v for name, v in arrays.items() if name != LAYOUT})
    if LAYOUTS[int(arrays[LAYOUT])] == "mmsegmentation":  # the names do not tell any more
        config = replace(found.encoder_config, eps=1e-6, pos_interp="size")
        found = replace(found, encoder_config=config)
    return build(found)


def trained(
    arrays: Mapping[str, Tensor], encoder: ViT, head: LinearConfig | MaskTransformerConfig
) -> tuple[ViT, nn.Module]:
    """Build the frozen networks of a training.

    Args:
        arrays: "decoder.*" and, if it was tuned, "encoder.*".
        encoder: where the training started; it is not changed.
        head: the decoder.

    Returns:
        Encoder and decoder.
    """
    made = decoder(head, seed=0).requires_grad_(False)
    made.load_state_dict(below(arrays, "decoder."))
    own = below(arrays, "encoder.")
    if own:
        encoder = copy.deepcopy(encoder)
        encoder.load_state_dict(own)
    return encoder, made


def classes(arrays: Mapping[str, Tensor]) -> int:
    """Count the classes K of a model."""
    name = "head.weight" if "decoder.head.weight" in arrays else "mask_norm.weight"
    return len(arrays[f"decoder.{name}"])


def normalise(images: Tensor, arrays: Mapping[str, Tensor], *, colours: str) -> Tensor:
    """Normalise images as the encoder of a checkpoint was trained with.

    Args:
        images: (B, 3, H, W) of 0..255.
        arrays: what `read` returned.
        colours: a name in `COLOURS`, or "auto".

    Returns:
        float32 (B, 3, H, W).
    """
    if colours == "auto":  # a distillation token is DeiT's, which was trained as on ImageNet
        colours = "imagenet" if "encoder.register_tokens" in arrays else "half"
    mean, std = (torch.tensor(value)[:, None, None].to(images.device) for value in COLOURS[colours])
    return (images.float() / 255 - mean) / std
