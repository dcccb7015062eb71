"""How good the methods are with what comes along, against floors measured on the same files.

VOC val (K = 21) and CamVid val (K = 11); protocol "full": every labelled pixel at its original
size, clusters matched to classes one to one (Hungarian). Three seeds, mean and standard deviation
(of the three, n - 1). Floors: the largest class everywhere, and k-means on mean colour and weighted
position of 8x8-pixel cells at 224x224. Last, the K that `--k auto` chooses.

    python benchmarks/quality.py [--data voc|camvid] [--methods kmeans,datus] [--backbone NAME]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import data_root
from numpy.typing import NDArray
from timing import gemm_ms

from zerolabel.data.benchmarks import Dataset, open_dataset
from zerolabel.data.transforms import squash
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.protocols import PROTOCOLS, score
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import Options
from zerolabel.jobs.segment import segment
from zerolabel.ops.cluster import kmeans

SEEDS = (0, 1, 2)
SIDE, CELL, WEIGHTS = 224, 8, (0.0, 0.5, 1.0)  # of the colour-and-position floor
Score = tuple[float, float]  # mIoU and pixel accuracy, 0..1


def score_maps(data: Dataset, maps: Callable[[int, tuple[int, int]], NDArray[np.uint8]]) -> Score:
    """Score one label map per image, made at the size of its label."""
    count = len(data.classes)
    confusion = Confusion(count, count)
    for i, sample in enumerate(data.samples):
        assert sample.load_label is not None
        label = sample.load_label()
        confusion.add(label, maps(i, label.shape))
    found = score(confusion.counts, PROTOCOLS["full"])
    return found.miou, found.pixel_accuracy


def one_category(data: Dataset) -> Score:
    """Everything is the largest class: one category, matched to the class it covers best."""
    return score_maps(data, lambda i, size: np.zeros(size, np.uint8))


def colour_cells(data: Dataset) -> torch.Tensor:
    """Standardised mean colour (3) and position (2) of every cell, (images, h, w, 5)."""
    images = torch.stack([squash(sample.load(), (SIDE, SIDE)) for sample in data.samples])
    colour = F.avg_pool2d(images.float(), CELL).permute(0, 2, 3, 1)  # (n, h, w, 3)
    n, h, w, _ = colour.shape
    place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
    x = torch.cat([colour, place.float().expand(n, h, w, 2)], -1)
    return (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))


def colour_kmeans(data: Dataset, cells: torch.Tensor, weight: float, seed: int) -> Score:
    """k-means on cells, K = classes, painted with nearest neighbours."""
    x = cells * torch.tensor([1, 1, 1, weight, weight])
    labels = kmeans(x.flatten(0, 2), len(data.classes), seed=seed, restarts=3).labels
    grids = labels.reshape(cells.shape[:3]).float()

    def paint(i: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        return F.interpolate(grids[i][None, None], size=size)[0, 0].byte().numpy()

    return score_maps(data, paint)


def run(root: Path, backbone: str, method: str, k: int | str, seed: int) -> tuple[Score, int]:
    """Segment and evaluate through the jobs; returns the score and the number of categories."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"k": k, "seed": seed}
        given = {"method": method, "backbone": backbone, "preset": "protocol"}
        options = Options(**given, split="val", settings=settings)
        done = segment(root, folder, options=options, overlays=False, report=False)
        found = evaluate(folder, root, protocol="full", split="val")
        return (found["miou"], found["pixel_accuracy"]), len(done.categories)


def row(data: Dataset, what: str, k: object, scores: Sequence[Score], seconds: float) -> None:
    cells = []
    for values in zip(*(tuple(100 * v for v in pair) for pair in scores), strict=True):
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}")
    name = f"{data.name} {data.split} ({len(data.samples)})"
    print(f"| {name} | {what} | {k} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def table(root: Path, backbone: str, methods: Sequence[str], seeds: Sequence[int]) -> None:
    data = open_dataset(root, split="val")
    assert data is not None
    start = time.perf_counter()

    def add(what: str, k: object, scores: Sequence[Score]) -> None:
        nonlocal start
        row(data, what, k, scores, (time.perf_counter() - start) / len(scores))
        start = time.perf_counter()

    classes = len(data.classes)
    add("floor: one category", 1, [one_category(data)])
    cells = colour_cells(data)
    for weight in WEIGHTS:
        scores = [colour_kmeans(data, cells, weight, seed) for seed in SEEDS]
        add(f"floor: colour + {weight:g} x position", classes, scores)
    for method in methods:
        add(method, classes, [run(root, backbone, method, classes, seed)[0] for seed in seeds])
        found = [run(root, backbone, method, "auto", seed) for seed in seeds]
        add(f"{method}, --k auto", ", ".join(str(k) for _, k in found), [s for s, _ in found])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=("voc", "camvid"), action="append")
    parser.add_argument("--methods", default="kmeans,datus")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    asked = parser.parse_args()
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms\n")
    print("| data (images) | method | K | mIoU | pixel accuracy | s a run |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for name in asked.data or ("voc", "camvid"):
        table(data_root(name), asked.backbone, asked.methods.split(","), SEEDS[: asked.seeds])


if __name__ == "__main__":
    main()
