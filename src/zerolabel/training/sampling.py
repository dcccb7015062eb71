"""Which images a step sees: a function of its number alone, so that a run can resume."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from zerolabel.data.pool import Pool
from zerolabel.training import distributed
from zerolabel.training.config import Pretrain

EPOCHS = 1 << 31  # above the number of any step


def plan(shares: Sequence[int]) -> list[int]:
    """Spread the sources over a cycle of steps, each as evenly as its share allows.

    Args:
        shares: how many steps of the cycle each source has, at least 1.

    Returns:
        The number of the source for every step of the cycle.
    """
    owed = [0.0] * len(shares)
    order = []
    for _ in range(sum(shares)):
        owed = [value + share for value, share in zip(owed, shares, strict=True)]
        order.append(owed.index(max(owed)))
        owed[order[-1]] -= sum(shares)
    return order


def batches_before(order: Sequence[int], step: int) -> int:
    """Count the steps before this one that drew from the same source.

    Args:
        order: from `plan`.
        step: number of the step.

    Returns:
        What `take` calls `turn`.
    """
    which = order[step % len(order)]
    whole, rest = divmod(step, len(order))
    return whole * order.count(which) + order[:rest].count(which)


def seed_of(seed: int, number: int) -> int:
    """Seed of one step's or one epoch's generator.

    Args:
        seed: of the run.
        number: of the step, or `EPOCHS` plus that of the epoch.

    Returns:
        32 bits, different for all numbers of one run: generators on the CPU ignore the rest.
    """
    return (seed * 0x9E3779B1 + number) % 2**32


def take(pool: Pool, turn: int, config: Pretrain) -> Tensor:
    """Take this process's part of a batch; no image comes twice in an epoch.

    What an epoch has beyond a multiple of the batch is left out of it, other images each time.

    Args:
        pool: the source.
        turn: how many batches were taken from it before.
        config: batch size and seed.

    Returns:
        uint8 (B, 3, S, S).
    """
    per_epoch = len(pool.images) // config.batch
    epoch, batch = divmod(turn, per_epoch)
    order = _shuffled(len(pool.images), seed_of(config.seed, EPOCHS + epoch))
    rows = order[batch * config.batch : (batch + 1) * config.batch]
    mine = rows.chunk(distributed.world())[distributed.rank()]
    return pool.images[mine.to(pool.images.device)]


@lru_cache(maxsize=8)  # one epoch of each source, instead of one shuffle a step
def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
