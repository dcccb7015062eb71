"""Score what a linear layer reads from a backbone's patch tokens: the protocol linear-probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone
from zerolabel.data.benchmarks import Dataset
from zerolabel.data.labels import fit
from zerolabel.evaluation.probes import SIDE, linear_probe
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.probing import features
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.stages import encode
from zerolabel.store import Progress, Store

PROTOCOL = PROTOCOLS["linear-probe"]


def evaluate_linear(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    size: tuple[int, int] = (224, 224),
    seeds: int = 3,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a linear layer on the patch tokens of one split, and score it on another.

    Args:
        data: root of a labelled data set that has the split "train".
        backbone: one that gives tokens; one that learns learns from the training images.
        weights: its weights file, if not in the cache.
        device: where it runs; the layer is trained on the CPU.
        split: what is scored; None for "val".
        space: a label space of the data set; None for its default.
        size: (H, W) in pixels to which images are squashed, rounded down to whole patches.
        seeds: how many layers are trained, with the seeds 0, 1, ...
        out: folder that takes `evaluation-linear-probe.json` and, in `cache`, the tokens, so that
            an interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).

    Returns:
        The content of the file: protocol, data, backbone, scores 0..1 with their mean and standard
        deviation over seeds (None for one seed), and one entry per class.

    Raises:
        UsageError: wrong options, or a backbone without tokens.
        DataError: no labelled data set with both splits, or an unreadable image.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    features.check_seeds(seeds)
    train, scored = features.open_splits(Path(data), split, space=space)
    network = features.load(backbone, weights=weights, device=device)
    size = whole_patches(size, network)
    with features.open_store(out, progress) as store:
        encode.learn(network, train.samples, size=size, seed=0, store=store)
        before = encode_split(network, train, size=size, store=store)
        after = encode_split(network, scored, size=size, store=store)
    # Labels at the size of the protocol, so that those of a large data set fit in memory.
    known, truth = (
        [fit(features.read_label(sample), (SIDE, SIDE)) for sample in part.samples]
        for part in (train, scored)
    )
    found, count = [], len(train.samples)
    for seed in range(seeds):
        store.report("probe", seed * count, seeds * count)
        found.append(
            linear_probe(before, known, after, truth, classes=len(train.classes), seed=seed)
        )
    store.report("probe", seeds * count, seeds * count)
    return features.report(train, scored, PROTOCOL, network, size=size, found=found, out=out)


def encode_split(
    network: Backbone, dataset: Dataset, *, size: tuple[int, int], store: Store
) -> Tensor:
    """Hold the tokens of a split in memory: float16 (N, h, w, D)."""
    h, w = (side // network.stride for side in size)
    found = torch.empty(len(dataset.samples), h, w, network.dim, dtype=torch.float16)
    done = 0
    for part, tokens in features.batches(
        network, dataset.samples, size=size, work=f"tokens of {dataset.split}", store=store
    ):
        found[done : done + len(part)] = tokens.half()
        done += len(part)
    return found
