"""The names that a whole Segmenter has in different files: encoder and decoder, told apart.

Read are checkpoints of the official project and of mmsegmentation's configurations of the same
name, with either decoder, as `weights.load_file` gives them. What neither file says is the number
of heads: it is one per 64 channels in every published one, in encoder and decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from zerolabel.backbones.layouts import infer_config, load_exactly, some
from zerolabel.errors import WeightsError
from zerolabel.networks.mask_transformer import (
    HEAD_DIM,
    LinearConfig,
    LinearDecoder,
    MaskTransformer,
    MaskTransformerConfig,
)
from zerolabel.networks.vit import ViT, VitConfig

Kind = Literal["official", "mmsegmentation"]
Names = dict[str, Tensor]

PREFIXES: Mapping[Kind, tuple[str, str]] = {  # of encoder and decoder
    "official": ("encoder.", "decoder."),
    "mmsegmentation": ("backbone.", "decode_head."),
}
WRAPPER = re.compile(r"^(module\.)+")  # of training on several devices
# The classifier of ImageNet, which the official encoder carries along without ever using it.
CLASSIFIER = re.compile(r"^head(_dist)?\.")
# What tells the shape of a network.
ENCODER = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
MASK = ("cls_emb", "proj_dec.weight", "blocks.0.mlp.fc1.weight")

# mmsegmentation's names, in which blocks of encoder and decoder are the same.
RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^ln1\.", "norm."),  # the norm after the last block
        (r"^layers\.(?=\d)", "blocks."),
        (r"\.ln([12])\.", r".norm\1."),
        (r"\.attn\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
        (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"^dec_proj\.", "proj_dec."),
        (r"^patch_proj\.weight$", "proj_patch"),
        (r"^classes_proj\.weight$", "proj_classes"),
        (r"^conv_seg\.", "head."),
    )
)
SAME = re.compile(r"^(cls_token$|pos_embed$|cls_emb$|decoder_norm\.|mask_norm\.)")


@dataclass(frozen=True)
class SegmenterState:
    """A Segmenter that was read from a file.

    Attributes:
        encoder: float32 tensors by the names of `networks.vit`.
        encoder_config: the network that they fit; the epsilon of its norms and the way of its
            positions to other grids are those of the project that trained it.
        decoder: float32 tensors by the names of `networks.mask_transformer`.
        decoder_config: the decoder that they fit, with the dropout that its project trains with.
        kind: whose file it was.
    """

    encoder: Mapping[str, Tensor]
    encoder_config: VitConfig
    decoder: Mapping[str, Tensor]
    decoder_config: LinearConfig | MaskTransformerConfig
    kind: Kind


def segmenter_state(state: Mapping[str, Tensor]) -> SegmenterState:
    """Turn the tensors of a file into those of an encoder and a decoder, none left over.

    Dropped are the classifier of ImageNet in official files, and the convolution that old files of
    mmsegmentation hold unused beside a mask transformer. The distillation token of a DeiT encoder
    takes part in its attention, so it stays: it and its position add up to a register, of which
    the encoder then has one.

    Args:
        state: tensors by their names in the file, with or without a leading `module.`.

    Returns:
        Encoder and decoder; `build` makes networks of them.

    Raises:
        WeightsError: this is no Segmenter, something is missing, left over or of another shape, or
            the positions are of no square grid.
    """
    named = _unwrapped(state)
    kind = _kind(named)
    parts = [_below(named, prefix) for prefix in PREFIXES[kind]]
    left = [name for name in named if not name.startswith(PREFIXES[kind])]
    if left:
        expected = " and ".join(PREFIXES[kind])
        raise WeightsError(
            f"Expected names below {expected} only in a Segmenter's file of the {kind} layout, "
            f"found {some(left)} too. Remove what does not belong to the network and pass the rest."
        )
    encoder, decoder = READERS[kind](*parts)
    config, head = _encoder_config(encoder, kind), _decoder_config(decoder, kind)
    if head.encoder_dim != config.dim:
        raise WeightsError(
            f"The decoder expects tokens of {head.encoder_dim} channels, the encoder gives "
            f"{config.dim}: two networks in one file. Pass the file of one Segmenter."
        )
    found = SegmenterState(encoder, config, decoder, head, kind)
    _networks(found)  # complains of what is missing or left over
    return found


def build(
    found: SegmenterState, *, frozen: bool = True
) -> tuple[ViT, LinearDecoder | MaskTransformer]:
    """Build the networks that hold these weights.

    Args:
        found: what `segmenter_state` returned; frozen networks share its memory, others copy it.
        frozen: return them in evaluation mode, and no weight learns; else in training mode.

    Returns:
        Encoder and decoder on the CPU.

    Raises:
        WeightsError: weights and configurations do not fit.
    """
    if not frozen:
        copies = [
            {k: v.clone() for k, v in part.items()} for part in (found.encoder, found.decoder)
        ]
        return _networks(replace(found, encoder=copies[0], decoder=copies[1]))
    encoder, decoder = _networks(found)
    return encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False)


def _networks(found: SegmenterState) -> tuple[ViT, LinearDecoder | MaskTransformer]:
    """Build networks that share the memory of the weights."""
    config = found.decoder_config
    decoder: LinearDecoder | MaskTransformer
    with torch.device("meta"):  # no memory and no random numbers for weights about to be replaced
        encoder = ViT(found.encoder_config)
        decoder = (
            LinearDecoder(config) if isinstance(config, LinearConfig) else MaskTransformer(config)
        )
    load_exactly(encoder, found.encoder, what=f"the encoder of a Segmenter, {encoder.config}")
    load_exactly(decoder, found.decoder, what=f"the decoder of a Segmenter, {config}")
    return encoder, decoder


def _unwrapped(state: Mapping[str, Tensor]) -> Names:
    """Take the wrapper off the names, and bring weights to float32."""
    out: Names = {}
    for key, value in state.items():
        name = WRAPPER.sub("", key)
        if name in out:
            raise WeightsError(
                f"Two networks in one file: {name} comes twice, the second time as {key}. "
                "Save the tensors of one network alone and pass that file."
            )
        out[name] = value.float() if value.is_floating_point() else value
    return out


def _kind(named: Names) -> Kind:
    """Tell whose file it is from the first part of the names."""
    for kind, prefixes in PREFIXES.items():
        if all(any(name.startswith(prefix) for name in named) for prefix in prefixes):
            return kind
    raise WeightsError(
        "These are not the weights of a whole Segmenter: names below encoder. and decoder. (the "
        "official project) or below backbone. and decode_head. (mmsegmentation) expected, "
        f"{some(named) or 'nothing'} found. Pass the checkpoint of a trained Segmenter, not one of "
        "a backbone alone."
    )


def _below(named: Names, prefix: str) -> Names:
    return {name[len(prefix) :]: v for name, v in named.items() if name.startswith(prefix)}


def _official(encoder: Names, decoder: Names) -> tuple[Names, Names]:
    """Read the official names, which are ours but for what only a few files have."""
    encoder = {name: v for name, v in encoder.items() if not CLASSIFIER.match(name)}
    if {"dist_token", "pos_embed"} <= encoder.keys():
        token, pos = encoder.pop("dist_token"), encoder["pos_embed"]
        if pos.ndim != 3 or token.shape != (1, 1, pos.shape[2]):
            raise WeightsError(
                "Expected dist_token (1, 1, D) and pos_embed (1, 2 + patches, D), found "
                f"{tuple(token.shape)} and {tuple(pos.shape)}."
            )
        # the token's position is the second, behind that of CLS; our registers have none
        encoder["register_tokens"] = token + pos[:, 1:2]
        encoder["pos_embed"] = torch.cat([pos[:, :1], pos[:, 2:]], dim=1)
    return encoder, decoder


def _mmsegmentation(encoder: Names, decoder: Names) -> tuple[Names, Names]:
    """Read the names of mmsegmentation."""
    if "cls_emb" in decoder:  # old files hold the convolution of any other head too, unused
        decoder = {name: v for name, v in decoder.items() if not name.startswith("conv_seg.")}
    encoder, decoder = _renamed(encoder), _renamed(decoder)
    for name in {"proj_patch", "proj_classes"} & decoder.keys():
        # a linear layer there, a matrix on the right here
        decoder[name] = decoder[name].transpose(0, -1).contiguous()
    weight = decoder.get("head.weight")
    if weight is not None and weight.shape[2:] == (1, 1):  # a convolution of single patches
        decoder["head.weight"] = weight[:, :, 0, 0].contiguous()
    return encoder, decoder


def _renamed(part: Names) -> Names:
    """Apply RENAMES; of a name that they leave half done, `_networks` complains."""
    out: Names = {}
    for key, value in part.items():
        name = key
        for pattern, replacement in RENAMES:
            name = pattern.sub(replacement, name)
        if name == key and not SAME.match(key):
            raise WeightsError(
                f"{key} is no name of mmsegmentation's Segmenter. Pass a checkpoint of its vision "
                "transformer with a mask transformer or a single 1x1 convolution."
            )
        out[name] = value
    return out


READERS: Mapping[Kind, Callable[[Names, Names], tuple[Names, Names]]] = {
    "official": _official,
    "mmsegmentation": _mmsegmentation,
}


def _encoder_config(encoder: Names, kind: Kind) -> VitConfig:
    """Tell the encoder from the shapes of its tensors, and the rest from who trained it."""
    _require(encoder, ENCODER, what="encoder")
    config = infer_config(encoder)
    if kind == "official":
        return replace(config, eps=1e-5, pos_interp="bilinear")
    return replace(config, eps=1e-6, pos_interp="size")


def _decoder_config(decoder: Names, kind: Kind) -> LinearConfig | MaskTransformerConfig:
    """Tell the decoder from the shapes of its tensors."""
    if "head.weight" in decoder and "cls_emb" not in decoder:
        shape = _shape(decoder, "head.weight", 2)
        return LinearConfig(classes=shape[0], encoder_dim=shape[1])
    _require(decoder, MASK, what="decoder")
    _, classes, dim = _shape(decoder, "cls_emb", 3)
    if dim % max(1, dim // HEAD_DIM):
        raise WeightsError(
            f"Expected a multiple of {HEAD_DIM} channels in the decoder, so that heads can be "
            f"counted; found cls_emb with {dim}."
        )
    blocks = {int(m[1]) for name in decoder if (m := re.match(r"blocks\.(\d+)\.", name))}
    return MaskTransformerConfig(
        encoder_dim=_shape(decoder, "proj_dec.weight", 2)[1],
        classes=classes,
        dim=dim,
        depth=1 + max(blocks),
        hidden=_shape(decoder, "blocks.0.mlp.fc1.weight", 2)[0],
        dropout=0.1 if kind == "official" else 0.0,
        qkv_bias="blocks.0.attn.qkv.bias" in decoder,
    )


def _require(part: Names, needed: tuple[str, ...], *, what: str) -> None:
    """Complain of a part that lacks what tells its shape."""
    lacking = [name for name in needed if name not in part]
    if lacking:
        raise WeightsError(
            f"This is no {what} of a Segmenter: {some(lacking)} expected, {some(part)} found. "
            "Pass the checkpoint of a Segmenter with a vision transformer, and a linear decoder or "
            "a mask transformer."
        )


def _shape(part: Names, name: str, axes: int) -> tuple[int, ...]:
    shape = tuple(part[name].shape)
    if len(shape) != axes:
        raise WeightsError(f"Expected {name} with {axes} axes in the decoder, found {shape}.")
    return shape
