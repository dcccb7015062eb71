"""What jobs that score a backbone share: its data, its features, and how a result is kept."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone
from zerolabel.data.benchmarks import Dataset
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.probes import ProbeScore
from zerolabel.evaluation.protocol import Protocol
from zerolabel.evaluation.spread import per_seed
from zerolabel.jobs.scoring.labelled import facts, open_labelled, result_name
from zerolabel.stages import encode
from zerolabel.store import Progress, Store, write_json
from zerolabel.types import LabelMap, Sample

BATCH = 16  # images per cached file, and per forward where they are small
TRAIN, SCORED = "train", "val"


def load(name: str, *, weights: str | Path | None, device: str) -> Backbone:
    """Load a backbone that gives tokens; "auto" is the best one on this machine."""
    name, _ = backbones.choose(name, weights=weights)
    network = backbones.load(name, weights=weights, device=device)
    backbones.require(network, "tokens")
    return network


@contextlib.contextmanager
def open_store(out: str | Path | None, progress: Progress | None) -> Iterator[Store]:
    """Open a place for features: a folder that stays, held by this job, or a temporary one."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="zerolabel-") as folder:
            yield Store(folder, report=progress)
        return
    store = Store(out, report=progress)
    with store.lock():
        yield store


def unreadable(name: str, reason: str) -> DataError:
    """Refuse to go on without an image: a score over fewer images would not be comparable."""
    return DataError(f"{name}: {reason}. Every image must be readable; repair or remove it.")


def open_splits(
    root: Path, split: str | None, *, space: str | None = None
) -> tuple[Dataset, Dataset]:
    """Open the images whose labels are known, "train", and those to score.

    Args:
        root: of a labelled data set.
        split: what is scored; None for "val".
        space: a label space of the data set; None for its default.

    Raises:
        UsageError: the training images would be scored.
        DataError: no labelled data set with both splits.
    """
    split = SCORED if split is None else split
    if split == TRAIN:
        raise UsageError(f"The probe trains on {TRAIN}; name another split to score, e.g. val.")
    try:
        return open_labelled(root, TRAIN, space=space), open_labelled(root, split, space=space)
    except UsageError as error:
        raise DataError(
            f"A probe learns from the labels of the split {TRAIN} and is scored on {split}; {root} "
            f"does not have both. {error} Use PASCAL VOC 2012, CamVid or another data set in its "
            "own layout."
        ) from None


def batches(
    network: Backbone,
    samples: Sequence[Sample],
    *,
    size: tuple[int, int],
    work: str,
    store: Store,
    batch: int = BATCH,
) -> Iterator[tuple[Sequence[Sample], Tensor]]:
    """Encode images batch by batch, or read what was encoded before.

    Args:
        network: gives tokens.
        samples: in a fixed order.
        size: (H, W) in pixels, whole patches.
        work: what progress calls it.
        store: keeps the tokens as float16.
        batch: images per forward.

    Yields:
        Samples, and their tokens, float32 (B, h, w, D) on the CPU.

    Raises:
        DataError: an image cannot be read.
    """
    for _, part in store.track(work, samples, batch):
        tokens, _, failures = encode.tokens(network, part, size=size, store=store)
        for name, reason in failures.items():
            raise unreadable(name, reason)
        yield part, tokens


def read_label(sample: Sample) -> LabelMap:
    """Read the label of a sample that has one."""
    if sample.load_label is None:
        raise DataError(f"{sample.id} has no label.")
    return sample.load_label()


def label_hash(samples: Sequence[Sample]) -> str:
    """Hash the labels themselves; a sample's digest is that of its image."""
    digest = hashlib.blake2b(digest_size=12)
    for sample in samples:
        digest.update(np.ascontiguousarray(read_label(sample)).tobytes())
    return digest.hexdigest()


def report(
    train: Dataset,
    scored: Dataset,
    protocol: Protocol,
    network: Backbone,
    *,
    size: tuple[int, int],
    found: Sequence[ProbeScore],
    out: str | Path | None,
    **others: Any,
) -> dict[str, Any]:
    """Say what was trained on and scored, how, with which backbone and result, and keep it.

    Args:
        train: what labels were known of.
        scored: what was scored.
        protocol: how.
        network: the backbone.
        size: (H, W) in pixels at which it looked.
        found: one score per seed, the seeds being 0, 1, ...
        out: as in `save`.
        others: what else to say, e.g. the settings.

    Returns:
        The content of the file.
    """
    result = record(train, scored, protocol, network, size) | others
    result |= {"seeds": list(range(len(found)))} | numbers(found, scored.classes)
    return save(result, out, dataset=scored, protocol=protocol)


def record(
    train: Dataset, scored: Dataset, protocol: Protocol, network: Backbone, size: tuple[int, int]
) -> dict[str, Any]:
    """Say what was trained on and scored, how, and with which backbone."""
    result = facts(scored, protocol, [sample.id for sample in scored.samples])
    known = facts(train, protocol, [sample.id for sample in train.samples])
    return result | {
        "train_split": train.split,
        "train_images": len(train.samples),
        "train_hash": known["data_hash"],
        "backbone": network.name,
        "weights": network.digest,
        "size": list(size),
    }


def numbers(found: Sequence[ProbeScore], classes: Sequence[str]) -> dict[str, Any]:
    """Turn the scores of all seeds into JSON.

    Args:
        found: one score per seed.
        classes: names, index = id.
    """
    ious = np.array([score.iou for score in found])  # (seeds, C)
    return {
        "miou": per_seed([score.miou for score in found]),
        "pixel_accuracy": per_seed([score.pixel_accuracy for score in found]),
        "classes": found[0].classes,
        "floor": found[0].floor,
        "per_class": [
            {"id": i, "name": name, "iou": per_seed(ious[:, i])} for i, name in enumerate(classes)
        ],
    }


def save(
    result: dict[str, Any], out: str | Path | None, *, dataset: Dataset, protocol: Protocol
) -> dict[str, Any]:
    """Write a result as `evaluation-<protocol>.json`, where there is a folder for it."""
    if out is not None:
        write_json(Path(out) / f"evaluation-{result_name(dataset, protocol)}.json", result)
    return result


def check_seeds(seeds: int) -> None:
    """Complain about a number of repetitions that is none."""
    if seeds < 1:
        raise UsageError(f"seeds is the number of repetitions, at least 1; found {seeds}.")


def check_mass(mass: float) -> None:
    """Complain about a share of the attention that is none."""
    if not 0 < mass <= 1:
        raise UsageError(f"The mass to keep is a share above 0 and up to 1, found {mass:g}.")
