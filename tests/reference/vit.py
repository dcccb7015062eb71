"""A vision transformer written out loop by loop, every attention matrix in full."""

import math

import torch
import torch.nn.functional as F
from reference.position import interpolate


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(x, state, name, eps=1e-6):
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def patches(image, state):
    """(3, H, W) -> (h*w, D), one patch after the other."""
    weight = state["patch_embed.proj.weight"]
    dim, _, side, _ = weight.shape
    h, w = image.shape[1] // side, image.shape[2] // side
    out = []
    for i in range(h):
        for j in range(w):
            cut = image[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
            out.append(weight.reshape(dim, -1) @ cut.reshape(-1) + state["patch_embed.proj.bias"])
    return torch.stack(out), (h, w)


def forward(image, state, *, depth, heads, rule):
    """One image (3, H, W) -> tokens, keys, cls, attention as `Features`, without batch axis.

    Also returns the full last attention (heads, T, T).
    """
    z, (h, w) = patches(image, state)
    pos = state["pos_embed"][0]
    grid_pos = pos[1:]
    if h != w or h * w != len(grid_pos):
        resampled = interpolate(grid_pos.double().numpy(), (h, w), rule)
        grid_pos = torch.from_numpy(resampled).to(z.dtype)
    registers = state["register_tokens"][0] if "register_tokens" in state else z[:0]
    z = torch.cat([state["cls_token"][0] + pos[:1], registers, z + grid_pos])
    first = 1 + len(registers)
    for i in range(depth):
        name = f"blocks.{i}"
        q, k, v = linear(norm(z, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(3, -1)
        size = q.shape[1] // heads
        mixed, maps = [], []
        for head in range(heads):
            cols = slice(head * size, (head + 1) * size)
            maps.append(torch.softmax(q[:, cols] @ k[:, cols].T / math.sqrt(size), -1))
            mixed.append(maps[-1] @ v[:, cols])
        attended = linear(torch.cat(mixed, -1), state, f"{name}.attn.proj")
        z = z + attended * state.get(f"{name}.ls1.gamma", 1.0)
        hidden = F.gelu(linear(norm(z, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
        z = z + linear(hidden, state, f"{name}.mlp.fc2") * state.get(f"{name}.ls2.gamma", 1.0)
    z = norm(z, state, "norm")
    maps = torch.stack(maps)
    return {
        "tokens": z[first:].reshape(h, w, -1),
        "keys": k[first:].reshape(h, w, -1),
        "cls": z[0],
        "attention": maps[:, 0, first:].reshape(heads, h, w),
        "full": maps,
    }
