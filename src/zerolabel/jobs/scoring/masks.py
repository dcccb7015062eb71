"""The masks of a run beside the ground truth that they belong to, and what both say together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from zerolabel.data.benchmarks import Dataset
from zerolabel.data.geometry import GEOMETRIES, Geometry, view_label
from zerolabel.data.labels import fit
from zerolabel.errors import DataError, StoreError
from zerolabel.evaluation.confusion import Confusion
from zerolabel.ops.matching import Centres, Counts
from zerolabel.outputs.masks import IGNORE_16, mask_names, read_mask
from zerolabel.store import Progress, Store, read_json, read_stage
from zerolabel.types import IGNORE, LabelMap

Parts = tuple[str, ...]  # of a relative path
BATCH = 16  # images between two signs of progress


@dataclass(frozen=True)
class Counted:
    """All pairs of label and mask under one geometry.

    Attributes:
        counts: int64 (C, K + 1), last column: no cluster.
        cropped: whether masks of the images' own size were brought to the geometry afterwards.
    """

    counts: Counts
    cropped: bool


def read_categories(path: Path) -> list[str]:
    """Read the category names of a run, index = id."""
    listed = read_json(path)
    try:
        names = {int(entry["id"]): str(entry["name"]) for entry in listed["categories"]}
    except (KeyError, TypeError, ValueError):
        names = {}
    if not names or sorted(names) != list(range(len(names))):
        raise StoreError(
            f"{path} does not list the categories. Expected "
            '{"categories": [{"id": 0, "name": ...}, ...]} with ids 0, 1, 2, ... without gaps. '
            "Run the segmentation again."
        )
    return [names[index] for index in range(len(names))]


def read_centres(run: Path, clusters: int) -> Centres | None:
    """The centres (K, D) of a run's clusters; None where its model has none."""
    try:
        centres = read_stage(run / "model.safetensors").arrays["centroids"]
    except (StoreError, KeyError):
        return None
    return np.asarray(centres) if len(centres) == clusters else None


