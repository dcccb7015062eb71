"""The names that the same CLIP has in different files, turned into those of this project.

Read are CLIPModel of transformers (version 4 and 5), OpenAI's state dict, and open_clip's, whose
text tower may have a name of its own; all of them with the prefixes of training wrappers, too.
Image towers are vision transformers: CLIP's residual networks reach the space of texts another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import starmap

import torch
from torch import Tensor

from zerolabel.backbones.layouts import infer_config, join_qkv, load_exactly, once, renamed, some
from zerolabel.errors import WeightsError
from zerolabel.networks.clip_image import ClipImage
from zerolabel.networks.clip_text import ClipText, ClipTextConfig
from zerolabel.networks.vit import HEAD_DIM, VitConfig

PREFIXES = re.compile(r"^((module|model|clip|clip_model|_orig_mod)\.)+")
# What only a CLIP has, whatever stands before it.
MARKS = re.compile(r"(^|\.)(visual|vision_model|text_model|token_embedding|visual_projection)\.")
# The scale of the cosines, buffers of old versions, and numbers that OpenAI's archives carry along.
UNUSED = re.compile(
    r"^(logit_scale|input_resolution|context_length|vocab_size|(.*\.)?(attn_mask|position_ids))$"
)
TRANSPOSED = ".transposed"  # linear layers have outputs first, `proj` has inputs first

RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # the tower
        (r"^(vision_model|visual)\.", "image."),
        (r"^visual_projection\.weight$", "image.proj" + TRANSPOSED),
        (r"^(text\.)?text_projection\.weight$", "text.proj" + TRANSPOSED),
        (r"^(text\.)?text_projection$", "text.proj"),
        (r"^text_model\.", "text."),
        (r"^(?!image\.|text\.)", "text."),
        # transformers
        (r"^(image|text)\.embeddings\.", r"\1."),
        (r"^image\.patch_embedding\.", "image.patch_embed.proj."),
        (r"^(image|text)\.position_embedding\.weight$", r"\1.positional_embedding"),
        (r"^image\.pre_layrnorm\.", "image.norm_pre."),
        (r"^(image|text)\.(post_layernorm|final_layer_norm)\.", r"\1.norm."),
        (r"\.encoder\.layers\.", ".blocks."),
        (r"\.layer_norm([12])\.", r".norm\1."),
        (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
        (r"\.self_attn\.out_proj\.", ".attn.proj."),
        # OpenAI and open_clip
        (r"^image\.conv1\.", "image.patch_embed.proj."),
        (r"^image\.ln_pre\.", "image.norm_pre."),
        (r"^(image|text)\.(ln_post|ln_final)\.", r"\1.norm."),
        (r"\.transformer\.resblocks\.", ".blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
        (r"\.attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        # all
        (r"^image\.positional_embedding$", "image.pos_embed"),
        (r"^image\.class_embedding$", "image.cls_token"),
    )
)


def is_clip(names: Iterable[str]) -> bool:
    """Tell by the names of its tensors whether a file holds a CLIP, or a tower of one."""
    return any(MARKS.search(name) for name in names)


def convert_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the tensors of a file into the two towers, and rename them.

    Args:
        state: tensors by the names of any known layout.

    Returns:
        float32 tensors by the names that `ClipImage` uses, and those of `ClipText`. A name of an
        unknown layout is kept as it is, and `build_clip` complains of it.

    Raises:
        WeightsError: two tensors of the file would get the same name.
    """
    named = renamed(state, prefixes=PREFIXES, unused=UNUSED, renames=RENAMES)
    out = {name: value.float() for name, value in once(starmap(_upright, named)).items()}
    towers = tuple(
        {name.removeprefix(tower): value for name, value in out.items() if name.startswith(tower)}
        for tower in ("image.", "text.")
    )
    image, text = towers
    for name in ("cls_token", "pos_embed"):  # without the dimension of the batch in every layout
        if name in image:
            image[name] = image[name].reshape(1, -1, image[name].shape[-1])
    for tower in towers:
        join_qkv(tower)
    return image, text


def _upright(key: str, name: str, value: Tensor) -> tuple[str, str, Tensor]:
    """Bring what is marked `TRANSPOSED` to inputs first."""
    if name.endswith(TRANSPOSED) and value.ndim == 2:
        return key, name.removesuffix(TRANSPOSED), value.T.contiguous()
    return key, name, value


def infer_clip(
    image: Mapping[str, Tensor], text: Mapping[str, Tensor]
) -> tuple[VitConfig, ClipTextConfig, int]:
    """Tell both towers from the shapes of their tensors.

    Args:
        image: the image tower, as `convert_clip` returned it.
        text: the text tower, likewise.

    Returns:
        The configurations, with 64 channels per head and QuickGELU as in every CLIP of OpenAI, and
        the channels P that the towers share.

    Raises:
        WeightsError: these are no tensors of such a network.
    """
    if any(name.startswith(("layer1.", "attnpool.")) for name in image):
        raise WeightsError(
            "The image tower of this CLIP is a residual network; only those with a vision "
            "transformer are read, e.g. of clip-vitb16."
        )
    of_image = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "proj")
    of_text = ("token_embedding.weight", "positional_embedding", "proj")
    lacking = [f"{name} of images" for name in of_image if name not in image]
    lacking += [f"{name} of texts" for name in of_text if name not in text]
    if lacking:
        raise WeightsError(
            f"These are not the weights of a CLIP with both towers: {some(lacking)} expected, "
            f"{some([*image, *text]) or 'nothing'} found. Pass a file of transformers' CLIPModel, "
            "or the state dict of OpenAI's or open_clip's network."
        )
    vit = infer_config(image)
    vocabulary, positions, proj = (tuple(text[name].shape) for name in of_text)
    shared = tuple(image["proj"].shape)
    dim = proj[0]
    sound = len(vocabulary) == len(positions) == len(proj) == len(shared) == 2
    if not sound or dim % HEAD_DIM or positions[1] != dim or proj[1] != shared[1]:
        raise WeightsError(
            "Expected texts with a multiple of 64 channels, and as many channels shared with "
            f"images; found positional_embedding {positions}, proj {proj} of texts, proj {shared} "
            "of images."
        )
    depth = 1 + max((int(m[1]) for n in text if (m := re.match(r"blocks\.(\d+)\.", n))), default=0)
    return (
        as_clip(vit),
        ClipTextConfig(vocabulary[0], positions[0], dim, depth, dim // HEAD_DIM),
        proj[1],
    )


def as_clip(config: VitConfig) -> VitConfig:
    """What sets a CLIP's image tower apart from other vision transformers of its size."""
    return replace(config, pos_interp="size", eps=1e-5, pre_norm=True, activation="quick")


def build_clip(
    image: Mapping[str, Tensor], text: Mapping[str, Tensor]
) -> tuple[ClipImage, ClipText]:
    """Build the towers that hold these weights, frozen and in evaluation mode.

    Args:
        image: the image tower, as `convert_clip` returned it; the network shares its memory.
        text: the text tower, likewise.

    Returns:
        The towers on the CPU.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    vit, words, projection = infer_clip(image, text)
    with torch.device("meta"):  # no memory and no random numbers for weights about to be replaced
        towers = ClipImage(vit, projection), ClipText(words, projection)
    load_exactly(towers[0], image, what=f"the image tower, {vit}")
    load_exactly(towers[1], text, what=f"the text tower, {words}")
    for tower in towers:
        tower.eval().requires_grad_(False)
    return towers
