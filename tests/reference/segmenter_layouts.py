"""Whole Segmenters as two projects write them, and what those files compute, by their own names."""

import torch
import torch.nn.functional as F

BLOCK = {  # of a block: our names, mmsegmentation's
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn.attn.in_proj",
    "attn.proj": "attn.attn.out_proj",
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
}


# Checkpoints: tensors of encoder and decoder by our names in, a file's content out.


def official(encoder, decoder):
    model = {}
    for name, value in encoder.items():
        model["encoder." + name] = value.clone()
    if "register_tokens" in encoder:  # the distillation token, which has a position of its own
        both, pos = model.pop("encoder.register_tokens"), encoder["pos_embed"]
        position = torch.randn(both.shape, generator=torch.Generator().manual_seed(3))
        model["encoder.dist_token"] = both - position
        model["encoder.pos_embed"] = torch.cat([pos[:, :1], position, pos[:, 1:]], dim=1)
        model["encoder.head_dist.weight"] = torch.ones(9, both.shape[2])
        model["encoder.head_dist.bias"] = torch.ones(9)
    model["encoder.head.weight"] = torch.ones(9, encoder["norm.weight"].shape[0])
    model["encoder.head.bias"] = torch.ones(9)
    for name, value in decoder.items():
        model["decoder." + name] = value.clone()
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    return {"model": model, "optimizer": optimizer, "n_cls": 5, "lr_scheduler": {}, "epoch": 63}


def official_parallel(encoder, decoder):
    file = official(encoder, decoder)
    file["model"] = {"module." + name: value for name, value in file["model"].items()}
    return file


def mmseg_block(name, value):
    """Turn "blocks.3.attn.qkv.weight" into "layers.3.attn.attn.in_proj_weight"."""
    _, number, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    joint = "_" if part == "attn.qkv" else "."
    return {f"layers.{number}.{BLOCK[part]}{joint}{kind}": value.clone()}


def mmseg_encoder(encoder):
    out = {}
    for name, value in encoder.items():
        if name.startswith("blocks."):
            out |= mmseg_block(name, value)
        elif name.startswith("patch_embed.proj."):
            out[name.replace("proj", "projection")] = value
        elif name.startswith("norm."):
            out[name.replace("norm", "ln1")] = value
        else:
            out[name] = value
    return out


def mmseg_decoder(decoder):
    out = {}
    for name, value in decoder.items():
        if name.startswith("blocks."):
            out |= mmseg_block(name, value)
        elif name.startswith("proj_dec."):
            out[name.replace("proj_dec", "dec_proj")] = value
        elif name == "proj_patch":
            out["patch_proj.weight"] = value.T.contiguous()
        elif name == "proj_classes":
            out["classes_proj.weight"] = value.T.contiguous()
        elif name == "head.weight":
            out["conv_seg.weight"] = value[:, :, None, None]
        elif name == "head.bias":
            out["conv_seg.bias"] = value
        else:
            out[name] = value
    return out


def mmsegmentation(encoder, decoder):
    state = {"backbone." + name: value for name, value in mmseg_encoder(encoder).items()}
    for name, value in mmseg_decoder(decoder).items():
        state["decode_head." + name] = value
    return {"meta": {"CLASSES": ("a", "b")}, "state_dict": state}


def mmsegmentation_old(encoder, decoder):
    """With the convolution that its mask transformer inherits and leaves out, before it did so."""
    file = mmsegmentation(encoder, decoder)
    if "cls_emb" in decoder:
        classes, dim = decoder["cls_emb"].shape[1:]
        file["state_dict"]["decode_head.conv_seg.weight"] = torch.ones(classes, dim, 1, 1)
        file["state_dict"]["decode_head.conv_seg.bias"] = torch.ones(classes)
    return file


LAYOUTS = (official, official_parallel, mmsegmentation, mmsegmentation_old)


# What the files compute, for images (B, 3, H, W): logits (B, K, h, w).


def linear(x, state, name):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(x, state, name, eps):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def embedded(x, state, prefix, projection, *, mode):
    """Tokens with positions, and the grid; what is no patch comes first."""
    name = f"{prefix}.patch_embed.{projection}"
    weight = state[f"{name}.weight"]
    cells = F.conv2d(x, weight, state[f"{name}.bias"], stride=weight.shape[-1])
    grid = cells.shape[2:]
    first = [state[f"{prefix}.cls_token"]]
    if f"{prefix}.dist_token" in state:
        first.append(state[f"{prefix}.dist_token"])
    tokens = [token.expand(len(x), -1, -1) for token in first]
    tokens = torch.cat([*tokens, cells.flatten(2).transpose(1, 2)], dim=1)
    pos, extra = state[f"{prefix}.pos_embed"], len(first)
    side = round((pos.shape[1] - extra) ** 0.5)
    maps = pos[:, extra:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode=mode, align_corners=False)
    return tokens + torch.cat([pos[:, :extra], maps.flatten(2).transpose(1, 2)], dim=1), extra, grid


