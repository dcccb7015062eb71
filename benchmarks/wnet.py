"""A step of W-Net's training and its parts, against one as published code writes it.

8 images of 224 px, width 16, K = 11, pairs of pixels within 5. The plain step lays the neighbours
of every pixel side by side (unfold) and leaves the gradient to autograd, and its networks hold one
channel after the other in place of one pixel after the other. First losses of the two are compared
(reconstruction follows a step of Adam, which magnifies rounding), then they are timed turn by turn.

    python benchmarks/wnet.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms
from torch import Tensor

from zerolabel.networks.unet import UNetConfig, WNet, random_wnet
from zerolabel.ops.ncut import Affinity, soft_ncut, weights
from zerolabel.training.wnet import WnetTrainer, WnetTraining

BATCH, SIDE, K, BASE = 8, 224, 11, 16
EPOCH, BAR_S = 123, 240  # images, and seconds on two cores
CPU = torch.device("cpu")


def photos() -> Tensor:
    """Smooth blobs with noise, 0..255: real photos are smooth, too."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(BATCH, 3, 14, 14, generator=generator)
    smooth = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return (255 * smooth + 4 * torch.randn(smooth.shape, generator=generator)).clamp(0, 255)


def one_channel_after_the_other(net: torch.nn.Module, x: Tensor) -> Tensor:
    """Run a network that is not told to hold one pixel after the other."""
    with mock.patch.object(Tensor, "contiguous", lambda self, **_: self):
        return net(x)


def plain_cut(p: Tensor, images: Tensor, affinity: Affinity) -> Tensor:
    """The cut of one image after the other, over an unfolded window."""
    r = affinity.radius
    side = 2 * r + 1
    grid = torch.arange(-r, r + 1)
    apart = (grid[:, None] ** 2 + grid**2).flatten().float()
    near = torch.exp(-apart / affinity.sigma_place**2) * (apart <= r * r)
    cuts = []
    for image, q in zip(images, p, strict=True):
        inside = F.unfold(torch.ones_like(image[None, :1]), side, padding=r)
        beside = F.unfold(image[:, None], side, padding=r)  # (C, window, pixels)
        unlike = (beside - image.flatten(1)[:, None]).square().sum(0, keepdim=True)
        w = torch.exp(-unlike / affinity.sigma_value**2) * near[None, :, None] * inside
        around = F.unfold(q[:, None], side, padding=r)  # (K, window, pixels)
        flat = q.flatten(1)
        kept = (flat * (around * w).sum(1)).sum(1)
        cuts.append(len(q) - (kept / (flat * w.sum(1)).sum(1)).sum())
    return torch.stack(cuts).mean()


def plain_step(net: WNet, optimisers: list[torch.optim.Optimizer], images: Tensor) -> list[float]:
    x, losses = images / 255, []
    for made in optimisers:
        p = one_channel_after_the_other(net.encoder, x).softmax(1)
        if not losses:
            loss = plain_cut(p, images, Affinity())
        else:
            loss = (one_channel_after_the_other(net.decoder, p) - x).square().sum() / len(x)
        made.zero_grad()
        loss.backward()
        made.step()
        losses.append(loss.item())
    return losses


def plain_optimisers(net: WNet, config: WnetTraining) -> list[torch.optim.Optimizer]:
    encoder = {"params": list(net.encoder.parameters()), "lr": config.lr}
    decoder = {"params": list(net.decoder.parameters()), "lr": config.decoder_lr}
    return [torch.optim.Adam([dict(encoder)]), torch.optim.Adam([encoder, decoder])]


def pair(**choices: float) -> tuple[WnetTrainer, Callable[[Tensor], list[float]]]:
    """Two that start alike: the trainer, and a plain step."""
    net, config = random_wnet(UNetConfig(outputs=K, base=BASE, **choices), seed=0), WnetTraining()
    plain = copy.deepcopy(net)
    step = partial(plain_step, plain, plain_optimisers(plain, config))
    return WnetTrainer(net, config, CPU), step


def parts(net: WNet, images: Tensor) -> dict[str, Callable[[], object]]:
    """What a step consists of, each with its gradient."""
    x = images / 255
    pairs = weights(images, Affinity())
    p = net.encoder(x).softmax(1).detach().requires_grad_()

    def encode() -> None:
        net.encoder(x).square().sum().backward()

    def reconstruct() -> None:
        (net(x)[1] - x).square().sum().backward()

    return {
        "encoder": encode,
        "weights of pairs": lambda: weights(images, Affinity()),
        "soft cut": lambda: soft_ncut(p, pairs).sum().backward(),
        "cut by unfold": lambda: plain_cut(p, images, Affinity()).backward(),
        "reconstruction": reconstruct,
    }


def main() -> None:
    images, epochs = photos(), []
    trainer, plain = pair(dropout=0.0)
    trainer.learn(images)
    print(f"losses of the first step {list(trainer.losses.values())} and {plain(images)}")
    for threads in sorted({1, torch.get_num_threads()}):  # on busy cores one is the faster
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s), 2048^3 float32 GEMM {gemm_ms():.0f} ms")
        trainer, plain = pair()
        contestants = {"here": partial(trainer.learn, images), "plain": partial(plain, images)}
        seconds = best_of(contestants, rounds=2)
        for name, value in seconds.items():
            epoch = value * EPOCH / BATCH
            print(f"  {name:18s} {value:6.2f} s a step, {epoch:4.0f} s for {EPOCH} images")
        print(f"  {seconds['plain'] / seconds['here']:.1f} x faster; of a step, with gradients:")
        for name, value in best_of(parts(trainer.net, images), rounds=2).items():
            print(f"  {name:18s} {value:6.2f} s")
        print(f"  GEMM then {gemm_ms():.0f} ms")
        epochs.append(seconds["here"] * EPOCH / BATCH)
    if min(epochs) > BAR_S:
        raise SystemExit(f"Missed {BAR_S} s for {EPOCH} images: {min(epochs):.0f} s.")


if __name__ == "__main__":
    main()
