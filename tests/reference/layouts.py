"""How each layout names the tensors of a vision transformer: original names in, its own out."""

import re

import torch

from zerolabel.networks.vit import random_vit


def weights_of(config, seed=0):
    """Random weights none of which are alike."""
    generator = torch.Generator().manual_seed(seed)
    state = random_vit(config, seed=seed).state_dict()
    return {k: torch.randn(v.shape, generator=generator) for k, v in state.items()}


def split_qkv(state, names):
    out = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            for name, part in zip(names, value.chunk(3), strict=True):
                out[key.replace("attn.qkv", name)] = part.clone()
        else:
            out[key] = value
    return out


def renamed(state, pairs):
    out = {}
    for key, value in state.items():
        for old, new in pairs:
            key = re.sub(old, new, key)
        out[key] = value
    return out


EMBEDDINGS = (
    (r"^(cls_token|register_tokens)", r"embeddings.\1"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^norm\.", "layernorm."),
    (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
)
V4_ATTENTION = [f"attention.attention.{name}" for name in ("query", "key", "value")]
V5_ATTENTION = [f"attention.{name}_proj" for name in "qkv"]
V1_NORMS = ((r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."))


def transformers_4(state, config):
    pairs = [*EMBEDDINGS, (r"^blocks", "encoder.layer"), (r"attn\.proj", "attention.output.dense")]
    if not config.layerscale:
        pairs += [*V1_NORMS, (r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense")]
    out = renamed(split_qkv(state, V4_ATTENTION), pairs)
    return {**out, "pooler.dense.weight": torch.ones(2), "embeddings.mask_token": torch.ones(2)}


def transformers_5(state, config):
    pairs = [*EMBEDDINGS, (r"attn\.proj", "attention.o_proj")]
    if config.layerscale:
        pairs.append((r"^blocks", "encoder.layer"))
    else:
        pairs += [*V1_NORMS, (r"^blocks", "layers")]
    return renamed(split_qkv(state, V5_ATTENTION), pairs)


def classifier_of_transformers(state, config):
    prefix = "dinov2" if config.layerscale else "vit"
    out = {f"{prefix}.{k}": v for k, v in transformers_4(state, config).items()}
    return {**out, "classifier.weight": torch.ones(3, 3)}


def timm(state, config):
    out = dict(state)
    if config.registers:
        out["reg_token"] = out.pop("register_tokens")
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:].clone()
    return {**out, "head.weight": torch.ones(3, 3), "head.bias": torch.ones(3)}


def original(state, config):
    return {**state, "mask_token": torch.ones(1, 128)} if config.layerscale else dict(state)


def chunked(state, config):
    return renamed(state, [(r"^blocks\.(\d+)", r"backbone.blocks.0.\1")])


def in_training(state, config):
    out = {f"module.backbone.{k}": v for k, v in state.items()}
    return {
        **out,
        "module.head.mlp.0.weight": torch.ones(3),
        "module.head.last_layer.weight_g": torch.ones(3),
    }


LAYOUTS = (
    original,
    in_training,
    chunked,
    timm,
    transformers_4,
    transformers_5,
    classifier_of_transformers,
)