def official_block(z, state, name, heads):
    dim = z.shape[-1]
    joined = linear(norm(z, state, f"{name}.norm1", 1e-5), state, f"{name}.attn.qkv")
    q, k, v = joined.reshape(*z.shape[:2], 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    shares = (q @ k.transpose(2, 3) / (dim // heads) ** 0.5).softmax(-1)
    z = z + linear((shares @ v).transpose(1, 2).flatten(2), state, f"{name}.attn.proj")
    hidden = F.gelu(linear(norm(z, state, f"{name}.norm2", 1e-5), state, f"{name}.mlp.fc1"))
    return z + linear(hidden, state, f"{name}.mlp.fc2")


def mmseg_layer(z, state, name, heads, eps):
    n = norm(z, state, f"{name}.ln1", eps).transpose(0, 1)  # tokens first
    given = [state[f"{name}.attn.attn.in_proj_{kind}"] for kind in ("weight", "bias")]
    back = [state[f"{name}.attn.attn.out_proj.{kind}"] for kind in ("weight", "bias")]
    # arguments 7 to 10: no biases of keys and values, no zero attention, no dropout
    attended, _ = F.multi_head_attention_forward(
        n, n, n, z.shape[-1], heads, *given, None, None, False, 0.0, *back, training=False
    )
    z = z + attended.transpose(0, 1)
    hidden = F.gelu(linear(norm(z, state, f"{name}.ln2", eps), state, f"{name}.ffn.layers.0.0"))
    return z + linear(hidden, state, f"{name}.ffn.layers.1")


def blocks_of(state, prefix):
    i = 0
    while any(name.startswith(f"{prefix}.{i}.") for name in state):
        yield f"{prefix}.{i}"
        i += 1


def compared(z, count, patches, classes, state, mask_norm):
    """Cosines of the first `count` tokens and the others, normed over the others."""
    a, b = z[:, :count] @ patches, z[:, count:] @ classes
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    return norm(a @ b.transpose(1, 2), state, mask_norm, 1e-5)


def official_forward(x, state):
    z, extra, grid = embedded(x, state, "encoder", "proj", mode="bilinear")
    for name in blocks_of(state, "encoder.blocks"):
        z = official_block(z, state, name, z.shape[-1] // 64)
    z = norm(z, state, "encoder.norm", 1e-5)[:, extra:]
    count = z.shape[1]
    if "decoder.head.weight" in state:
        scores = linear(z, state, "decoder.head")
    else:
        z = linear(z, state, "decoder.proj_dec")
        z = torch.cat([z, state["decoder.cls_emb"].expand(len(z), -1, -1)], dim=1)
        for name in blocks_of(state, "decoder.blocks"):
            z = official_block(z, state, name, z.shape[-1] // 64)
        z = norm(z, state, "decoder.decoder_norm", 1e-5)
        pair = state["decoder.proj_patch"], state["decoder.proj_classes"]
        scores = compared(z, count, *pair, state, "decoder.mask_norm")
    return scores.transpose(1, 2).unflatten(2, grid)


def mmseg_forward(x, state):
    z, extra, grid = embedded(x, state, "backbone", "projection", mode="bicubic")
    for name in blocks_of(state, "backbone.layers"):
        z = mmseg_layer(z, state, name, z.shape[-1] // 64, 1e-6)
    z = norm(z, state, "backbone.ln1", 1e-6)[:, extra:]
    count = z.shape[1]
    if "decode_head.cls_emb" not in state:
        maps = z.transpose(1, 2).unflatten(2, grid)
        name = "decode_head.conv_seg"
        return F.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"])
    z = linear(z, state, "decode_head.dec_proj")
    z = torch.cat([z, state["decode_head.cls_emb"].expand(len(z), -1, -1)], dim=1)
    for name in blocks_of(state, "decode_head.layers"):
        z = mmseg_layer(z, state, name, z.shape[-1] // 64, 1e-5)
    z = norm(z, state, "decode_head.decoder_norm", 1e-5)
    pair = (state[f"decode_head.{part}_proj.weight"].T for part in ("patch", "classes"))
    scores = compared(z, count, *pair, state, "decode_head.mask_norm")
    return scores.transpose(1, 2).unflatten(2, grid)
