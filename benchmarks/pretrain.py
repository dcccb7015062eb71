"""What a training step spends outside of the networks, and the loss of DINO computed once per view.

The first pair: whole steps (drawing the batch, making the views, both networks, the optimiser)
against the same steps on one batch of views that is made already. The second: the loss and its
gradient for two teacher views and ten student views, against one log-softmax for every pair, as
the published code does.

    python benchmarks/pretrain.py [--device cuda] [--preset default]
"""

from __future__ import annotations

import argparse
import time

import torch
from timing import best_of, gemm_ms
from torch import Tensor

from zerolabel.backbones import pick_device
from zerolabel.data.pool import Pool
from zerolabel.training.config import PRESETS
from zerolabel.training.dino import dino_loss
from zerolabel.training.loop import Trainer
from zerolabel.training.objective import make_batch
from zerolabel.training.precision import use_amp
from zerolabel.training.sampling import take

STEPS, ROUNDS = 5, 5
ROWS, PROTOTYPES, VIEWS = 32, 65_536, 10


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def steps(device: torch.device, preset: str) -> None:
    """Images per second of whole steps and of steps on a fixed batch."""
    config = PRESETS[preset]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4 * config.batch, 3, 96, 96), generator=generator)
    pool = Pool("noise", images.to(torch.uint8).to(device), "", {})
    trainer = Trainer(config, device=device, amp=use_amp("auto", device))
    trainer.total = 10_000
    where = torch.Generator(device).manual_seed(0)
    fixed = make_batch(take(pool, 0, config), config, generator=where)

    def whole() -> None:
        for i in range(STEPS):
            trainer.train_step(take(pool, i, config))
        wait(device)

    def on_fixed_batch() -> None:
        for _ in range(STEPS):
            trainer.learn(fixed)
        wait(device)

    seconds = best_of({"whole step": whole, "fixed batch": on_fixed_batch}, ROUNDS)
    for name, value in seconds.items():
        print(f"{name:12s} {STEPS * config.batch / value:8.0f} images/s")
    print(f"{'ratio':12s} {seconds['whole step'] / seconds['fixed batch']:8.2f} x")


def per_pair(student: list[Tensor], targets: list[Tensor], pairs: list[tuple[int, int]]) -> Tensor:
    """One log-softmax for every pair of views."""
    total = torch.zeros((), device=student[0].device)
    for t, s in pairs:
        total = total - (targets[t] * (student[s] / 0.1).log_softmax(-1)).sum(-1).mean()
    return total / len(pairs)


def losses(device: torch.device) -> None:
    """Seconds of the loss and its gradient."""
    generator = torch.Generator(device).manual_seed(0)

    def rows() -> Tensor:
        return torch.randn(ROWS, PROTOTYPES, device=device, generator=generator) / 16

    student = [rows().requires_grad_() for _ in range(VIEWS)]
    targets = [(rows() / 0.04).softmax(-1) for _ in range(2)]
    pairs = [(t, s) for t in range(2) for s in range(VIEWS) if t != s]
    values = {}

    def run(name: str) -> None:
        function = dino_loss if name == "once per view" else per_pair
        for x in student:
            x.grad = None
        values[name] = function(student, targets, pairs)
        values[name].backward()
        wait(device)

    names = ("once per view", "per pair")
    seconds = best_of({name: lambda n=name: run(n) for name in names}, ROUNDS)
    difference = (values[names[0]] - values[names[1]]).abs().item()
    print(f"loss of {VIEWS} views x {ROWS} rows x {PROTOTYPES}: difference {difference:.1e}")
    for name, value in seconds.items():
        print(f"{name:14s} {1e3 * value:8.0f} ms")
    print(f"{'ratio':14s} {seconds['per pair'] / seconds['once per view']:8.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="auto")
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--losses", action="store_true", help="only the loss")
    given = parser.parse_args()
    device = pick_device(given.device)
    began = time.perf_counter()
    print(f"{device}, 2048^3 float32 GEMM on the CPU: {gemm_ms():.0f} ms")
    if not given.losses:
        steps(device, given.preset or ("cpu" if device.type == "cpu" else "default"))
    losses(device)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
