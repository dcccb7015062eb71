"""The towers of CLIP written out: every attention matrix in full, every text from its start."""

import math

import torch
from reference.position import interpolate
from reference.vit import linear, norm

EPS = 1e-5


def quick(x):
    return x / (1 + torch.exp(-1.702 * x))


def exact(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


ACTIVATIONS = {"quick": quick, "gelu": exact}


def block(z, state, name, *, heads, act, attention=None, seen=None, residual=True, mlp=True):
    """One block on (T, D), with the given attention (heads, T, T) instead of its own.

    `seen`, bool (T, T), says which token (column) is seen by which (row); all by default. Returns
    the tokens, queries, keys, values (T, D) and the attention (heads, T, T).
    """
    q, k, v = linear(norm(z, state, f"{name}.norm1", EPS), state, f"{name}.attn.qkv").chunk(3, -1)
    size = q.shape[1] // heads
    mixed, maps = [], []
    for head in range(heads):
        cols = slice(head * size, (head + 1) * size)
        scores = q[:, cols] @ k[:, cols].T / math.sqrt(size)
        if seen is not None:
            scores = torch.where(seen, scores, -torch.inf)
        maps.append(torch.softmax(scores, -1) if attention is None else attention[head])
        mixed.append(maps[-1] @ v[:, cols])
    attended = linear(torch.cat(mixed, -1), state, f"{name}.attn.proj")
    z = z + attended if residual else attended
    if mlp:
        hidden = act(linear(norm(z, state, f"{name}.norm2", EPS), state, f"{name}.mlp.fc1"))
        z = z + linear(hidden, state, f"{name}.mlp.fc2")
    return z, q, k, v, torch.stack(maps)


def patches(image, state):
    """(3, H, W) -> (h*w, D), one patch after the other."""
    weight = state["patch_embed.proj.weight"]
    dim, _, side, _ = weight.shape
    h, w = image.shape[1] // side, image.shape[2] // side
    out = []
    for i in range(h):
        for j in range(w):
            cut = image[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
            out.append(weight.reshape(dim, -1) @ cut.reshape(-1))
    return torch.stack(out), (h, w)


def image_tower(image, state, *, depth, heads, activation):
    """One image (3, H, W) -> features without batch axis, "dense" by (residual, mlp)."""
    z, (h, w) = patches(image, state)
    pos = state["pos_embed"][0]
    resampled = interpolate(pos[1:].double().numpy(), (h, w), "size")
    z = z + torch.from_numpy(resampled).to(z.dtype)
    z = norm(torch.cat([state["cls_token"][0] + pos[:1], z]), state, "norm_pre", EPS)
    common = {"heads": heads, "act": ACTIVATIONS[activation]}
    for i in range(depth - 1):
        z = block(z, state, f"blocks.{i}", **common)[0]
    name = f"blocks.{depth - 1}"
    last, q, k, v, maps = block(z, state, name, **common)
    last = norm(last, state, "norm", EPS)
    identity = torch.eye(len(z), dtype=z.dtype).expand(heads, -1, -1)
    dense = {}
    for residual in (True, False):
        for mlp in (True, False):
            how = {"residual": residual, "mlp": mlp, "attention": identity}
            alone = block(z, state, name, **common, **how)[0]
            alone = norm(alone, state, "norm", EPS) @ state["proj"]
            dense[residual, mlp] = alone[1:].reshape(h, w, -1)
    return {
        "tokens": last[1:].reshape(h, w, -1),
        "queries": q[1:].reshape(h, w, -1),
        "keys": k[1:].reshape(h, w, -1),
        "values": v[1:].reshape(h, w, -1),
        "cls": last[0],
        "attention": maps[:, 0, 1:].reshape(heads, h, w),
        "received": maps.amin(0).sum(0)[1:].reshape(h, w),
        "context": z,
        "slopes": slopes(z, state, name, maps, common).reshape(h, w, -1),
        "joint": last[0] @ state["proj"],
        "dense": dense,
    }


def slopes(context, state, name, maps, common):
    """One backward pass per channel of CLS, with respect to its attention: (h*w, D)."""
    free = maps.detach().requires_grad_()
    with torch.enable_grad():
        cls = norm(
            block(context.detach(), state, name, attention=free, **common)[0], state, "norm", EPS
        )[0]
        rows = [torch.autograd.grad(c, free, retain_graph=True)[0][:, 0, 1:].mean(0) for c in cls]
    return torch.stack(rows, -1)


def text_tower(vectors, at, state, *, depth, heads, activation):
    """Token vectors (L, dim) of one text, read at `at`: (P,)."""
    length = len(vectors)
    z = vectors + state["positional_embedding"][:length]
    seen = torch.tensor([[j <= i for j in range(length)] for i in range(length)])
    for i in range(depth):
        act = ACTIVATIONS[activation]
        z = block(z, state, f"blocks.{i}", heads=heads, act=act, seen=seen)[0]
    return norm(z, state, "norm", EPS)[at] @ state["proj"]


def from_transformers(theirs, ours, *, tower):
    """Copy the weights of transformers' "vision" or "text" model into ours, name by name."""
    state, found = theirs.state_dict(), {}
    inside = f"{tower}_model."
    for i in range(ours.config.depth):
        layer, own = f"{inside}encoder.layers.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            parts = [state[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{own}attn.qkv.{kind}"] = torch.cat(parts)
            found[f"{own}attn.proj.{kind}"] = state[f"{layer}self_attn.out_proj.{kind}"]
            for name in ("mlp.fc1", "mlp.fc2"):
                found[f"{own}{name}.{kind}"] = state[f"{layer}{name}.{kind}"]
            for n in (1, 2):
                found[f"{own}norm{n}.{kind}"] = state[f"{layer}layer_norm{n}.{kind}"]
    embeddings = f"{inside}embeddings."
    if tower == "vision":
        found["cls_token"] = state[f"{embeddings}class_embedding"][None, None]
        found["patch_embed.proj.weight"] = state[f"{embeddings}patch_embedding.weight"]
        found["pos_embed"] = state[f"{embeddings}position_embedding.weight"][None]
        norms = {"norm_pre": "pre_layrnorm", "norm": "post_layernorm"}
        found["proj"] = state["visual_projection.weight"].T
    else:
        found["token_embedding.weight"] = state[f"{embeddings}token_embedding.weight"]
        found["positional_embedding"] = state[f"{embeddings}position_embedding.weight"]
        norms = {"norm": "final_layer_norm"}
        found["proj"] = state["text_projection.weight"].T
    for own, name in norms.items():
        for kind in ("weight", "bias"):
            found[f"{own}.{kind}"] = state[f"{inside}{name}.{kind}"]
    ours.load_state_dict(found)


def enliven(net, *, seed=0):
    """Give a network of transformers or of ours weights of which none is zero, one or small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.3 * noise)
            elif value.ndim > 1:
                inputs = len(value) if name == "proj" else value[0].numel()
                value.copy_(noise * inputs**-0.5)
            else:
                value.copy_(0.3 * noise)
    return net.eval()
