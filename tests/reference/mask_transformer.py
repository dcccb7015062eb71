"""The mask transformer of Segmenter, one token and one head at a time."""

import math

import torch


def linear(x, state, name):
    """(D,) -> (E,), with a bias where there is one."""
    return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0.0)


def norm(x, state, name, eps):
    centred = x - x.sum() / len(x)
    centred = centred / math.sqrt(float((centred**2).sum()) / len(x) + eps)
    return centred * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def block(tokens, state, name, *, heads, eps):
    """Tokens, a list of (D,): the next tokens, and the attention [head][asking][asked]."""
    dim = len(tokens[0])
    size = dim // heads
    joined = [
        linear(norm(x, state, f"{name}.norm1", eps), state, f"{name}.attn.qkv") for x in tokens
    ]
    mixed = [torch.zeros_like(x) for x in tokens]
    maps = []
    for head in range(heads):
        cuts = [
            slice(part * dim + head * size, part * dim + (head + 1) * size) for part in range(3)
        ]
        q, k, v = ([x[cut] for x in joined] for cut in cuts)
        rows = []
        for i in range(len(tokens)):
            powers = [math.exp(float(q[i] @ key) / math.sqrt(size)) for key in k]
            rows.append([power / sum(powers) for power in powers])
            for weight, value in zip(rows[i], v, strict=True):
                mixed[i][head * size : (head + 1) * size] += weight * value
        maps.append(rows)
    out = []
    for x, attended in zip(tokens, mixed, strict=True):
        x = x + linear(attended, state, f"{name}.attn.proj")
        hidden = gelu(linear(norm(x, state, f"{name}.norm2", eps), state, f"{name}.mlp.fc1"))
        out.append(x + linear(hidden, state, f"{name}.mlp.fc2"))
    return out, maps


def forward(tokens, state, *, depth, heads, eps):
    """Patch tokens of one image (h, w, E).

    Returns:
        Scores (K, h, w), class embeddings (K, D) and the attention of classes to patches in every
        block (depth, heads, K, h, w).
    """
    h, w, _ = tokens.shape
    count = h * w
    z = [linear(tokens[i, j], state, "proj_dec") for i in range(h) for j in range(w)]
    z += list(state["cls_emb"][0])
    looks = []
    for i in range(depth):
        z, maps = block(z, state, f"blocks.{i}", heads=heads, eps=eps)
        looks.append([[row[:count] for row in rows[count:]] for rows in maps])
    z = [norm(x, state, "decoder_norm", eps) for x in z]
    patches = [x @ state["proj_patch"] for x in z[:count]]
    classes = [x @ state["proj_classes"] for x in z[count:]]
    classes = [x / math.sqrt(float(x @ x)) for x in classes]
    scores = []
    for x in patches:
        cosines = torch.stack([x @ c / math.sqrt(float(x @ x)) for c in classes])
        scores.append(norm(cosines, state, "mask_norm", eps))
    looks = torch.tensor(looks, dtype=torch.float64)
    return (
        torch.stack(scores, -1).reshape(-1, h, w),
        torch.stack(classes),
        looks.reshape(depth, heads, -1, h, w),
    )
