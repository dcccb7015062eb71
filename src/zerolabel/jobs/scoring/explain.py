"""How the same masks score under each rule: one pass over the masks, one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerolabel.data.geometry import GEOMETRIES
from zerolabel.evaluation.explain import Row, explain
from zerolabel.evaluation.protocols import BACKGROUND
from zerolabel.jobs.scoring.counts import count, find_protocol
from zerolabel.jobs.scoring.masks import Counted, read_centres
from zerolabel.ops.matching import Counts
from zerolabel.store import Progress, write_json


def explain_score(
    run: str | Path,
    data: str | Path,
    *,
    protocol: str = "full",
    split: str | None = None,
    space: str | None = None,
    matching_run: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the masks of a run under a protocol and under each other rule, and keep it as JSON.

    Args:
        run: directory with `masks/` and `categories.json`.
        data: root of a labelled data set.
        protocol: a key of `PROTOCOLS` that judges masks.
        split: a split of the data set; the default is "val" where there is one.
        space: a label space of the data set, or None for its default.
        matching_run: a run of the same model on the split "train", to match clusters there too.
        progress: called with (work, items done, items in all).

    Returns:
        The content of `explain-<protocol>.json`: what was scored, and one row per rule.

    Raises:
        ZerolabelError: as `evaluate`.
    """
    rules = find_protocol(protocol)
    others = [
        name
        for name, geometry in GEOMETRIES.items()
        # Where labels keep their size, so do masks of that size: nothing changes.
        if name != rules.geometry and not geometry.own_labels
    ]
    scored = count(
        run,
        data,
        rules,
        split=split,
        space=space,
        others=others,
        matching_run=matching_run,
        progress=progress,
    )
    rows = explain(
        _counts(scored.found),
        scored.rules,
        background=scored.dataset.classes[0] == BACKGROUND,
        sources=None if scored.sources is None else _counts(scored.sources),
        centres=read_centres(Path(run), len(scored.names)),
    )
    result = scored.result | {"clusters": len(scored.names), "classes": rows[0].classes}
    result["rows"] = [_row(row, rows[0]) for row in rows]
    write_json(Path(run) / f"explain-{scored.name}.json", result)
    return result


def _counts(found: Mapping[str, Counted]) -> dict[str, Counts]:
    return {name: counted.counts for name, counted in found.items()}


def _row(row: Row, own: Row) -> dict[str, Any]:
    scores, lowest = row.scores, row.floor
    return {
        "rule": row.rule,
        "value": row.value,
        "classes": row.classes,
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "miou_difference": scores.miou - own.scores.miou,
        "pixel_accuracy_difference": scores.pixel_accuracy - own.scores.pixel_accuracy,
        "floor": {"miou": lowest.miou, "pixel_accuracy": lowest.pixel_accuracy},
    }
