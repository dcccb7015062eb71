"""The soft normalised cut, pairwise and by class means, value and gradient, against plain ones.

One smooth image of 224 x 224 pixels, 64 classes, radius 5. Pairwise, against windows of every pixel
laid side by side (`Tensor.unfold`, the leaner of the usual ways); both are given weights in the
layout they need, and computing those of ours is timed apart. By class means, against the loop over
classes with two dense filters each. Contestants are compared before they are timed, turn by turn.
Peak memory is that of a fresh process over what it holds when it starts on the loss; a little of it
belongs to the random numbers before.

    python benchmarks/ncut.py
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import psutil
import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms, peak_of_process
from torch import Tensor

from zerolabel.ops.ncut import Affinity, Weights, class_mean_ncut, soft_ncut, weights

SIDE, CLASSES, AFFINITY = 224, 64, Affinity()
SECONDS, FASTER, LOOP_FASTER = 0.35, 3.0, 5.0
MOST_MB, LEANER, SAME = 400, 10.0, 1e-4

Setting = tuple[Tensor, Tensor, Weights, Tensor]


def setting(side: int) -> Setting:
    """Probabilities that need a gradient, an image 0..255, its weights here and as windows."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(1, 3, side // 8, side // 8, generator=generator)
    image = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    scores = torch.randn(1, CLASSES, side, side, generator=generator)
    pairs = weights(image, AFFINITY)
    return scores.softmax(1).requires_grad_(), image, pairs, windows(pairs)


def windows(pairs: Weights) -> Tensor:
    """The same weights for the whole window of every pixel (H, W, 2r+1, 2r+1)."""
    r, (H, W) = AFFINITY.radius, pairs.degree.shape[1:]
    full = torch.zeros(H, W, 2 * r + 1, 2 * r + 1)
    full[:, :, r, r] = 1
    for (down, right), weight in zip(pairs.offsets, pairs.maps[0], strict=True):
        full[:, :, r + down, r + right] = weight
        # Weights off the image are 0, so what comes round the edge is none.
        full[:, :, r - down, r - right] = weight.roll((down, right), (0, 1))
    return full


def with_gradient(loss: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, probabilities)[0]


def pairwise(p: Tensor, image: Tensor, pairs: Weights, full: Tensor) -> tuple[Tensor, Tensor]:
    return with_gradient(soft_ncut(p, pairs).sum(), p)


def unfold(p: Tensor, image: Tensor, pairs: Weights, full: Tensor) -> tuple[Tensor, Tensor]:
    r = AFFINITY.radius
    near = F.pad(p, (r, r, r, r)).unfold(2, 2 * r + 1, 1).unfold(3, 2 * r + 1, 1)
    product = (near * full).sum((4, 5))  # (1, K, H, W)
    inside, total = (p * product).sum((2, 3)), (p * full.sum((2, 3))).sum((2, 3))
    return with_gradient((1 - inside / total).sum(), p)


def class_means(p: Tensor, image: Tensor, pairs: Weights, full: Tensor) -> tuple[Tensor, Tensor]:
    return with_gradient(class_mean_ncut(p, image / 255).sum(), p)


def loop(p: Tensor, image: Tensor, pairs: Weights, full: Tensor) -> tuple[Tensor, Tensor]:
    steps, x = torch.arange(-4.0, 5.0), image / 255
    kernel = torch.exp(-(steps[:, None] ** 2 + steps**2) / 50)[None, None]
    cut = torch.zeros(())
    for k in range(CLASSES):
        q = p[:, k : k + 1]
        mean = (x * q).mean((2, 3), keepdim=True) / (q.mean() + 1e-5)
        weight = torch.exp(-((x - mean).square().sum(1, keepdim=True) ** 2))
        inside = (q * F.conv2d(q * weight, kernel, padding=4)).sum()
        total = (q * F.conv2d(weight, kernel, padding=4)).sum()
        cut = cut + 1 - (inside / (total + 1e-6)).abs()
    return with_gradient(cut, p)


CONTESTANTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "pairwise": pairwise,
    "unfold": unfold,
    "class means": class_means,
    "loop": loop,
}


def report_peak(name: str) -> None:
    CONTESTANTS[name](*setting(16))  # loads the kernels
    given = setting(SIDE)
    before = psutil.Process().memory_info().rss / 1e6
    CONTESTANTS[name](*given)
    print(peak_of_process() - before)


def peak_mb(name: str) -> float:
    """Measure one contestant in a process of its own."""
    command = [sys.executable, __file__, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def apart(name: str, other: str, given: Setting) -> float:
    """Largest difference of value and gradients, as a share of the largest."""
    found, expected = CONTESTANTS[name](*given), CONTESTANTS[other](*given)
    pairs = zip(found, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def main() -> None:
    peaks = {name: peak_mb(name) for name in CONTESTANTS}  # first: children inherit our own peak
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    given = setting(SIDE)
    differences = apart("pairwise", "unfold", given), apart("class means", "loop", given)
    print("largest differences: {:.0e} and {:.0e}".format(*differences), f"(bar {SAME:.0e})")
    runs = {name: partial(function, *given) for name, function in CONTESTANTS.items()}
    seconds = best_of({**runs, "weights": partial(weights, given[1], AFFINITY)}, rounds=3)
    print(f"weights     {1e3 * seconds['weights']:7.0f} ms")
    for name in CONTESTANTS:
        print(f"{name:11s} {1e3 * seconds[name]:7.0f} ms  {peaks[name]:6.0f} MB")
    faster, slower = seconds["unfold"] / seconds["pairwise"], seconds["loop"]
    leaner = peaks["unfold"] / peaks["pairwise"]
    whole = seconds["pairwise"] + seconds["weights"]
    print(f"pairwise with weights: {whole:.2f} s (bar {SECONDS})")
    print(f"pairwise: {faster:.1f} x faster (bar {FASTER}), {leaner:.0f} x leaner (bar {LEANER})")
    slower /= seconds["class means"]
    print(f"class means: {slower:.1f} x faster (bar {LOOP_FASTER})")
    met = {
        "values": max(differences) <= SAME,
        "time": whole <= SECONDS and faster >= FASTER and slower >= LOOP_FASTER,
        "memory": peaks["pairwise"] <= MOST_MB and leaner >= LEANER,
    }
    missed = [name for name, good in met.items() if not good]
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    report_peak(sys.argv[1]) if len(sys.argv) > 1 else main()
