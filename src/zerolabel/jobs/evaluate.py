"""Score a run against ground truth: masks in, one JSON file with every number out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import Scores, floor
from zerolabel.evaluation.protocols import score, scored_classes
from zerolabel.jobs.scoring.counts import TRAIN, Scored, count, find_protocol
from zerolabel.jobs.scoring.facts import read_counted
from zerolabel.jobs.scoring.masks import read_centres
from zerolabel.ops.matching import Counts
from zerolabel.store import Progress, write_json


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    protocol: str = "full",
    split: str | None = None,
    space: str | None = None,
    matching_run: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the masks of a run, and keep the result as JSON in it.

    Args:
        run: directory with `masks/` and `categories.json`.
        data: root of a labelled data set, as `open_dataset` takes it.
        protocol: a key of `PROTOCOLS` that judges masks.
        split: a split of the data set; the default is "val" where there is one.
        space: a label space of the data set, or None for its default.
        matching_run: a run of the same model on the split "train", for protocols that match there.
        progress: called with (work, items done, items in all).

    Returns:
        The content of `evaluation-<protocol>.json`, or `evaluation-<protocol>-<space>.json` where
        the label space is not the default: protocol, data, how the run was made, scores 0..1 (None
        where a class has none), what one category everywhere would score, one entry per class, the
        class of every cluster, and the confusion matrix of the scored classes; of methods that find
        segments, `segments` says how many, in the images that the run was fitted on.

    Raises:
        UsageError: unknown names, or a protocol that does not suit the data set or the run.
        DataError: no labelled data set, no mask that belongs to it, or masks of another size.
        StoreError: the run's categories cannot be read or the result cannot be written.
    """
    rules = find_protocol(protocol)
    if matching_run is not None and rules.match_on != TRAIN:
        raise UsageError(
            f"Protocol {protocol} matches on the split it scores. Leave --matching-run out, or use "
            "a protocol that matches on train, such as full-train."
        )
    scored = count(
        run, data, rules, split=split, space=space, matching_run=matching_run, progress=progress
    )
    rules, found = scored.rules, scored.found[scored.rules.geometry]
    source = scored.sources[rules.geometry].counts if scored.sources else None
    centres = read_centres(Path(run), len(scored.names)) if rules.matching == "nearest" else None
    numbers = score(found.counts, rules, source=source, centres=centres)
    kept = scored_classes(found.counts, rules)
    own = {} if (counted := read_counted(Path(run))) is None else {"segments": counted}
    result = scored.result | own | _numbers(numbers, kept, scored, first=rules.first_class)
    write_json(Path(run) / f"evaluation-{scored.name}.json", result)
    return result


def _numbers(scores: Scores, counts: Counts, scored: Scored, *, first: int) -> dict[str, Any]:
    """Turn scores into JSON, with the ids and names of classes and categories."""
    matched = [int(label) for label in scores.matching]
    names, classes = scored.names, scored.dataset.classes[first:]
    lowest = floor(counts, absent=scored.rules.absent)
    return {
        "clusters": len(names),
        "classes": len(classes),
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "mean_f1": scores.mean_f1,
        "floor": {"miou": lowest.miou, "pixel_accuracy": lowest.pixel_accuracy},
        "per_class": [
            {
                "id": first + index,
                "name": name,
                "iou": number(scores.iou[index]),
                "accuracy": number(scores.accuracy[index]),
                "f1": number(scores.f1[index]),
                "pixels": int(scores.pixels[index]),
                "clusters": [k for k, label in enumerate(matched) if label == index],
            }
            for index, name in enumerate(classes)
        ],
        "matching": [
            {"cluster": k, "name": names[k], "class": first + label if label >= 0 else None}
            for k, label in enumerate(matched)
        ],
        "counts": counts.tolist(),
    }


def number(value: float) -> float | None:
    """Turn NaN, which JSON does not have, into None."""
    return None if math.isnan(value) else float(value)
