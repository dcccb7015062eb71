"""Responses of one image to 27 clusters in closed form, against a backward pass per cluster.

A ViT-S/8 with random weights at 320 pixels. The published way keeps every attention matrix of a
full forward and goes back through the whole network once per cluster; three such passes are timed
and scaled. The second contestant stops at the last attention and goes back for all clusters in one
batch of vector-Jacobian products; it is timed on the whole matrix, as networks give it, and on the
row of CLS, which is the least it could do. All are compared before they are timed.

    python benchmarks/gradcam.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms
from torch import Tensor
from vits import PATCH

from zerolabel.networks.gradcam import ClsRow, cls_row
from zerolabel.networks.transformer import KEY, QUERY, VALUE, Block
from zerolabel.networks.vit import ViT, random_vit, vit_config

SIDE, CENTRES, PASSES = 320, 27, 3
BARS = {  # times faster
    "with the forward": 60,
    "without": 1000,
    "last attention, matrix": 5,
    "last attention, row": 5,
}
SHARE = 0.05  # of the forward, at most


def forward(net: ViT, x: Tensor) -> ClsRow:
    """All blocks but the last, and the row of CLS in that."""
    with torch.no_grad():
        z, grid = net.trunk(x)
        return cls_row(net.blocks[-1], net.norm, z, grid=grid)  # type: ignore[arg-type]


def closed(row: ClsRow, centres: Tensor) -> Tensor:
    with torch.no_grad():
        return row.gradients(centres)


def plain_block(block: Block, z: Tensor, *, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """One block with its attention matrix, or the first rows of that: tokens and attention."""
    n = block.norm1(z)
    q, k, v = (block.attn.part(n, which) for which in (QUERY, KEY, VALUE))
    weights = block.attn.weights(q[:, :rows], k)  # (B, heads, T or rows, T)
    if not weights.requires_grad:
        weights.requires_grad_()
    mixed = (weights @ block.attn.split(v)).transpose(1, 2).flatten(2)
    return block.finish(z[:, :rows], block.attn.proj(mixed)), weights


def losses_of(net: ViT, z: Tensor, centres: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(net.norm(z)[:, 0], centres)


def published_forward(net: ViT, x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (K,) and the last attention, with the graph of the whole network."""
    z, _ = net.embed(x)
    for block in net.blocks:
        z, weights = plain_block(block, z)  # type: ignore[arg-type]
    weights.retain_grad()
    return losses_of(net, z, centres), weights


def published_backward(net: ViT, losses: Tensor, weights: Tensor, count: int) -> Tensor:
    """One backward pass for each of the first losses: (count, N)."""
    found = []
    for loss in losses[:count]:
        net.zero_grad()
        weights.grad = None
        loss.backward(retain_graph=True)
        assert weights.grad is not None
        found.append(weights.grad[0, :, 0, 1:].mean(0))
    return torch.stack(found)


def last_block(net: ViT, z: Tensor, centres: Tensor, rows: int | None) -> Callable[[], Tensor]:
    """Build the graph from the last attention on; the result goes back through it, (K, N)."""
    z, weights = plain_block(net.blocks[-1], z, rows=rows)  # type: ignore[arg-type]
    losses, eye = losses_of(net, z, centres), torch.eye(len(centres))

    def back() -> Tensor:
        (slopes,) = torch.autograd.grad(
            losses, weights, eye, retain_graph=True, is_grads_batched=True
        )
        return slopes[:, 0, :, 0, 1:].mean(1)

    return back


def compare(found: dict[str, Tensor], expected: Tensor) -> None:
    for name, value in found.items():
        difference = (value - expected[: len(value)]).abs().max() / expected.abs().max()
        print(f"{name:10s} differs by {difference:.0e} of the largest gradient")


def measure() -> dict[str, float]:
    """Compare and time everything: name -> seconds."""
    net = random_vit(vit_config("vit-small", PATCH), seed=0).eval()
    frozen = random_vit(net.config, seed=0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    centres = torch.randn(CENTRES, net.config.dim, generator=generator)
    row, (losses, weights) = forward(net, x), published_forward(net, x, centres)
    with torch.no_grad():
        z, _ = net.trunk(x)
    batched = {"matrix": last_block(frozen, z, centres, None)}
    batched["row"] = last_block(frozen, z, centres, 1)
    found = {name: back() for name, back in batched.items()}
    found["passes"] = published_backward(net, losses, weights, PASSES)
    compare(found, closed(row, centres)[0].flatten(1))
    slow = {
        "forward": lambda: forward(net, x),
        "published forward": lambda: published_forward(net, x, centres),
        "passes": lambda: published_backward(net, losses, weights, PASSES),
    }
    seconds = best_of(slow, rounds=3)
    seconds["passes"] *= CENTRES / PASSES
    return seconds | best_of({"closed": lambda: closed(row, centres), **batched}, rounds=15)


def main() -> None:
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    s = measure()
    print(f"forward {1e3 * s['forward']:.0f} ms, closed form {1e3 * s['closed']:.1f} ms")
    print(
        f"published forward {1e3 * s['published forward']:.0f} ms, {CENTRES} passes "
        f"{1e3 * s['passes']:.0f} ms, scaled from {PASSES}"
    )
    print(f"last attention: matrix {1e3 * s['matrix']:.0f} ms, row {1e3 * s['row']:.1f} ms")
    ratios = {
        "with the forward": (s["published forward"] + s["passes"]) / (s["forward"] + s["closed"]),
        "without": s["passes"] / s["closed"],
        "last attention, matrix": s["matrix"] / s["closed"],
        "last attention, row": s["row"] / s["closed"],
    }
    for name, ratio in ratios.items():
        print(f"{name:23s} {ratio:8.1f} x faster (bar {BARS[name]})")
    share = s["closed"] / s["forward"]
    print(f"the closed form adds {share:.2%} to the forward (bar {SHARE:.0%})")
    missed = [name for name, bar in BARS.items() if ratios[name] < bar]
    missed += ["share of the forward"] * (share > SHARE)
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
