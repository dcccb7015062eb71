"""ViT-S/8 at 480x480: only the keys, against a full forward that holds every attention matrix.

The second contestant is what the published viewer does: softmaxed N x N attention in all blocks.
Random weights; the two are compared before they are timed. Peak memory is the growth of the
resident set of a fresh process over what it held before its first image.

    python benchmarks/vit.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from timing import best_of, gemm_ms
from torch import Tensor

from zerolabel.networks.transformer import KEY, QUERY, VALUE
from zerolabel.networks.vit import ViT, random_vit, vit_config

SIDE, PATCH = 480, 8


def everything(net: ViT, x: Tensor) -> Tensor:
    """Run all blocks with explicit attention and the final norm; return the last keys."""
    z, grid = net.embed(x)
    for block in net.blocks:
        n = block.norm1(z)
        q, k, v = (block.attn.part(n, which) for which in (QUERY, KEY, VALUE))
        mixed = block.attn.weights(q, k) @ block.attn.split(v)
        z = block.finish(z, block.attn.proj(mixed.transpose(1, 2).flatten(2)))
    net.norm(z)
    return k[:, 1:].reshape(len(x), *grid, -1)


def keys_only(net: ViT, x: Tensor) -> Tensor:
    keys = net(x, want={"keys"}).keys
    assert keys is not None
    return keys


CONTESTANTS = {"everything": everything, "keys only": keys_only}


def setting() -> tuple[ViT, Tensor]:
    net = random_vit(vit_config("vit-small", PATCH), seed=0).eval().requires_grad_(False)
    return net, torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def peak_mb(name: str) -> float:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, __file__, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_peak(name: str) -> None:
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    net, x = setting()
    CONTESTANTS[name](net, x[..., : 4 * PATCH, : 4 * PATCH])  # loads the kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    CONTESTANTS[name](net, x)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit)


def main() -> None:
    peaks = {name: peak_mb(name) for name in CONTESTANTS}  # first: children inherit our own peak
    net, x = setting()
    difference = (everything(net, x) - keys_only(net, x)).abs().max().item()
    seconds = best_of({n: lambda f=f: f(net, x) for n, f in CONTESTANTS.items()}, rounds=3)
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    print(f"largest difference of the keys: {difference:.1e}")
    for name in CONTESTANTS:
        print(f"{name:12s} {seconds[name]:6.2f} s  {peaks[name]:6.0f} MB")
    ratios = [value["everything"] / value["keys only"] for value in (seconds, peaks)]
    print(f"{'ratio':12s} {ratios[0]:6.2f} x  {ratios[1]:6.1f} x")


if __name__ == "__main__":
    report_peak(sys.argv[1]) if len(sys.argv) > 1 else main()