def find_masks(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """Find the mask of every image, also where the run was made on another folder of the tree.

    A run on a folder above the images has names with more parts, a run on one below has names with
    fewer. The mask with the longest tail in common with the image's full path is meant, and the
    tail must hold the image's id or the mask's name as a whole.

    Args:
        folder: `masks` of a run.
        dataset: the images.

    Returns:
        From id to mask, in the order of ids; images without a mask are left out.

    Raises:
        DataError: no mask belongs to an image, or it is not clear which.
    """
    known: defaultdict[str, list[Parts]] = defaultdict(list)
    for path in folder.rglob("*.png"):
        known[path.name].append(path.relative_to(folder).parts)
    names = mask_names([sample.id for sample in dataset.samples])
    above = dataset.images.resolve().parts
    owners: dict[Parts, str] = {}
    for image, name in names.items():
        own = PurePosixPath(name).parts
        best = _longest_tails(above + own, known[own[-1]], least=len(own))
        if len(best) > 1:
            raise _unclear(f"{image} could have the masks", best, folder)
        if best and best[0] in owners:
            raise _unclear(f"{owners[best[0]]} and {image} could both have the mask", best, folder)
        owners |= dict.fromkeys(best, image)
    if not owners:
        first = next(iter(names.values()))
        raise DataError(
            f"No mask in {folder} belongs to an image in {dataset.images}. Expected masks such as "
            f"{first}, found {sum(map(len, known.values()))} PNGs with other names. Evaluate on "
            "the data set and the split that were segmented."
        )
    return {image: folder.joinpath(*mask) for mask, image in owners.items()}


def count_masks(
    dataset: Dataset,
    masks: Mapping[str, Path],
    clusters: int,
    *,
    geometry: str,
    others: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Counted]:
    """Stream all pairs of label and mask through one confusion matrix for each geometry.

    Args:
        dataset: its samples have labels.
        masks: id -> path; samples without one are left out.
        clusters: K.
        geometry: a key of `GEOMETRIES`; the masks have its size, or that of their label.
        others: further ones, looked through only if every mask has the size of its label.
        progress: called with (work, items done, items in all).

    Returns:
        Counts by geometry; `others` that do not suit are left out.

    Raises:
        DataError: a mask has neither size, holds ids of no category, or cannot be read.
    """
    samples = [sample for sample in dataset.samples if sample.id in masks]
    found = {name: Confusion(len(dataset.classes), clusters) for name in (geometry, *others)}
    cropped = False
    for _, batch in Store(report=progress).track("score", samples, BATCH):
        for sample in batch:
            if sample.load_label is None:
                continue
            label, mask = sample.load_label(), _read(masks[sample.id], clusters)
            if mask.shape != label.shape:
                found = {geometry: found[geometry]}
            for name, confusion in found.items():
                pair = meet(label, mask, GEOMETRIES[name], dataset.name)
                if pair is None:
                    raise _odd_size(label, mask, GEOMETRIES[name], dataset, masks[sample.id])
                cropped |= name == geometry and mask.shape == label.shape != pair[1].shape
                confusion.add(*pair)
    return {name: Counted(confusion.counts, cropped) for name, confusion in found.items()}


def _read(path: Path, clusters: int) -> LabelMap:
    """Read a mask whose ids are those of the categories, or stand for none."""
    mask = read_mask(path)
    over = mask[mask >= clusters]
    stray = over[(over != IGNORE) & (over != IGNORE_16)]
    if stray.size:
        raise DataError(
            f"The mask {path} holds ids that categories.json does not list: expected 0-"
            f"{clusters - 1}, and {IGNORE} for no category, found {stray.min()}. List every "
            "category that the masks hold."
        )
    return mask


def meet(
    label: LabelMap, mask: LabelMap, geometry: Geometry, dataset: str
) -> tuple[LabelMap, LabelMap] | None:
    """Bring a label and a mask to the size at which a protocol compares them.

    Args:
        label: integer (H, W).
        mask: of a run, integer: as large as the label, or as the geometry makes its image.
        geometry: of the protocol.
        dataset: name of the data set, for those that have a size of their own.

    Returns:
        The two at one size; None where the mask has neither of the sizes it may have.
    """
    if mask.shape == label.shape:
        return view_label(label, geometry, dataset), view_label(mask, geometry, dataset)
    if mask.shape != geometry.size(dataset):
        return None
    if geometry.own_labels:
        return label, fit(mask, (label.shape[0], label.shape[1]))
    return view_label(label, geometry, dataset), mask


def _odd_size(
    label: LabelMap, mask: LabelMap, geometry: Geometry, dataset: Dataset, path: Path
) -> DataError:
    size = geometry.size(dataset.name)
    also = f" or {size}, that of the geometry {geometry.id}" if size else ""
    return DataError(
        f"The mask {path} has another size than its label: expected (height, width) "
        f"{label.shape}{also}, found {mask.shape}. Segment the images that the labels belong to, "
        "at their own size or through the geometry of the protocol."
    )


def _longest_tails(image: Parts, masks: list[Parts], *, least: int) -> list[Parts]:
    """Choose the masks that share the longest tail with an image's path."""
    tails: defaultdict[int, list[Parts]] = defaultdict(list)
    for mask in masks:
        pairs = zip(reversed(image), reversed(mask), strict=False)
        tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if tail >= min(least, len(mask)):
            tails[tail].append(mask)
    return sorted(tails[max(tails)]) if tails else []


def _unclear(what: str, masks: list[Parts], folder: Path) -> DataError:
    listed = ", ".join("/".join(mask) for mask in masks)
    return DataError(
        f"Expected one mask for every image, but {what} {listed} in {folder}. Segment the folder "
        "of the images itself and evaluate that run."
    )
