"""A ViT-S/8 with random weights, its explicit attention, and the memory that one forward takes.

Imports nothing large before it must, so that little is there before what is measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from timing import peak_of_process

if TYPE_CHECKING:
    from torch import Tensor

    from zerolabel.networks.vit import ViT

SIDE, PATCH = 480, 8


def explicit(net: ViT, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run all blocks as the published viewer does, with every attention matrix in full.

    Returns:
        The last keys (B, h, w, D) and the last attention from CLS (B, heads, h, w).
    """
    from zerolabel.networks.transformer import KEY, QUERY, VALUE

    z, grid = net.embed(x)
    for block in net.blocks:
        n = block.norm1(z)
        q, k, v = (block.attn.part(n, which) for which in (QUERY, KEY, VALUE))
        weights = block.attn.weights(q, k)  # (B, heads, T, T)
        mixed = weights @ block.attn.split(v)
        z = block.finish(z, block.attn.proj(mixed.transpose(1, 2).flatten(2)))
    net.norm(z)
    return k[:, 1:].reshape(len(x), *grid, -1), weights[:, :, 0, 1:].unflatten(2, grid)


def setting() -> tuple[ViT, Tensor]:
    """The network and one image."""
    import torch

    from zerolabel.networks.vit import random_vit, vit_config

    net = random_vit(vit_config("vit-small", PATCH), seed=0).eval().requires_grad_(False)
    return net, torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def peak_mb(script: str, name: str) -> float:
    """Measure one contestant of a script in a process of its own, which calls `report_peak`."""
    command = [sys.executable, script, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_peak(contestant: Callable[[ViT, Tensor], Tensor]) -> None:
    """Print by how many MB the resident set grows over what it held before the first image."""
    net, x = setting()
    contestant(net, x[..., : 4 * PATCH, : 4 * PATCH])  # loads the kernels
    before = peak_of_process()
    contestant(net, x)
    print(peak_of_process() - before)
