"""Measure what the masks of a run prefer: some classes to others, the middle to the border."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zerolabel.data.geometry import GEOMETRIES
from zerolabel.evaluation.bias import (
    BINS,
    ClassPreference,
    SpaceCurve,
    SpacePreference,
    class_preference,
    distances,
)
from zerolabel.evaluation.confusion import Confusion, by_class
from zerolabel.evaluation.protocols import score
from zerolabel.jobs.evaluate import number
from zerolabel.jobs.scoring.bias_exhibits import exhibits
from zerolabel.jobs.scoring.counts import Scored, count, find_protocol
from zerolabel.jobs.scoring.masks import BATCH, find_masks, meet
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.report import write_exhibits
from zerolabel.store import Progress, Store, write_json
from zerolabel.types import LabelMap


def bias(
    run: str | Path,
    data: str | Path,
    *,
    protocol: str = "full",
    split: str | None = None,
    space: str | None = None,
    bins: int = BINS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure class and space preference of a run, and keep them as JSON and as a page in it.

    Args:
        run: directory with `masks/` and `categories.json`.
        data: root of a labelled data set.
        protocol: a key of `PROTOCOLS` that judges masks; it says which clusters stand for which
            classes, e.g. "reclip" where category k is class k, and whether background counts.
        split: a split of the data set; the default is "val" where there is one.
        space: a label space of the data set, or None for its default.
        bins: of the curve of mIoU over distance.
        progress: called with (work, items done, items in all).

    Returns:
        The content of `bias-<protocol>.json`, beside which `bias-<protocol>.html` shows it: what
        was scored, `class_preference` and `space_preference`, as in `evaluation.bias`. What does
        not exist is None.

    Raises:
        ZerolabelError: as `evaluate`; UsageError also for fewer than two bins.
    """
    scored = count(run, data, find_protocol(protocol), split=split, space=space, progress=progress)
    counts, first = scored.found[scored.rules.geometry].counts, scored.rules.first_class
    matching = score(counts, scored.rules).matching
    classes, folded = scored.dataset.classes[first:], by_class(counts[first:], matching)
    masks = find_masks(Path(run) / "masks", scored.dataset)
    reach = 0.0
    for label, _ in _pairs(scored, masks, "distances", progress):
        reach = max(reach, np.fmax.reduce(distances(label, len(counts))[first:]))
    curve = SpaceCurve(len(classes), bins=bins, reach=reach or 1.0)
    for label, mask in _pairs(scored, masks, "bias", progress):
        image = Confusion(len(counts), len(matching))
        image.add(label, mask)
        away = distances(label, len(counts))[first:]
        curve.add(by_class(image.counts[first:], matching), away)
    result = scored.result | {"clusters": len(matching), "classes": len(classes)}
    result |= {"class_preference": _by_class(class_preference(folded), classes, first)}
    result |= {"space_preference": {"reach": reach, **_curve(curve.score())}}
    result |= {"confusion": folded.tolist()}
    path = Path(run) / f"bias-{scored.name}"
    write_json(path.with_suffix(".json"), result)
    lead = f"{scored.dataset.name} {scored.dataset.split}, protocol {scored.rules.id}."
    page = path.with_suffix(".html")
    write_exhibits(page, title="Class and space preference", lead=lead, exhibits=exhibits(result))
    return result


def _pairs(
    scored: Scored, masks: Mapping[str, Path], work: str, progress: Progress | None
) -> Iterator[tuple[LabelMap, LabelMap]]:
    """Yield label and mask of every image as the protocol compares them."""
    samples = [sample for sample in scored.dataset.samples if sample.id in masks]
    geometry, name = GEOMETRIES[scored.rules.geometry], scored.dataset.name
    for _, batch in Store(report=progress).track(work, samples, BATCH):
        for sample in batch:
            if sample.load_label is not None:
                pair = meet(sample.load_label(), read_mask(masks[sample.id]), geometry, name)
                if pair is not None:  # as in `count`, which has refused other sizes
                    yield pair


def _by_class(found: ClassPreference, classes: Sequence[str], first: int) -> dict[str, Any]:
    """Turn class preference into JSON, with ids and names."""
    rivals = [None if rival < 0 else classes[rival] for rival in found.rivals]
    return {
        "score": found.score,
        "per_class": [
            {"id": first + c, "name": name, "score": number(value), "rival": rival}
            for c, (name, value, rival) in enumerate(
                zip(classes, found.per_class, rivals, strict=True)
            )
        ],
    }


def _curve(found: SpacePreference) -> dict[str, Any]:
    """Turn space preference into JSON."""
    points = zip(found.distance, found.miou, found.objects, strict=True)
    return {
        "score": number(found.score),
        "trend": number(found.trend),
        "curve": [
            {"distance": float(away), "miou": number(miou), "objects": int(objects)}
            for away, miou, objects in points
        ],
    }
