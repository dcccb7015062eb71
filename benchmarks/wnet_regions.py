"""W-Net's regions on BSDS500 against those of colours: covering, PRI, VI and boundaries.

W-Net learns from the images of PASCAL VOC 2012 train that are there (never from BSDS), with the
default settings. Then both ways are the same: labels of an image of BSDS test at 224 pixels,
smoothed by the dense CRF on the image, connected pieces merged along the weakest borders, and cut
at levels that are the same for all images. The labels are W-Net's channels, or k-means of the
colours of that image with as many clusters.

Beside them the normalised cut of both labels before any smoothing, at 224 pixels.

    python benchmarks/wnet_regions.py [--steps N] [--images N] [--keep FOLDER] [--set NAME=VALUE]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import data_root
from numpy.typing import NDArray
from timing import gemm_ms
from torch import Tensor

from zerolabel.backbones import load
from zerolabel.data.benchmarks import open_dataset
from zerolabel.evaluation.boundaries import Boundaries, boundaries
from zerolabel.evaluation.regions import Regions
from zerolabel.jobs.run.settings import build
from zerolabel.methods.base import Method
from zerolabel.ops.edges import edge_strength
from zerolabel.ops.ncut import Affinity, hard_ncut, weights
from zerolabel.ops.resize import resize
from zerolabel.ops.ultrametric import merge_tree, segment_at
from zerolabel.stages.refine import crf
from zerolabel.stages.wnet import look
from zerolabel.store import Store
from zerolabel.types import Sample

LEVELS = np.linspace(0.02, 0.6, 30)
SOFT = 0.1  # deviation of a colour (0..1) around its cluster


def shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) as a batch of one at a size, float32."""
    return resize(image[None].float(), size, mode="bilinear")


def channels(method: Method, image: Tensor) -> Tensor:
    """W-Net's probabilities at the size that it learned at."""
    small = shrunk(image, method.config.size)[0]
    return look(method._built().encoder, small / 255, tile=1024)  # type: ignore[attr-defined]


def colours(image: Tensor, K: int, size: tuple[int, int]) -> Tensor:
    """Softmax over squared distances to the colours of K clusters of the image, at a size."""
    rows = shrunk(image, size)[0].flatten(1).T / 255  # (N, 3)
    far = torch.cdist(rows, _clusters(rows, K)).square()
    return (-far / (2 * SOFT**2)).softmax(1).T.reshape(K, *size)


def _clusters(rows: Tensor, K: int) -> Tensor:
    """Plain k-means in colour space, 30 rounds from evenly spread pixels, sorted by brightness."""
    order = rows.sum(1).argsort()
    centres = rows[order[torch.linspace(0, len(rows) - 1, K).long()]]
    for _ in range(30):
        own = torch.cdist(rows, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, own, rows)
        count = torch.bincount(own, minlength=K)[:, None]
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return centres


def cuts(scores: Tensor, image: Tensor, strength: NDArray[np.float32]) -> list[NDArray[np.int32]]:
    """Pieces at all levels."""
    labels = crf(scores.clamp_min(1e-6).log(), image, sharpness=1.0)
    tree = merge_tree(labels.numpy(), strength)
    return [segment_at(tree, float(level)) for level in LEVELS]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--keep", help="folder for what was trained, to go on with it later")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    train = open_dataset(data_root("voc"), split="train")
    test = open_dataset(data_root("bsds500"), split="test")
    assert train is not None
    assert test is not None
    changes = dict(pair.split("=", 1) for pair in asked.set)
    method = build("wnet", load("none"), settings={"iterations": asked.steps, **changes})
    began = time.perf_counter()
    method.fit(train.samples, store=Store(asked.keep))
    print(
        f"{asked.steps} steps on {len(train.samples)} images: {time.perf_counter() - began:.0f} s"
    )
    print(f"product of two 2048 x 2048 matrices: {gemm_ms():.0f} ms", flush=True)
    names = ("W-Net", "colours")
    regions = {name: Regions() for name in names}
    edges = {name: Boundaries() for name in names}
    cut: dict[str, list[float]] = {name: [] for name in names}
    for sample in test.samples[: asked.images]:
        for name, value in score(sample, method, regions, edges).items():
            cut[name].append(value)
    for name in names:
        own, borders = regions[name].score(), edges[name].score()
        measures = {"covering": own.covering, "PRI": own.pri, "VI": own.vi, "F": borders.f}
        words = [f"{what} {found.ods:.3f} / {found.ois:.3f}" for what, found in measures.items()]
        print(f"{name}: {', '.join(words)} (one level / best of each image)")
        print(f"{name}: normalised cut {np.mean(cut[name]):.3f} of {method.k} labels")


def score(
    sample: Sample, method: Method, regions: dict[str, Regions], edges: dict[str, Boundaries]
) -> dict[str, float]:
    """Add an image to what each way has found so far; returns the normalised cut of each."""
    assert sample.load_regions is not None
    truth = [np.asarray(one) for one in sample.load_regions()]
    image = torch.tensor(sample.load()).permute(2, 0, 1)
    strength = edge_strength(sample.load())
    size, K = method.config.size, method.k
    scores = {"W-Net": channels(method, image), "colours": colours(image, K, size)}
    pairs = weights(shrunk(image, size), Affinity())
    for name, own in scores.items():
        pieces = cuts(own, image, strength)
        regions[name].add(pieces, truth)
        edges[name].add([boundaries(one) for one in pieces], [boundaries(one) for one in truth])
    return {name: float(hard_ncut(own.argmax(0)[None], pairs, K=K)) for name, own in scores.items()}


if __name__ == "__main__":
    main()
