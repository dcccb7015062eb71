"""DatUS2 against the backbone forwards it cannot do without: every image once, every crop once.

A whole `segment` job without overlays and report (decode, features, graphs, Louvain, crops,
k-means, masks on disk) on 50 VOC photos with ViT-S/16 at 224 px takes turns with a replay of
exactly its `encode` calls: same batches, same inputs. The weights are random (fixed seed). Their
tokens are nearly identical, so raw dot products would give one community per image; patch features
are therefore centred by the mean of their image (`centre=image`, an option of the method). How many
segments that gives is printed and must be at least 3 an image.

Run as `python benchmarks/datus.py [--rounds N] [--profile]`.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from common import gather, voc_photos
from timing import gemm_ms
from torch import Tensor

from zerolabel.backbones.vit import RANDOM_SEED, VitBackbone
from zerolabel.jobs.fit import Options
from zerolabel.jobs.segment import segment
from zerolabel.types import Features

COUNT, BAR, LEAST = 50, 1.25, 3  # photos, ratio, segments per image
SETTINGS = {"centre": "image", "describe": "crop-cls", "seed": 0}
Call = tuple[VitBackbone, Tensor, Collection[str]]


def record(job: Callable[[], Any]) -> list[Call]:
    """Run a job and keep the input of every call of its backbone."""
    calls: list[Call] = []
    encode = VitBackbone.encode

    def recorded(self: VitBackbone, images: Tensor, *, want: Collection[str]) -> Features:
        calls.append((self, images, want))
        return encode(self, images, want=want)

    VitBackbone.encode = recorded  # type: ignore[method-assign]
    try:
        job()
    finally:
        VitBackbone.encode = encode  # type: ignore[method-assign]
    return calls


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where the time beside goes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, run = gather(voc_photos()[:COUNT], Path(folder, "photos")), Path(folder, "run")
        options = Options(backbone="random-vits16", settings=SETTINGS)

        def job() -> None:
            shutil.rmtree(run, ignore_errors=True)
            segment(data, run, options=options, overlays=False, report=False)

        calls = record(job)

        def replay() -> None:
            for backbone, images, want in calls:
                backbone.encode(images, want=want)

        crops = sum(len(images) for _, images, want in calls if set(want) == {"cls"})
        forwards = sum(len(images) for _, images, _ in calls)
        rounds = [(timed(job), timed(replay)) for _ in range(asked.rounds)]
        total, needed = (min(times) for times in zip(*rounds, strict=True))
        if asked.profile:
            with cProfile.Profile() as profile:
                job()
            pstats.Stats(profile).sort_stats("cumulative").print_stats("zerolabel", 45)
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    print(f"{COUNT} photos, ViT-S/16 at 224 px, random weights of seed {RANDOM_SEED}; {SETTINGS}")
    print(f"valid segments per image: {crops / COUNT:.1f} (at least {LEAST} asked for)")
    print(f"forwards: {forwards} images and crops in {len(calls)} batches")
    print("round   job s   forwards s   ratio")
    for i, (a, b) in enumerate(rounds):
        print(f"{i:5d} {a:7.1f} {b:12.1f} {a / b:7.2f}")
    ratio = total / needed
    print(f"fastest of {asked.rounds}: {total:.1f} s / {needed:.1f} s = {ratio:.2f} (bar {BAR})")


if __name__ == "__main__":
    main()
