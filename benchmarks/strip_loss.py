"""The loss of upsampled scores in strips, against torch on all pixels at once; value and gradient.

Four crops of 512 pixels, patches of 16 and 150 classes, a tenth of the pixels without a label. The
two are compared before they are timed, turn by turn. Peak memory is the growth of the resident set
of a fresh process over what it held before.

    python benchmarks/strip_loss.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms, peak_of_process
from torch import Tensor

from zerolabel.ops.strip_loss import upsampled_cross_entropy

BATCH, SIDE, CLASSES, PATCH = 4, 512, 150, 16
FASTER, MOST_MB, SAME = 3.0, 150, 1e-5


def setting(batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Scores (B, K, h, w) that need a gradient, and labels (B, H, W)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, CLASSES, side // PATCH, side // PATCH, generator=generator)
    labels = torch.randint(0, CLASSES, (batch, side, side), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return logits.requires_grad_(), labels


def with_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def ours(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return with_gradient(upsampled_cross_entropy(logits, labels), logits)


def plain(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    fine = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return with_gradient(F.cross_entropy(fine, labels, ignore_index=255), logits)


CONTESTANTS = {"strips": ours, "plain": plain}


def report_peak(name: str) -> None:
    CONTESTANTS[name](*setting(1, 64))  # loads the kernels
    logits, labels = setting(BATCH, SIDE)
    before = peak_of_process()
    CONTESTANTS[name](logits, labels)
    print(peak_of_process() - before)


def peak_mb(name: str) -> float:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, __file__, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    peaks = {name: peak_mb(name) for name in CONTESTANTS}  # first: children inherit our own peak
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    logits, labels = setting(BATCH, SIDE)
    (value, gradient), (wanted, expected) = ours(logits, labels), plain(logits, labels)
    apart = max(
        ((gradient - expected).abs().max() / expected.abs().max()).item(),
        ((value - wanted).abs() / wanted).item(),
    )
    print(f"largest difference of value and gradients: {apart:.0e} (bar {SAME:.0e})")
    runs = {name: partial(function, logits, labels) for name, function in CONTESTANTS.items()}
    seconds = best_of(runs, rounds=3)
    for name in CONTESTANTS:
        print(f"{name:6s} {1e3 * seconds[name]:7.0f} ms  {peaks[name]:6.0f} MB")
    ratio = seconds["plain"] / seconds["strips"]
    print(f"strips: {ratio:.1f} x faster (bar {FASTER}), {peaks['strips']:.0f} MB (bar {MOST_MB})")
    met = {"values": apart <= SAME, "time": ratio >= FASTER, "memory": peaks["strips"] <= MOST_MB}
    missed = [name for name, good in met.items() if not good]
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    report_peak(sys.argv[1]) if len(sys.argv) > 1 else main()
