"""How good a backbone's features are, beside others under the same protocol and seeds.

Three judges: k-NN (k = 20, T = 0.07) of tiny-imagenet's 5,000 validation images against its
training images, on CLS and on the mean patch; a linear probe on VOC, 160 training images, scored on
the 222 of val; and k-means with K = 21 on the patches of VOC val, matched to the classes one to one
(Hungarian), the scores interpolated to the full size of the labels. Labels judge only.

    python -m benchmarks.backbone --backbone NAME [--weights FILE] --against filterbank,random

"random" stands for a network of the same shape with random weights. A backbone that learns from
images (filterbank) learns from the VOC training images at each size. Prints Markdown, writes JSON.
Everything can be called with any object that has `encode(images, want=...)` and `gives`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.backbones import load
from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.packs import Pack
from zerolabel.data.transforms import load_batch
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.probes import knn, linear_probe, mean_patch
from zerolabel.evaluation.protocols import PROTOCOLS, score
from zerolabel.networks.vit import random_vit
from zerolabel.ops.cluster import assign, kmeans
from zerolabel.ops.resize import upsample
from zerolabel.types import Sample

SEEDS = (0, 1, 2)
BATCH, SMALL_BATCH = 16, 256  # images per forward: photos, and squares of at most 96 pixels
CLASSES = 21
ROWS, SHARPNESS = 50_000, 20.0  # as the method kmeans: patches clustered, and its softmax
Row = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Images at one size and their label maps at the size of the photos."""

    images: Tensor  # uint8 (n, 3, S, S)
    labels: Sequence[NDArray[Any]]


def voc(root: Path, split: str, size: int) -> Split:
    """The labelled VOC images of a split, squashed to a square."""
    data = open_dataset(root / "voc", split=split)
    assert data is not None
    samples: list[Sample] = [sample for sample in data.samples if sample.load_label]
    images, kept, failures = load_batch(samples, (size, size))
    assert not failures, failures
    return Split(images, [sample.load_label() for sample in kept if sample.load_label])


def encode(network: Any, images: Tensor, want: set[str], batch: int) -> dict[str, Tensor]:
    """Features of many images, batch by batch, on the CPU; patch tokens as float16."""
    parts: dict[str, list[Tensor]] = {name: [] for name in want}
    for some in torch.split(images, batch):
        found = network.encode(some, want=want)
        for name in want:
            value = getattr(found, name).detach().cpu()
            parts[name].append(value.half() if name == "tokens" else value.float())
    return {name: torch.cat(values) for name, values in parts.items()}


def pooled(network: Any, images: Tensor) -> dict[str, Tensor]:
    """One vector per image and way to get one: "cls" (where given) and "mean patch"."""
    want = {"tokens", "cls"} & set(getattr(network, "gives", {"tokens", "cls"}))
    found: dict[str, list[Tensor]] = {}
    for some in torch.split(images, 16 * SMALL_BATCH):
        features = encode(network, some, want, SMALL_BATCH if images.shape[-1] <= 96 else BATCH)
        found.setdefault("mean patch", []).append(mean_patch(features["tokens"]))
        if "cls" in features:
            found.setdefault("cls", []).append(features["cls"])
    return {name: torch.cat(values) for name, values in found.items()}


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly spaced."""
    wanted = min(count, wanted)
    return [i * count // wanted for i in range(wanted)]


def tiny(root: Path, size: int, *, bank: int, queries: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images of bank and queries, and their classes; decoded once for all backbones."""
    folder = root / "tiny-imagenet"
    packs = [Pack(path) for path in sorted(folder.glob("train-*.npz"))]
    chosen = [spread(len(p), round(bank * len(p) / sum(map(len, packs)))) for p in packs]
    images = torch.empty(sum(map(len, chosen)), 3, size, size, dtype=torch.uint8)
    at = 0
    for pack, rows in zip(packs, chosen, strict=True):
        images[at : at + len(rows)] = pack.decode_all(size, indices=rows)
        at += len(rows)
    labels = np.concatenate([p.labels[rows] for p, rows in zip(packs, chosen, strict=True)])
    val = Pack(folder / "val.npz")
    rows = spread(len(val), queries)
    known = [torch.from_numpy(x) for x in (labels, val.labels[rows])]
    return [images, val.decode_all(size, indices=rows)], known


