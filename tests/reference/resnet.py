"""A residual network written out by its names, and the files it comes in."""

import re

import torch
import torch.nn.functional as F

from zerolabel.networks.resnet import random_resnet

# Output stride to, for every stage: its stride, the dilation of 3x3 convolutions up to the place
# where the stage strides or would stride, and the dilation after it.
PLANS = {
    32: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)],
    16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)],
    8: [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)],
}


def lively(config, seed=0):
    """A network in evaluation mode whose norms do something, with statistics of no image."""
    net = random_resnet(config, seed=seed)
    net.load_state_dict(weights_of(config, seed))
    return net.eval()


def weights_of(config, seed=0):
    """Random weights none of which are alike; norms that keep the size of what passes."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, value in random_resnet(config, seed=seed).state_dict().items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.tensor(len(out))
        elif value.ndim == 1:
            positive = name.endswith(("running_var", "weight"))
            noise = torch.rand(value.shape, generator=generator)
            out[name] = 0.5 + noise if positive else noise - 0.5
        else:
            noise = torch.randn(value.shape, generator=generator)
            out[name] = noise * (2 / value[0].numel()) ** 0.5
    return out


def norm(x, state, name):
    def column(part):
        return state[f"{name}.{part}"][:, None, None]

    x = (x - column("running_mean")) / (column("running_var") + 1e-5).sqrt()
    return x * column("weight") + column("bias")


def unit(x, state, conv, bn, *, stride=1, dilation=1):
    """A convolution and its norm; the padding keeps the size, over the stride."""
    weight = state[f"{conv}.weight"]
    pad = dilation * (weight.shape[-1] - 1) // 2
    x = F.pad(x, (pad, pad, pad, pad))
    return norm(F.conv2d(x, weight, stride=stride, dilation=dilation), state, bn)


def block(x, state, name, *, stride, before, after):
    def step(z, i, **how):
        return unit(z, state, f"{name}.conv{i}", f"{name}.bn{i}", **how)

    if f"{name}.conv3.weight" in state:
        z = step(x, 1).clamp(min=0)
        z = step(z, 2, stride=stride, dilation=before).clamp(min=0)
        z = step(z, 3)
    else:
        z = step(x, 1, stride=stride, dilation=before).clamp(min=0)
        z = step(z, 2, dilation=after)
    if f"{name}.downsample.0.weight" in state:
        x = unit(x, state, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
    return (z + x).clamp(min=0)


def forward(x, state, *, output_stride=32):
    """Everything that a network gives for images (B, 3, H, W), by name."""
    z = unit(x, state, "conv1", "bn1", stride=2).clamp(min=0)
    z = F.pad(z, (1, 1, 1, 1))  # zeros do no harm behind a rectifier
    z = F.max_pool2d(z, kernel_size=3, stride=2)
    out = {}
    for number, (stride, before, after) in enumerate(PLANS[output_stride], start=1):
        i = 0
        while f"layer{number}.{i}.conv1.weight" in state:
            how = (stride, before, after) if i == 0 else (1, after, after)
            how = dict(zip(("stride", "before", "after"), how, strict=True))
            z = block(z, state, f"layer{number}.{i}", **how)
            i += 1
        out[f"layer{number}"] = z
    out["pooled"] = z.flatten(2).sum(2) / z[0, 0].numel()
    if "fc.weight" in state:
        out["logits"] = out["pooled"] @ state["fc.weight"].T + state["fc.bias"]
    return out


def pyramid(maps, state):
    """Lin et al. 2017 on maps of any sizes, finest first: enlarged by repeating, pixel by pixel."""
    merged = []
    for i in reversed(range(len(maps))):
        weight, bias = state[f"inner_blocks.{i}.weight"], state[f"inner_blocks.{i}.bias"]
        z = torch.einsum("dc,bchw->bdhw", weight[:, :, 0, 0], maps[i]) + bias[:, None, None]
        if merged:
            coarse = merged[0]
            rows, cols = (-(-f // c) for f, c in zip(z.shape[2:], coarse.shape[2:], strict=True))
            for y in range(z.shape[2]):
                for x in range(z.shape[3]):
                    z[:, :, y, x] += coarse[:, :, y // rows, x // cols]
        merged.insert(0, z)
    return [
        F.conv2d(F.pad(z, (1, 1, 1, 1)), state[f"layer_blocks.{i}.weight"])
        + state[f"layer_blocks.{i}.bias"][:, None, None]
        for i, z in enumerate(merged)
    ]


# Checkpoints: torchvision's names in, a file's content out.


def _under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def _other(state):
    return {k: v + 1 for k, v in state.items()}


def _body(state):
    return {k: v for k, v in state.items() if not k.startswith("fc.")}


def torchvision(state):
    return dict(state)


def torchvision_old(state):
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def dino(state):
    return _body(state)


def dino_training(state):
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2, 2)}
    teacher = {**_under("backbone.", _body(state)), **head}
    return {"student": _under("module.", _other(teacher)), "teacher": teacher, "epoch": 3}


def dino_flat(state):
    nests = dino_training(state)
    return {**_under("student.", nests["student"]), **_under("teacher.", nests["teacher"])}


def moco_v1(state):
    head = {"fc.weight": torch.ones(128, 2), "fc.bias": torch.ones(128)}
    inner = _under("module.encoder_q.", {**_body(state), **head})
    return {"epoch": 200, "arch": "resnet50", "state_dict": inner}


def moco_v2(state):
    head = {"fc.0.weight": torch.ones(2, 2), "fc.0.bias": torch.ones(2)}
    head |= {"fc.2.weight": torch.ones(2, 2), "fc.2.bias": torch.ones(2)}
    query = {**_body(state), **head}
    inner = {
        **_under("module.encoder_k.", _other(query)),
        **_under("module.encoder_q.", query),
        "module.queue": torch.ones(2, 2),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return {"epoch": 800, "arch": "resnet50", "state_dict": inner}


LAYOUTS = (torchvision, torchvision_old, dino, dino_training, dino_flat, moco_v1, moco_v2)


def transformers_names(state):
    """Our names of the tensors of ResNetForImageClassification."""
    out = {}
    for key, value in state.items():
        name = key.removeprefix("resnet.")
        name = re.sub(r"^embedder\.embedder\.convolution", "conv1", name)
        name = re.sub(r"^embedder\.embedder\.normalization", "bn1", name)
        name = re.sub(r"^classifier\.1", "fc", name)
        name = re.sub(
            r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}.", name
        )
        for theirs, conv, bn in (("convolution", "conv", None), ("normalization", None, "bn")):
            ours = conv or bn
            name = re.sub(rf"layer\.(\d+)\.{theirs}", lambda m, o=ours: f"{o}{int(m[1]) + 1}", name)
            name = name.replace(f"shortcut.{theirs}", f"downsample.{0 if conv else 1}")
        out[name] = value
    return out
