"""Segment by the nearest labelled patches of other images: the protocol dense-knn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zerolabel import backbones
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.dense_knn import DenseKnn, PatchBank
from zerolabel.evaluation.probes import judge
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.probing import features
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.methods.configs import configure
from zerolabel.ops.resize import upsample
from zerolabel.stages import encode
from zerolabel.store import Progress

PROTOCOL = PROTOCOLS["dense-knn"]
PRESETS = {"default": DenseKnn()}


def evaluate_dense_knn(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    size: tuple[int, int] = (224, 224),
    seeds: int = 1,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Segment one split by the patches of another, and score every labelled pixel.

    Args:
        data: root of a labelled data set that has the split "train".
        backbone: one that gives tokens; one that learns learns from the training images.
        weights: its weights file, if not in the cache.
        device: where it runs; neighbours are searched on the CPU.
        split: what is scored; None for "val".
        space: a label space of the data set; None for its default.
        size: (H, W) in pixels to which images are squashed, rounded down to whole patches.
        seeds: how many banks are drawn, with the seeds 0, 1, ...
        out: folder that takes `evaluation-dense-knn.json` and, in `cache`, the tokens, so that an
            interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).
        settings: fields of `DenseKnn` to change.

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
    config = configure(PRESETS, "default", settings)
    train, scored = features.open_splits(Path(data), split, space=space)
    classes = len(train.classes)
    banks = [PatchBank(config, classes, seed=seed) for seed in range(seeds)]
    network = features.load(backbone, weights=weights, device=device)
    size = whole_patches(size, network)
    with features.open_store(out, progress) as store:
        encode.learn(network, train.samples, size=size, seed=0, store=store)
        for part, tokens in features.batches(
            network, train.samples, size=size, work=f"patches of {train.split}", store=store
        ):
            for sample, image in zip(part, tokens, strict=True):
                label = features.read_label(sample)
                for bank in banks:
                    bank.add(image, label)
        totals = [Confusion(classes, classes) for _ in banks]
        for part, tokens in features.batches(
            network, scored.samples, size=size, work=f"neighbours of {scored.split}", store=store
        ):
            labels = [features.read_label(sample) for sample in part]
            for bank, total in zip(banks, totals, strict=True):
                _count(bank.votes(tokens), labels, total)
    found = [judge(total.counts, absent=PROTOCOL.absent) for total in totals]
    others = {"settings": asdict(config), "patches": len(banks[0])}
    return features.report(
        train, scored, PROTOCOL, network, size=size, found=found, out=out, **others
    )


def _count(votes: Any, labels: Sequence[Any], total: Confusion) -> None:
    """Score a batch at the size of its labels."""
    for vote, label in zip(votes, labels, strict=True):
        total.add(label, upsample(vote, label.shape).argmax(0).numpy())