def knn_on(network: Any, images: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Row]:
    """k-NN on what `tiny` read."""
    bank, queries = (pooled(network, some) for some in images)
    rows = []
    for name in sorted(bank):
        found = knn(bank[name], labels[0], queries[name], labels[1])
        what = f"k-NN {name}, {images[0].shape[-1]} px, bank {found.bank}"
        rows.append({"what": what, "top1": [found.top1], "top5": [found.top5]})
    return rows


def dense(network: Any, splits: Mapping[str, Split]) -> dict[str, Tensor]:
    """Patch tokens of every split, float16 (n, h, w, D)."""
    return {n: encode(network, s.images, {"tokens"}, BATCH)["tokens"] for n, s in splits.items()}


def probe_row(
    tokens: Mapping[str, Tensor], splits: Mapping[str, Split], seeds: Sequence[int] = SEEDS
) -> Row:
    """Linear probe trained on the split "train", scored on "val"."""
    given = [part for s in ("train", "val") for part in (tokens[s], splits[s].labels)]
    found = [linear_probe(*given, classes=CLASSES, seed=seed) for seed in seeds]
    return {
        "what": f"linear probe, {splits['val'].images.shape[-1]} px, {found[0].classes} classes",
        "miou": [f.miou for f in found],
        "accuracy": [f.pixel_accuracy for f in found],
        "floor": found[0].floor,
    }


def kmeans_row(tokens: Tensor, split: Split, seeds: Sequence[int] = SEEDS) -> Row:
    """Cosine k-means on the patches of a split, matched to its classes."""
    found = [score_clusters(tokens, split, seed) for seed in seeds]
    return {
        "what": f"k-means {CLASSES}, {split.images.shape[-1]} px",
        "miou": [miou for miou, _ in found],
        "accuracy": [accuracy for _, accuracy in found],
    }


def score_clusters(tokens: Tensor, split: Split, seed: int) -> tuple[float, float]:
    """Cluster, paint at full size, and score under the protocol "full"."""
    flat = tokens.flatten(0, 2)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(flat), generator=generator)[:ROWS]
    centroids = kmeans(F.normalize(flat[drawn].float(), dim=1), CLASSES, seed=seed).centroids
    confusion = Confusion(CLASSES, CLASSES)
    for image, label in zip(tokens, split.labels, strict=True):
        x = F.normalize(image.float(), dim=-1)
        closeness = x @ centroids.T - 0.5 * centroids.square().sum(1)  # (h, w, K)
        scores = (SHARPNESS * closeness).softmax(-1).permute(2, 0, 1)
        present = assign(x.flatten(0, 1), centroids)[0].unique()
        best = present[upsample(scores[present], label.shape).argmax(0)]
        confusion.add(label, best.to(torch.uint8).numpy())
    done = score(confusion.counts, PROTOCOLS["full"])
    return done.miou, done.pixel_accuracy


def prepare(network: Any, images: Tensor) -> Any:
    """Let a backbone that learns from images learn from these; the others are left alone."""
    count = getattr(network, "learns", 0)
    if count:
        network.learn(torch.split(images[:count], BATCH), seed=0)
    return network


