"""Ground truth to score against, and what a result says about it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zerolabel.data.benchmarks import Dataset, open_dataset
from zerolabel.data.spaces import spaces_of
from zerolabel.errors import DataError
from zerolabel.evaluation.protocol import Protocol


def open_labelled(root: Path, split: str | None, *, space: str | None = None) -> Dataset:
    """Open a data set and keep the samples that have a label.

    Args:
        root: of the data set.
        split: a split of it, or None for its default.
        space: a label space of it, or None for its default.

    Returns:
        The data set, with at least one sample.

    Raises:
        DataError: no labelled data set.
        UsageError: it has no such split or label space.
    """
    dataset = open_dataset(root, split=split, space=space)
    if dataset is None:
        raise DataError(
            f"{root} is not a labelled data set. Expected a data set in its published layout, or a "
            "folder with `images` and `masks` (or `labels`), the masks being PNGs with the names "
            "of the images. Scores need ground truth; name the folder that holds it."
        )
    samples = tuple(sample for sample in dataset.samples if sample.load_label is not None)
    if not samples and any(sample.load_regions is not None for sample in dataset.samples):
        raise DataError(
            f"{dataset.name} {dataset.split} in {root} outlines regions that have no classes. "
            "Expected a class for every pixel; score the regions of a run with --protocol bsds."
        )
    if not samples:
        raise DataError(
            f"None of the {len(dataset.samples)} images of {dataset.name} {dataset.split} in "
            f"{root} has a label. Expected PNGs with the names of the images; unpack the labels."
        )
    return replace(dataset, samples=samples)


def result_name(dataset: Dataset, rules: Protocol) -> str:
    """What a result is called: its protocol, and the label space if it is not the default."""
    known = spaces_of(dataset.name)
    default = known[0] if known else dataset.name
    return rules.id if dataset.space == default else f"{rules.id}-{dataset.space}"


def facts(dataset: Dataset, rules: Protocol, scored: Collection[str]) -> dict[str, Any]:
    """Say what was scored, and how.

    Args:
        dataset: labelled samples only.
        rules: the protocol.
        scored: ids of the samples that were scored.

    Returns:
        The protocol with all its rules, the data, and a hash of the list of images.
    """
    return {
        "protocol": asdict(rules),
        "dataset": dataset.name,
        "space": dataset.space,
        "split": dataset.split,
        "images": len(scored),
        "labelled_images": len(dataset.samples),
        "missing": [sample.id for sample in dataset.samples if sample.id not in scored],
        "data_hash": hashlib.sha256("\n".join(sorted(scored)).encode()).hexdigest(),
        "ignored_ids": list(dataset.ignore),
    }
