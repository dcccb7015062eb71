"""W-Net's regions on BSDS500 against those of colours: covering, PRI, VI and boundaries.

W-Net learns from the images of PASCAL VOC 2012 train that are there (never from BSDS), with the
default settings. Then all ways are the same: labels of an image of BSDS test, smoothed by the dense
CRF on the image, connected pieces merged along the weakest borders, and cut at levels that are the
same for all images. The labels are W-Net's channels; or k-means, with as many clusters, of the
colours of that very image, or of those that W-Net learned from.

Beside them the normalised cut of the labels before any smoothing, at 224 pixels: the mean over
images, in each of which a label that is nowhere counts 1; and that of all images as one graph.

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
from zerolabel.ops.ncut import Affinity, Weights, hard_ncut, soft_ncut, weights
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


def channels(method: Method, image: Tensor, *, native: bool) -> Tensor:
    """W-Net's probabilities at the size that it learned at, or at the image's own."""
    x = image.float() if native else shrunk(image, method.config.size)[0]
    return look(method.network().encoder, x / 255, tile=1024)  # type: ignore[attr-defined]


def rows_of(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Colours of an image at a size, float32 (N, 3), 0..1."""
    return shrunk(image, size)[0].flatten(1).T / 255


def colours(image: Tensor, centres: Tensor | None, K: int, size: tuple[int, int]) -> Tensor:
    """Softmax over squared distances to K colours, or to those of K clusters of the image."""
    rows = rows_of(image, size)
    far = torch.cdist(rows, clusters(rows, K) if centres is None else centres).square()
    return (-far / (2 * SOFT**2)).softmax(1).T.reshape(K, *size)


def clusters(rows: Tensor, K: int) -> Tensor:
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
    parser.add_argument("--steps", type=int, default=500)
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
    seen = [
        rows_of(torch.tensor(sample.load()).permute(2, 0, 1), (32, 32)) for sample in train.samples
    ]
    centres = clusters(torch.cat(seen), method.k)
    names = ("W-Net", "colours of the image", "colours learned")
    regions = {name: Regions() for name in names}
    edges = {name: Boundaries() for name in names}
    cut = {name: Cuts() for name in names}
    for sample in test.samples[: asked.images]:
        score(sample, method, centres, regions, edges, cut)
    for name in names:
        own, borders = regions[name].score(), edges[name].score()
        measures = {"covering": own.covering, "PRI": own.pri, "VI": own.vi, "F": borders.f}
        words = [f"{what} {found.ods:.3f} / {found.ois:.3f}" for what, found in measures.items()]
        print(f"{name}: {', '.join(words)} (one level / best of each image)")
        each, whole = cut[name].mean(), cut[name].pooled()
        print(f"{name}: normalised cut of {method.k} labels {each:.3f}, of one graph {whole:.3f}")


class Cuts:
    """What labels bind and what there is to bind, image by image."""

    def __init__(self) -> None:
        self._each: list[Tensor] = []
        self._inside: list[Tensor] = []
        self._total: list[Tensor] = []

    def add(self, labels: Tensor, pairs: Weights, K: int) -> None:
        """Add the labels (H, W) of an image."""
        self._each.append(hard_ncut(labels[None], pairs, K=K))
        members = torch.stack([labels == k for k in range(K)])
        total = (pairs.degree * members).sum((1, 2))
        alone = [1 - soft_ncut(one[None, None].float(), pairs) for one in members]
        self._total.append(total)
        self._inside.append(torch.cat(alone) * total)

    def mean(self) -> float:
        """Mean over images, of 0..K."""
        return float(torch.cat(self._each).mean())

    def pooled(self) -> float:
        """All images as one graph, 0..K."""
        inside, total = torch.stack(self._inside).sum(0), torch.stack(self._total).sum(0)
        return float((1 - inside / total.clamp_min(1e-9)).sum())


def score(
    sample: Sample,
    method: Method,
    centres: Tensor,
    regions: dict[str, Regions],
    edges: dict[str, Boundaries],
    cut: dict[str, Cuts],
) -> None:
    """Add an image to what each way has found so far."""
    assert sample.load_regions is not None
    truth = [np.asarray(one) for one in sample.load_regions()]
    image = torch.tensor(sample.load()).permute(2, 0, 1)
    strength = edge_strength(sample.load())
    size, K = method.config.size, method.k
    found = (
        channels(method, image, native=method.config.native),
        colours(image, None, K, size),
        colours(image, centres, K, size),
    )
    pairs = weights(shrunk(image, size), Affinity())
    for name, own in zip(regions, found, strict=True):
        pieces = cuts(own, image, strength)
        regions[name].add(pieces, truth)
        edges[name].add([boundaries(one) for one in pieces], [boundaries(one) for one in truth])
        small = channels(method, image, native=False) if name == "W-Net" else own
        cut[name].add(small.argmax(0), pairs, K)


if __name__ == "__main__":
    main()
