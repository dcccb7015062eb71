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


def block(z, state, name, heads, *, seen=None):
    """One block on (T, D), every attention matrix in full.

    `seen`, bool (T, T), says which token (column) is seen by which (row); all by default. Returns
    the tokens, queries, keys, values (T, D) and the attention (heads, T, T).
    """
    q, k, v = linear(norm(z, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(3, -1)
    size = q.shape[1] // heads
    mixed, maps = [], []
    for head in range(heads):
        cols = slice(head * size, (head + 1) * size)
        scores = q[:, cols] @ k[:, cols].T / math.sqrt(size)
        if seen is not None:
            scores = torch.where(seen, scores, -torch.inf)
        maps.append(torch.softmax(scores, -1))
        mixed.append(maps[-1] @ v[:, cols])
    attended = linear(torch.cat(mixed, -1), state, f"{name}.attn.proj")
    z = z + attended * state.get(f"{name}.ls1.gamma", 1.0)
    hidden = F.gelu(linear(norm(z, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
    z = z + linear(hidden, state, f"{name}.mlp.fc2") * state.get(f"{name}.ls2.gamma", 1.0)
    return z, q, k, v, torch.stack(maps)


def forward(image, state, *, depth, heads, rule):
    """One image (3, H, W) -> all of `Features`, without batch axis.

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
        context = z
        z, q, k, v, maps = block(z, state, f"blocks.{i}", heads)
    z = norm(z, state, "norm")
    received = torch.zeros(len(z), dtype=z.dtype)
    for to in range(len(z)):
        for asking in range(len(z)):
            received[to] += min(maps[head, asking, to] for head in range(heads))
    return {
        "tokens": z[first:].reshape(h, w, -1),
        "queries": q[first:].reshape(h, w, -1),
        "keys": k[first:].reshape(h, w, -1),
        "values": v[first:].reshape(h, w, -1),
        "cls": z[0],
        "attention": maps[:, 0, first:].reshape(heads, h, w),
        "received": received[first:].reshape(h, w),
        "context": context,
        "full": maps,
    }


def within(context, state, mask, *, depth, heads):
    """CLS token (D,) if the last block shows it itself and the patches of `mask` (h, w) only."""
    seen = torch.ones(len(context), len(context), dtype=torch.bool)
    seen[0] = False
    seen[0, 0] = True
    seen[0, len(context) - mask.numel() :] = mask.flatten()
    z, *_ = block(context, state, f"blocks.{depth - 1}", heads, seen=seen)
    return norm(z, state, "norm")[0]
