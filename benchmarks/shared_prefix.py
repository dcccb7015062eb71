"""Texts that share a learned prompt of 74 tokens: the prompt run once, against run for every text.

The text tower of CLIP ViT-B with random weights, forward and backward to the prompt, as every step
of ReCLIP++ takes it for its K reference texts; 59 is the number of classes of PASCAL Context, 150
that of ADE20K. Values and gradients of the two are compared. The plain way keeps some GB at 150.

    python benchmarks/shared_prefix.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timing import best_of, gemm_ms
from torch import Tensor

from zerolabel.networks.clip_text import ClipText, ClipTextConfig, random_clip_text

PREFIX, SUFFIX, P = 74, 3, 512
BARS = {59: 10, 150: 14}  # texts -> times faster
TOLERANCE = 1e-5  # of the largest gradient
ROUNDS = 2

Run = Callable[[], tuple[Tensor, Tensor]]


def contestants(net: ClipText, texts: int) -> dict[str, Run]:
    """Two ways to features (n, P) and the gradient of their squares to the prompt."""
    generator = torch.Generator().manual_seed(0)
    dim = net.config.dim
    prefix = torch.randn(PREFIX, dim, generator=generator).mul_(dim**-0.5).requires_grad_()
    suffix = torch.randn(texts, SUFFIX, dim, generator=generator) * dim**-0.5
    at = torch.full((texts,), SUFFIX - 1)
    upstream = torch.randn(texts, P, generator=generator)

    def back(found: Tensor) -> tuple[Tensor, Tensor]:
        return found.detach(), torch.autograd.grad(found, prefix, upstream)[0]

    def plain() -> tuple[Tensor, Tensor]:
        x = torch.cat([prefix.expand(texts, -1, -1), suffix], 1)
        return back(net.from_vectors(x, at + PREFIX))

    def shared() -> tuple[Tensor, Tensor]:
        return back(net.after(prefix, suffix, at))

    return {"plain": plain, "shared": shared}


def measure(net: ClipText, texts: int) -> tuple[float, float]:
    """How many times faster, and the largest difference of values or gradients."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def kept(name: str, run: Run) -> Callable[[], object]:
        def once() -> None:
            found[name] = run()

        return once

    runs = contestants(net, texts)
    seconds = best_of({name: kept(name, run) for name, run in runs.items()}, ROUNDS)
    ratio = seconds["plain"] / seconds["shared"]
    pairs = zip(found["plain"], found["shared"], strict=True)
    difference = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    tokens = texts * (PREFIX + SUFFIX) / (PREFIX + texts * SUFFIX)
    print(
        f"{texts:3d} texts: plain {seconds['plain']:.2f} s, shared {1e3 * seconds['shared']:.0f} ms"
        f", {ratio:.1f} x faster (bar {BARS[texts]}; {tokens:.1f} x fewer tokens), "
        f"differ by {difference:.0e}"
    )
    return ratio, difference


def main() -> None:
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    net = random_clip_text(ClipTextConfig(), P, seed=0).eval().requires_grad_(False)
    missed = []
    for texts, bar in BARS.items():
        ratio, difference = measure(net, texts)
        if ratio < bar or difference > TOLERANCE:
            missed.append(f"{texts} texts")
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
