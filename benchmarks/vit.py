"""ViT-S/8 at 480x480: only the keys, against a full forward that holds every attention matrix.

The second contestant is what the published viewer does: softmaxed N x N attention in all blocks.
Random weights; the two are compared before they are timed. Peak memory is the growth of the
resident set of a fresh process over what it held before its first image.

    python benchmarks/vit.py
"""

from __future__ import annotations

import sys

import torch
from timing import best_of, gemm_ms
from torch import Tensor
from vits import explicit, peak_mb, report_peak, setting

from zerolabel.networks.vit import ViT


def everything(net: ViT, x: Tensor) -> Tensor:
    """Return the last keys after a full forward with every attention matrix."""
    return explicit(net, x)[0]


def keys_only(net: ViT, x: Tensor) -> Tensor:
    keys = net(x, want={"keys"}).keys
    assert keys is not None
    return keys


CONTESTANTS = {"everything": everything, "keys only": keys_only}


def main() -> None:
    peaks = {name: peak_mb(__file__, name) for name in CONTESTANTS}
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
    report_peak(CONTESTANTS[sys.argv[1]]) if len(sys.argv) > 1 else main()
