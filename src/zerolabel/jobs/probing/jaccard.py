"""Score the attention of a backbone against annotated objects: the protocol jaccard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from zerolabel import backbones
from zerolabel.backbones import Backbone
from zerolabel.data.benchmarks import Dataset
from zerolabel.data.labels import read_raw
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.jaccard import Jaccard
from zerolabel.evaluation.protocols import BACKGROUND, PROTOCOLS
from zerolabel.jobs.probing import features
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.jobs.scoring.labelled import facts, open_labelled
from zerolabel.store import Progress, Store
from zerolabel.types import LabelMap, Sample

BATCH = 4  # images per forward: of 480 pixels and patches of 8 a ViT-S needs 200 MB each
PROTOCOL = PROTOCOLS["jaccard"]


def evaluate_attention(
    data: str | Path,
    *,
    backbone: str = "dino-vits16",
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    size: tuple[int, int] = (480, 480),
    mass: float = 0.6,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score how well a backbone's CLS attention outlines the objects of a labelled data set.

    An object is what `SegmentationObject` outlines where PASCAL VOC has it, else all pixels of one
    class, the background left out.

    Args:
        data: root of a labelled data set, as `open_dataset` takes it.
        backbone: one that gives attention.
        weights: its weights file, if not in the cache.
        device: where it runs.
        split: a split of the data set; the default is "val" where there is one.
        size: (H, W) in pixels to which every image is squashed.
        mass: share of the attention that is kept, 0..1.
        out: folder that takes `evaluation-jaccard.json`; None writes nothing.
        progress: called with (work, items done, items in all).

    Returns:
        The content of the file: protocol, data, backbone, and the scores 0..1.

    Raises:
        UsageError: a backbone without attention, or wrong options.
        DataError: no labelled data set, an unreadable image, or no object.
        WeightsError: the weights are missing or wrong.
        StoreError: the result cannot be written.
    """
    dataset = open_labelled(Path(data), split)
    features.check_mass(mass)
    network = backbones.load(backbone, weights=weights, device=device)
    backbones.require(network, "attention")
    size = whole_patches(size, network, default=480)
    truth, kind = _objects(dataset)
    total = Jaccard(mass=mass)
    background = 0 if kind == "objects" or dataset.classes[0] == BACKGROUND else None
    for _, batch in Store(report=progress).track("attention", dataset.samples, BATCH):
        _add(total, batch, network, truth, size=size, background=background)
    result = facts(dataset, PROTOCOL, [sample.id for sample in dataset.samples])
    result |= {"objects_are": kind, "backbone": network.name, "weights": network.digest}
    result |= {"size": list(size), "mass": mass}
    result |= {"scores": asdict(total.score())}
    return features.save(result, out, dataset=dataset, protocol=PROTOCOL)


def _add(
    total: Jaccard,
    samples: Any,
    network: Backbone,
    truth: Callable[[Sample], LabelMap],
    *,
    size: tuple[int, int],
    background: int | None,
) -> None:
    """Score one batch."""
    images, kept, failures = load_batch(samples, size)
    for name, reason in failures.items():  # a score over fewer images would not be comparable
        raise DataError(f"{name}: {reason}. Every labelled image must be readable; repair it.")
    attention = network.encode(images, want={"attention"}).attention
    if attention is None:
        raise UsageError(f"{network.name} gave no attention.")
    for sample, maps in zip(kept, attention, strict=True):
        total.add(maps, truth(sample), background=background)


def _objects(dataset: Dataset) -> tuple[Callable[[Sample], LabelMap], str]:
    """Say how to read the objects of an image, and whether they are objects or classes."""
    folder = dataset.images.parent / "SegmentationObject"
    if dataset.name == "voc" and folder.is_dir():

        def read(sample: Sample) -> LabelMap:
            return read_raw(folder / PurePosixPath(sample.id).with_suffix(".png"))

        return read, "objects"

    return features.read_label, "classes"