def judge(
    networks: Mapping[str, Any],
    root: Path,
    *,
    judges: Sequence[str] = ("knn", "probe", "kmeans"),
    probe_sizes: Sequence[int] = (128, 256),
    knn_size: int = 64,
    bank: int = 44_000,
    queries: int = 5_000,
    seeds: Sequence[int] = SEEDS,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Judge several backbones on the same images; the main entry from Python.

    Args:
        networks: name -> object with `encode`, and `gives` unless it gives tokens and cls.
        root: folder with `voc` and `tiny-imagenet`.
        judges: which of the three.
        probe_sizes: pixels a side for probe and k-means.
        knn_size: pixels a side for k-NN; 64 is the size of the files.
        bank: images with known class in k-NN.
        queries: images to classify in k-NN.
        seeds: of probe and k-means.
        report: called with one Markdown line per number.

    Returns:
        One row per network and measurement: "network", "what", "seconds", and lists by seed.
    """
    rows: list[Row] = []

    def add(name: str, start: float, *found: Row) -> None:
        seconds = time.perf_counter() - start
        for row in found:
            rows.append({"network": name, **row, "seconds": seconds})
            report(line(rows[-1]))

    if "knn" in judges:
        images, labels = tiny(root, knn_size, bank=bank, queries=queries)
        photos = voc(root, "train", knn_size).images
        for name, network in networks.items():
            start = time.perf_counter()
            add(name, start, *knn_on(prepare(network, photos), images, labels))
    for size in probe_sizes if {"probe", "kmeans"} & set(judges) else ():
        splits = {split: voc(root, split, size) for split in ("train", "val")}
        for name, network in networks.items():
            start = time.perf_counter()
            tokens = dense(prepare(network, splits["train"].images), splits)
            if "probe" in judges:
                add(name, start, probe_row(tokens, splits, seeds))
                start = time.perf_counter()
            if "kmeans" in judges:
                add(name, start, kmeans_row(tokens["val"], splits["val"], seeds))
    return rows


HEAD = "| network | what | top-1 or mIoU | top-5 or accuracy | s |\n|---|---|--:|--:|--:|"


def line(row: Row) -> str:
    """One row of the Markdown table, in percent; mean and deviation (n - 1) over seeds."""
    first, second = row.get("top1", row.get("miou")), row.get("top5", row.get("accuracy"))
    floor = f" (floor {100 * row['floor']:.2f})" if "floor" in row else ""
    cells = (row["network"], row["what"], _cell(first) + floor, _cell(second))
    return f"| {' | '.join(cells)} | {row['seconds']:.0f} |"


def _cell(values: Any) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def twin(network: Any, *others: Any) -> VitBackbone:
    """A network of the same shape with random weights."""
    if not isinstance(network, VitBackbone):
        raise SystemExit("--against random needs a network beside which it is random.")
    return VitBackbone("random", random_vit(network.net.config, seed=0), device=network.device)


def arguments() -> argparse.Namespace:
    numbers = {"type": lambda text: tuple(int(n) for n in text.split(","))}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--against", default="", help="names, by commas; also filterbank, random")
    parser.add_argument("--data", type=Path, default=os.environ.get("ZEROLABEL_DATA"))
    parser.add_argument("--judges", default="knn,probe,kmeans")
    parser.add_argument("--probe-size", default=(128, 256), **numbers)
    for name, default in (("--knn-size", 64), ("--bank", 44_000), ("--queries", 5_000)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--seeds", default=SEEDS, **numbers)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("backbone.json"))
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if asked.data is None:
        raise SystemExit("Give --data, or set ZEROLABEL_DATA, to a folder with voc/.")
    torch.set_num_threads(asked.threads)
    networks = {asked.backbone: load(asked.backbone, weights=asked.weights, device=asked.device)}
    for name in filter(None, asked.against.split(",")):
        networks[name] = twin(*networks.values()) if name == "random" else load(name)
    print(HEAD, flush=True)
    options = {name: getattr(asked, name) for name in ("knn_size", "bank", "queries", "seeds")}
    options |= {"judges": asked.judges.split(","), "probe_sizes": asked.probe_size}
    rows = judge(networks, asked.data, report=lambda text: print(text, flush=True), **options)
    asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
