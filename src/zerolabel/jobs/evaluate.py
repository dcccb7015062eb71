"""Score a run against ground truth: masks in, one JSON file with every number out."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from zerolabel.data.benchmarks import Dataset, open_dataset
from zerolabel.errors import DataError, StoreError, UsageError, unknown_name
from zerolabel.evaluation.confusion import Confusion, Scores
from zerolabel.evaluation.protocols import PROTOCOLS, Protocol, score
from zerolabel.outputs.masks import mask_names, read_mask
from zerolabel.store import read_json, write_json

Parts = tuple[str, ...]  # of a relative path


def evaluate(
    run: str | Path, data: str | Path, *, protocol: str = "full", split: str | None = None
) -> dict[str, Any]:
    """Score the masks of a run, and keep the result as `evaluation-<protocol>.json` in it.

    Args:
        run: directory with `masks/` and `categories.json`.
        data: root of a labelled data set, as `open_dataset` takes it.
        protocol: a key of `PROTOCOLS` that judges masks.
        split: a split of the data set; the default is "val" where there is one.

    Returns:
        The content of the file: protocol, data, scores 0..1 (None where a class has none), one
        entry per class, and the class of every cluster.

    Raises:
        UsageError: unknown protocol or split, or a protocol that does not suit the data set.
        DataError: no labelled data set, no mask that belongs to it, or masks of another size.
        StoreError: the run's categories cannot be read or the result cannot be written.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    rules = PROTOCOLS[protocol]
    if rules.judges != "masks":
        raise UsageError(
            f"Protocol {protocol} judges the {rules.judges} of a backbone, not the masks of a run. "
            f"Use `zerolabel evaluate DATA --protocol {protocol} --backbone NAME`"
            f"{', with --queries QUERIES' if protocol == 'knn' else ''}."
        )
    run = Path(run)
    names = _read_categories(run / "categories.json")
    dataset = open_labelled(Path(data), split)
    if rules.background == "ignored" and dataset.classes[0] != "background":
        raise UsageError(
            f"Protocol {protocol} leaves out the background: expected a data set whose class 0 is "
            f"background, found {dataset.classes[0]!r} in {dataset.name}. Use the protocol full."
        )
    masks = _find_masks(run / "masks", dataset)
    scored = score(_count(dataset, masks, len(names)).counts, rules)
    first = rules.first_class
    result = facts(dataset, rules, masks)
    result |= _numbers(scored, dataset.classes[first:], names, first=first)
    write_json(run / f"evaluation-{protocol}.json", result)
    return result


def _read_categories(path: Path) -> list[str]:
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


def open_labelled(root: Path, split: str | None) -> Dataset:
    """Open a data set and keep the samples that have a label."""
    dataset = open_dataset(root, split=split)
    if dataset is None:
        raise DataError(
            f"{root} is not a labelled data set. Expected PASCAL VOC 2012, CamVid, or a folder "
            "with `images` and `masks` (or `labels`), the masks being PNGs with the names of the "
            "images. Scores need ground truth; name the folder that holds it."
        )
    samples = tuple(sample for sample in dataset.samples if sample.load_label is not None)
    if not samples:
        raise DataError(
            f"None of the {len(dataset.samples)} images of {dataset.name} {dataset.split} in "
            f"{root} has a label. Expected PNGs with the names of the images; unpack the labels."
        )
    return replace(dataset, samples=samples)


def _find_masks(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """Find the mask of every image, also where the run was made on another folder of the tree.

    A run on a folder above the images has names with more parts, a run on one below has names with
    fewer. The mask with the longest tail in common with the image's full path is meant, and the
    tail must hold the image's id or the mask's name as a whole.

    Returns:
        From id to mask, in the order of ids; images without a mask are left out.
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


def _count(dataset: Dataset, masks: Mapping[str, Path], clusters: int) -> Confusion:
    """Stream all pairs of label and mask through one confusion matrix."""
    confusion = Confusion(len(dataset.classes), clusters)
    for sample in dataset.samples:
        if sample.id in masks and sample.load_label is not None:
            try:
                confusion.add(sample.load_label(), read_mask(masks[sample.id]))
            except DataError as error:
                raise DataError(f"{sample.id}: {error}") from None
    return confusion


def facts(dataset: Dataset, rules: Protocol, scored: Collection[str]) -> dict[str, Any]:
    """Say what was scored, and how."""
    return {
        "protocol": asdict(rules),
        "dataset": dataset.name,
        "split": dataset.split,
        "images": len(scored),
        "labelled_images": len(dataset.samples),
        "missing": [sample.id for sample in dataset.samples if sample.id not in scored],
        "data_hash": hashlib.sha256("\n".join(sorted(scored)).encode()).hexdigest(),
        "ignored_ids": list(dataset.ignore),
    }


def _numbers(
    scored: Scores, classes: Sequence[str], names: Sequence[str], *, first: int
) -> dict[str, Any]:
    """Turn scores into JSON, with the ids and names of classes and categories."""
    matched = [int(label) for label in scored.matching]
    return {
        "clusters": len(names),
        "classes": len(classes),
        "miou": scored.miou,
        "pixel_accuracy": scored.pixel_accuracy,
        "mean_accuracy": scored.mean_accuracy,
        "mean_f1": scored.mean_f1,
        "per_class": [
            {
                "id": first + index,
                "name": name,
                "iou": _number(scored.iou[index]),
                "accuracy": _number(scored.accuracy[index]),
                "f1": _number(scored.f1[index]),
                "pixels": int(scored.pixels[index]),
                "clusters": [k for k, label in enumerate(matched) if label == index],
            }
            for index, name in enumerate(classes)
        ],
        "matching": [
            {"cluster": k, "name": names[k], "class": first + label if label >= 0 else None}
            for k, label in enumerate(matched)
        ],
    }


def _number(value: float) -> float | None:
    """Turn NaN, which JSON does not have, into None."""
    return None if math.isnan(value) else float(value)
