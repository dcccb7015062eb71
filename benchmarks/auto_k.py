"""How often `--k auto` finds the number of categories: 50 planted worlds of 3 to 12 categories.

A second column shows what the same run's curve of mean silhouettes is blamed for: the score that
the true k would have had. Takes three minutes on two free cores with the filter bank.

    python benchmarks/auto_k.py [--backbone NAME] [method ...]
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from zerolabel import backbones
from zerolabel.data.synthetic import world
from zerolabel.methods import find
from zerolabel.methods.configs import configure
from zerolabel.store import Store

METHODS = ("datus", "kmeans")
WORLDS = 50
CATEGORIES = range(3, 13)


@dataclass(frozen=True)
class Trial:
    """One world and what one method found in it.

    Attributes:
        method: its name; with its default preset.
        seed: of the world.
        truth: categories of the world.
        found: the k that was chosen.
        lost: score of the chosen k minus that of the true one.
        seconds: processor time, learning and features included.
    """

    method: str
    seed: int
    truth: int
    found: int
    lost: float
    seconds: float


def trial(task: tuple[str, str, int]) -> Trial:
    backbone, method, seed = task
    torch.set_num_threads(1)  # one process per core instead
    truth = CATEGORIES[seed % len(CATEGORIES)]
    samples = world(truth, seed=seed)
    start = time.process_time()
    kind = find(method)
    fitted = kind(configure(kind.PRESETS, "default", {}), backbones.load(backbone))
    fitted.fit(samples, store=Store())
    seconds = time.process_time() - start
    lost = fitted.curve[fitted.k] - fitted.curve[truth]
    return Trial(method, seed, truth, fitted.k, lost, seconds)


def table(trials: list[Trial]) -> None:
    by_truth: dict[int, list[Trial]] = defaultdict(list)
    for one in trials:
        by_truth[one.truth].append(one)
    print("  true k  found                    within 1  lost score")
    for truth, group in sorted(by_truth.items()):
        found = " ".join(str(one.found) for one in group)
        near = sum(abs(one.found - truth) <= 1 for one in group)
        lost = max(one.lost for one in group)
        print(f"  {truth:>6}  {found:<24} {near:>4} of {len(group):<3} {lost:>8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="filterbank")
    parser.add_argument("methods", nargs="*", default=METHODS)
    asked = parser.parse_args()
    methods = asked.methods
    tasks = [(asked.backbone, method, seed) for method in methods for seed in range(WORLDS)]
    # Threads of torch do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        trials = list(pool.map(trial, tasks))
    for method in methods:
        own = [one for one in trials if one.method == method]
        near = sum(abs(one.found - one.truth) <= 1 for one in own) / len(own)
        exact = sum(one.found == one.truth for one in own) / len(own)
        cpu = sum(one.seconds for one in own) / len(own)
        print(f"{method}: within 1 in {near:.0%}, exact in {exact:.0%} of {len(own)} worlds")
        print(f"  {cpu:.1f} s of processor time per world")
        table(own)


if __name__ == "__main__":
    main()
