"""How each layout names the tensors of a CLIP: the names of this project in, its own out."""

import torch
from reference.layouts import renamed, split_qkv

from zerolabel.networks.clip_image import ClipImage
from zerolabel.networks.clip_text import ClipText

PARTS = [f"self_attn.{name}_proj" for name in "qkv"]


def towers_of(vit, words, projection, seed=0):
    """Random weights none of which are alike, of moderate size so that outputs are, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        towers = ClipImage(vit, projection), ClipText(words, projection)
    return tuple(
        {k: torch.randn(v.shape, generator=generator) / 8 for k, v in tower.state_dict().items()}
        for tower in towers
    )


def transformers(image, text):
    common = [
        (r"^blocks\.", "encoder.layers."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"\.norm([12])\.", r".layer_norm\1."),
    ]
    image, text = split_qkv(image, PARTS), split_qkv(text, PARTS)
    out = {
        "vision_model.embeddings.class_embedding": image.pop("cls_token")[0, 0],
        "vision_model.embeddings.position_embedding.weight": image.pop("pos_embed")[0],
        "visual_projection.weight": image.pop("proj").T.contiguous(),
        "text_projection.weight": text.pop("proj").T.contiguous(),
        "text_model.embeddings.position_embedding.weight": text.pop("positional_embedding"),
        "logit_scale": torch.tensor(4.6),
    }
    of_image = [
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^norm_pre\.", "pre_layrnorm."),
        (r"^norm\.", "post_layernorm."),
    ]
    of_text = [(r"^token_embedding", "embeddings.token_embedding")]
    of_text.append((r"^norm\.", "final_layer_norm."))
    for tower, state, pairs in (("vision", image, of_image), ("text", text, of_text)):
        own = renamed(state, [*common, *pairs])
        out |= {f"{tower}_model.{k}": v for k, v in own.items()}
    return out


def transformers_4(image, text):
    """Old versions saved buffers, too."""
    cells = image["pos_embed"].shape[1]
    return {
        **transformers(image, text),
        "vision_model.embeddings.position_ids": torch.arange(cells)[None],
        "text_model.embeddings.position_ids": torch.arange(len(text["positional_embedding"]))[None],
    }


def openai(image, text):
    common = [
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    ]
    of_image = [
        (r"^cls_token$", "class_embedding"),
        (r"^pos_embed$", "positional_embedding"),
        (r"^patch_embed\.proj\.", "conv1."),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
    ]
    image = renamed(image, [*common, *of_image])
    text = renamed(text, [*common, (r"^norm\.", "ln_final."), (r"^proj$", "text_projection")])
    for name in ("class_embedding", "positional_embedding"):
        image[name] = image[name].reshape(-1, image[name].shape[-1]).clone()
    image["class_embedding"] = image["class_embedding"][0].clone()
    out = {f"visual.{k}": v for k, v in image.items()} | text
    return {**out, "logit_scale": torch.tensor(4.6)}


def openai_archive(image, text):
    """What is in the state dict of OpenAI's archives beside the weights, in half precision."""
    numbers = {"input_resolution": 12, "context_length": 77, "vocab_size": 514}
    return openai(image, text) | {k: torch.tensor(v) for k, v in numbers.items()}


def open_clip(image, text):
    """A text tower with a name of its own."""
    state = openai(image, text)
    own = ("visual.", "logit_scale")
    return {k if k.startswith(own) else f"text.{k}": v for k, v in state.items()}


def open_clip_linear(image, text):
    """As before, and the projection a linear layer."""
    state = open_clip(image, text)
    weight = state.pop("text.text_projection").T.contiguous()
    return {**state, "text.text_projection.weight": weight}


def in_training(image, text):
    return {f"module.{k}": v for k, v in openai(image, text).items()}


def compiled(image, text):
    return {f"_orig_mod.model.{k}": v for k, v in transformers(image, text).items()}


LAYOUTS = (
    transformers,
    transformers_4,
    openai,
    openai_archive,
    open_clip,
    open_clip_linear,
    in_training,
    compiled,
)
