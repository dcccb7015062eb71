"""Responses to clusters by backward passes through the last block, and their gates by loops."""

import math

import torch
import torch.nn.functional as F
from reference.maps import mass_threshold
from reference.vit import linear, norm


def loss_of(cls, centre, loss):
    if loss == "dot":
        return 1 - cls @ centre / math.sqrt(len(cls))
    return 1 - cls @ centre / (cls.square().sum().sqrt() * centre.square().sum().sqrt())


def last_block(context, state, *, depth, heads):
    """CLS (D,) after the last norm, and the attention (heads, T, T) it is a function of."""
    name = f"blocks.{depth - 1}"
    q, k, v = linear(norm(context, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(3, -1)
    size = q.shape[1] // heads
    cols = [slice(head * size, (head + 1) * size) for head in range(heads)]
    maps = [torch.softmax(q[:, c] @ k[:, c].T / math.sqrt(size), -1) for c in cols]
    attention = torch.stack(maps).detach().requires_grad_()
    mixed = torch.cat([attention[head] @ v[:, c] for head, c in enumerate(cols)], -1)
    attended = linear(mixed, state, f"{name}.attn.proj")
    z = context + attended * state.get(f"{name}.ls1.gamma", 1.0)
    hidden = F.gelu(linear(norm(z, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
    z = z + linear(hidden, state, f"{name}.mlp.fc2") * state.get(f"{name}.ls2.gamma", 1.0)
    return norm(z, state, "norm")[0], attention


def gradients(context, state, centres, *, depth, heads, grid, loss):
    """One backward pass per centre of one image, whose tokens (T, D) enter the last block.

    Returns the gradients (K, h, w), means over heads, and CLS and its attention (h, w) beside them.
    """
    cls, attention = last_block(context, state, depth=depth, heads=heads)
    cells = grid[0] * grid[1]
    maps = []
    for centre in centres:
        value = loss_of(cls, centre, loss)
        (slope,) = torch.autograd.grad(value, attention, retain_graph=True)
        assert not slope[:, 1:].any()  # no other row reaches CLS
        maps.append(slope[:, 0, -cells:].mean(0).reshape(grid))
    row = attention[:, 0, -cells:].mean(0).reshape(grid)
    return torch.stack(maps), cls.detach(), row.detach()


def slopes(context, state, *, depth, heads, grid):
    """One backward pass per channel of CLS, mean over heads: (h, w, D)."""
    cls, attention = last_block(context, state, depth=depth, heads=heads)
    cells = grid[0] * grid[1]
    rows = [torch.autograd.grad(c, attention, retain_graph=True)[0][:, 0, -cells:] for c in cls]
    return torch.stack([row.mean(0) for row in rows], -1).reshape(*grid, len(cls))


def responses(attention, gradients, *, mass, veto, relative, scale):
    """One image: attention (h, w) and gradients (K, h, w) -> (K, h, w), number by number."""
    out = torch.zeros_like(gradients)
    _, h, w = gradients.shape
    cells = [(i, j) for i in range(h) for j in range(w)]
    most = max(float(attention[cell]) for cell in cells)
    for k, slope in enumerate(gradients):
        kept = mass_threshold((-slope).clamp_min(0), mass)
        for cell in cells:
            base = float(attention[cell]) / (most if relative and most > 0 else 1.0)
            value = base + (-scale * float(slope[cell]) if kept[cell] else 0.0)
            out[(k, *cell)] = 0.0 if veto and slope[cell] > 0 else value
    return out
