"""Score what a linear layer reads from a backbone's patch tokens: the protocol linear-probe."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone
from zerolabel.data.benchmarks import Dataset
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.probes import SIDE, ProbeScore, linear_probe
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.evaluate import facts, open_labelled
from zerolabel.jobs.settings import whole_patches
from zerolabel.stages import encode
from zerolabel.store import Progress, Store, write_json
from zerolabel.types import LabelMap, Sample

BATCH = 16  # images per forward and per cached file
TRAIN, SCORED = "train", "val"
PROTOCOL = PROTOCOLS["linear-probe"]


def evaluate_linear(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str = SCORED,
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
        split: what is scored.
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
    if seeds < 1:
        raise UsageError(f"seeds is the number of layers to train, at least 1; found {seeds}.")
    train, scored = _open_splits(Path(data), split)
    network = load(backbone, weights=weights, device=device)
    size = whole_patches(size, network)
    with open_store(out, progress) as store:
        encode.learn(network, train.samples, size=size, seed=0, store=store)
        before = _tokens(network, train, size, store)
        after = _tokens(network, scored, size, store)
    known, truth = _labels(train), _labels(scored)
    found, count = [], len(train.samples)
    for seed in range(seeds):
        store.report("probe", seed * count, seeds * count)
        found.append(
            linear_probe(before, known, after, truth, classes=len(train.classes), seed=seed)
        )
    store.report("probe", seeds * count, seeds * count)
    result = facts(scored, PROTOCOL, [sample.id for sample in scored.samples])
    result |= {"train_split": TRAIN, "train_images": len(train.samples)}
    result |= {"train_hash": facts(train, PROTOCOL, [s.id for s in train.samples])["data_hash"]}
    result |= {"backbone": network.name, "weights": network.digest, "size": list(size)}
    result |= {"seeds": list(range(seeds))} | _numbers(found, scored.classes)
    if out is not None:
        write_json(Path(out) / f"evaluation-{PROTOCOL.id}.json", result)
    return result


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


def _open_splits(root: Path, split: str) -> tuple[Dataset, Dataset]:
    """Open the images to train on and those to score."""
    if split == TRAIN:
        raise UsageError(f"The probe trains on {TRAIN}; name another split to score, e.g. val.")
    try:
        return open_labelled(root, TRAIN), open_labelled(root, split)
    except UsageError as error:
        raise DataError(
            f"The linear probe trains on the split {TRAIN} and is scored on {split}; {root} does "
            f"not have both. {error} Use PASCAL VOC 2012 or CamVid in their own layout."
        ) from None


def _tokens(network: Backbone, dataset: Dataset, size: tuple[int, int], store: Store) -> Tensor:
    """Encode a split, or read what was encoded before: float16 (N, h, w, D)."""
    h, w = (side // network.stride for side in size)
    found = torch.empty(len(dataset.samples), h, w, network.dim, dtype=torch.float16)
    work = f"tokens of {dataset.split}"
    for number, batch in store.track(work, dataset.samples, BATCH):
        tokens, _, failures = encode.tokens(network, batch, size=size, store=store)
        for name, reason in failures.items():
            raise unreadable(name, reason)
        found[number * BATCH : number * BATCH + len(batch)] = tokens.half()
    return found


def _labels(dataset: Dataset) -> list[LabelMap]:
    """Read all labels at the size of the protocol, so that a large data set fits in memory."""
    return [_small(sample) for sample in dataset.samples]


def _small(sample: Sample) -> LabelMap:
    if sample.load_label is None:
        raise DataError(f"{sample.id} has no label.")
    label = Pillow.fromarray(sample.load_label().astype(np.uint8))
    return np.asarray(label.resize((SIDE, SIDE), Pillow.Resampling.NEAREST))


def _numbers(found: Sequence[ProbeScore], classes: Sequence[str]) -> dict[str, Any]:
    """Turn the scores of all seeds into JSON."""
    ious = np.array([score.iou for score in found])  # (seeds, C)
    per_class = [
        {"id": i, "name": name, "iou": _spread(ious[:, i])} for i, name in enumerate(classes)
    ]
    return {
        "miou": _spread([score.miou for score in found]),
        "pixel_accuracy": _spread([score.pixel_accuracy for score in found]),
        "classes": found[0].classes,
        "floor": found[0].floor,
        "per_class": per_class,
    }


def _spread(values: Any) -> dict[str, Any] | None:
    """Mean and standard deviation over seeds; None for a class without a pixel."""
    x = np.asarray(values, np.float64)
    if np.isnan(x).any():
        return None
    deviation = float(x.std(ddof=1)) if len(x) > 1 else None
    return {"mean": float(x.mean()), "std": deviation, "per_seed": x.tolist()}
