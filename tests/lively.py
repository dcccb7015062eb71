"""Small vision transformers whose every parameter matters, and images for them."""

from dataclasses import replace

import torch

from zerolabel.networks.vit import VitConfig, random_vit

DINO = VitConfig(patch=8, dim=128, depth=2, heads=2, grid=4)
FAMILIES = {
    "dino": DINO,
    "dinov2": replace(DINO, patch=7, layerscale=True),
    "dinov2-reg": replace(DINO, patch=7, layerscale=True, registers=4, pos_interp="size-antialias"),
}


def lively(config, seed=0):
    """A network whose every parameter matters: nothing is zero, one or small."""
    net = random_vit(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")):
                value.copy_(1 + 0.3 * noise)
            else:
                value.copy_(noise * (value.shape[-1] ** -0.5 if value.ndim == 2 else 0.5))
    return net.eval()


def images(height, width, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, 3, height, width, dtype=dtype, generator=generator)
