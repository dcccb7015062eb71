"""DeepLabV3 and the light student written out by the names of their tensors; noisy masks."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from reference import resnet, vit
from reference.distil import tap
from reference.position import interpolate

from zerolabel.store import below


def shaken(net, seed=0):
    """Norms that do something, with statistics of no image; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(noise + 0.5 if name.endswith(("var", "weight")) else noise - 0.5)
    return net.eval()


def _dilated(x, weight, rate):
    """A 3x3 convolution of a dilation, tap by tap."""
    return sum(
        tap(x, weight[:, :, i, j], (i - 1) * rate, (j - 1) * rate)
        for i in range(3)
        for j in range(3)
    )


def _pointwise(x, weight):
    return torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x)


def deeplabv3(x, state, *, output_stride, rates):
    """Images (B, 3, H, W) -> logits (B, K, H, W), as torchvision's network gives them."""
    body = below(state, "backbone.")
    z = resnet.forward(x, body, output_stride=output_stride)["layer4"]

    def normed(y, name):
        return resnet.norm(y, state, f"classifier.{name}").clamp(min=0)

    def weight(name):
        return state[f"classifier.{name}.weight"]

    parts = [normed(_pointwise(z, weight("0.convs.0.0")), "0.convs.0.1")]
    for i, rate in enumerate(rates, start=1):
        parts.append(normed(_dilated(z, weight(f"0.convs.{i}.0"), rate), f"0.convs.{i}.1"))
    last = len(rates) + 1
    mean = z.flatten(2).mean(2)[:, :, None, None]
    pooled = normed(_pointwise(mean, weight(f"0.convs.{last}.1")), f"0.convs.{last}.2")
    parts.append(F.interpolate(pooled, size=z.shape[2:], mode="bilinear", align_corners=False))
    z = normed(_pointwise(torch.cat(parts, 1), weight("0.project.0")), "0.project.1")
    z = normed(_dilated(z, weight("1"), 1), "2")
    z = _pointwise(z, weight("4")) + state["classifier.4.bias"][:, None, None]
    return F.interpolate(z, size=x.shape[2:], mode="bilinear", align_corners=False)


def light(image, state, *, depth, heads):
    """One image (3, H, W) of whole patches -> logits (K, H/4, W/4)."""
    net, decoder = below(state, "encoder."), below(state, "decoder.")
    z, fine, i = image[None], None, 0
    while f"patch_embed.stages.{i}.conv.weight" in net:
        z = F.pad(z, (1, 1, 1, 1), mode="replicate")
        z = F.conv2d(z, net[f"patch_embed.stages.{i}.conv.weight"], stride=2)
        z = (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt()
        scale, shift = (net[f"patch_embed.stages.{i}.norm.{n}"] for n in ("weight", "bias"))
        z = F.gelu(z * scale[:, None, None] + shift[:, None, None])
        fine = z if i == 1 else fine
        i += 1
    z = _pointwise(z, net["patch_embed.proj.weight"]) + net["patch_embed.proj.bias"][:, None, None]
    h, w = z.shape[2:]
    pos = interpolate(net["pos_embed"][0, 1:].numpy(), (h, w), rule="size")
    pos = torch.from_numpy(np.asarray(pos)).float()
    tokens = z[0].flatten(1).T + pos
    tokens = torch.cat([net["cls_token"][0] + net["pos_embed"][0, :1], tokens])
    for number in range(depth):
        tokens = vit.block(tokens, net, f"blocks.{number}", heads)[0]
    tokens = vit.norm(tokens, net, "norm")[1:].T.reshape(1, -1, h, w)
    deep = F.interpolate(
        _pointwise(tokens, decoder["deep.weight"]), size=fine.shape[2:], mode="bilinear"
    )
    z = resnet.norm(deep + _pointwise(fine, decoder["fine.weight"]), decoder, "norm1")
    z = _dilated(z.clamp(min=0), decoder["mix.weight"], 1)
    z = resnet.norm(z, decoder, "norm2").clamp(min=0)
    return (_pointwise(z, decoder["head.weight"]) + decoder["head.bias"][:, None, None])[0]


def spoilt(samples, *, K, wrong=0.3, void=0.1, cell=8, seed=0):
    """Samples with masks of which squares are wrong at random, and others not there (255)."""
    found = []
    for i, sample in enumerate(samples):
        rng = np.random.default_rng([seed, i])
        truth = sample.load_label()
        cells = tuple(-(-side // cell) for side in truth.shape)
        dice, other = rng.random(cells), rng.integers(1, K, cells)
        dice, other = (
            np.kron(part, np.ones((cell, cell), part.dtype))[: truth.shape[0], : truth.shape[1]]
            for part in (dice, other)
        )
        mask = np.where(dice < wrong, (truth + other) % K, truth)
        mask = np.where(dice > 1 - void, 255, mask).astype(np.uint8)
        found.append(replace(sample, load_label=lambda mask=mask: mask))
    return found
