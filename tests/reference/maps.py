"""Maps and thresholds written out loop by loop."""

import math

import torch


def mass_threshold(attention, mass):
    """One map (h, w): drop the smallest patches while their sum stays within 1 - mass."""
    values = [(float(v), i) for i, v in enumerate(attention.double().flatten())]
    total = math.fsum(v for v, _ in values)
    kept = torch.zeros(len(values), dtype=torch.bool)
    dropped = 0.0
    for value, i in sorted(values):
        dropped += value
        kept[i] = mass > 0 and total > 0 and dropped > (1 - mass) * total
    return kept.reshape(attention.shape)


def seed_logits(net, x, *, floor):
    """The full T x T product of every head, averaged afterwards."""
    z, (h, w) = net.trunk(x)
    attention = net.blocks[-1].attn
    q, k, _ = attention.qkv(z).chunk(3, dim=-1)
    out = []
    for image in range(len(x)):
        heads = []
        width = q.shape[-1] // attention.heads
        for head in range(attention.heads):
            part = slice(head * width, (head + 1) * width)
            logits = q[image, :, part] @ k[image, :, part].T  # (T, T)
            heads.append(logits[:, 1 + net.config.registers :].mean(0))
        out.append(torch.stack(heads).mean(0).clamp_min(floor).reshape(h, w))
    return torch.stack(out)


def otsu(values, edges):
    """The edge that leaves the least variance within both sides."""
    best, where = math.inf, None
    for edge in edges:
        low, high = values[values <= edge], values[values > edge]
        if len(low) and len(high):
            within = len(low) * low.var() + len(high) * high.var()
            if within < best - 1e-12:
                best, where = within, edge
    return where
