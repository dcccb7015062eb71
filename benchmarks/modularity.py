"""The modularity loss with its gradient against a value for every pair and concept.

Both on one image at a time, turn by turn; the two are compared before they are timed. Peak memory
is the growth of the resident set of a fresh process over what it held before.

    python benchmarks/modularity.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import torch
from timing import best_of, gemm_ms, peak_of_process
from torch import Tensor
from torch.nn.functional import normalize

from zerolabel.ops.modularity import modularity_loss

CONCEPTS, DIM = 5, 384
BARS = {784: 1.7, 3136: 3.0}  # times faster
MOST_MS, MOST_MB = 15, 60  # of 784 patches; of 3136


def setting(patches: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(1, patches, DIM, generator=generator), dim=2)
    centres = normalize(torch.randn(1, CONCEPTS, DIM, generator=generator), dim=2)
    return x, (x @ centres.transpose(1, 2)).requires_grad_()


def ours(x: Tensor, s: Tensor) -> Tensor:
    return torch.autograd.grad(modularity_loss(x, s).sum(), s)[0]


def plain(x: Tensor, s: Tensor) -> Tensor:
    edges = (x @ x.transpose(1, 2)).clamp(min=0)
    k = edges.sum(2)
    total = k.sum()
    excess = edges - k[:, :, None] * k[:, None, :] / total
    c = s.clamp(min=0)
    shared = (c[:, :, None, :] * c[:, None, :, :]).max(3).values
    return torch.autograd.grad(-(excess * shared).sum() / total, s)[0]


CONTESTANTS = {"here": ours, "plain": plain}


def report_peak(name: str, patches: int) -> None:
    CONTESTANTS[name](*setting(64))  # loads the kernels
    x, s = setting(patches)
    before = peak_of_process()
    CONTESTANTS[name](x, s)
    print(peak_of_process() - before)


def peak_mb(name: str, patches: int) -> float:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, __file__, name, str(patches)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    missed = []
    # first: children inherit our own peak
    peaks = {(name, patches): peak_mb(name, patches) for name in CONTESTANTS for patches in BARS}
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    for patches, bar in BARS.items():
        x, s = setting(patches)
        expected = plain(x, s)
        difference = ((ours(x, s) - expected).abs().max() / expected.abs().max()).item()
        seconds = best_of({name: partial(f, x, s) for name, f in CONTESTANTS.items()})
        ratio = seconds["plain"] / seconds["here"]
        print(f"{patches} patches, gradients differ by {difference:.0e} of the largest")
        for name in CONTESTANTS:
            print(f"  {name:6s} {1e3 * seconds[name]:7.1f} ms  {peaks[name, patches]:6.0f} MB")
        print(f"  {ratio:.2f} x faster (bar {bar})")
        good = [ratio >= bar, patches != 784 or 1e3 * seconds["here"] <= MOST_MS]
        good.append(patches != 3136 or peaks["here", 3136] <= MOST_MB)
        missed += [str(patches)] * (not all(good))
    if missed:
        raise SystemExit(f"Missed at {', '.join(missed)} patches.")


if __name__ == "__main__":
    report_peak(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main()
