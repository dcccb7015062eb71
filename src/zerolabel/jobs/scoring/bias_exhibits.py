"""What a page shows of the preferences of a run: a curve, a confusion matrix, tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zerolabel.outputs.matrix import heat_map
from zerolabel.outputs.plots import line_chart
from zerolabel.types import Exhibit


def exhibits(result: Mapping[str, Any]) -> list[Exhibit]:
    """Draw the preferences of a run.

    Args:
        result: what `bias` returns.

    Returns:
        The scores, mIoU over distance, the same in numbers, every class with its strongest rival,
        and what the pixels of every class were taken for.
    """
    return [_scores(result), _plot(result), _bins(result), _classes(result), _matrix(result)]


def _scores(result: Mapping[str, Any]) -> Exhibit:
    space = result["space_preference"]
    rows = [
        ["class preference", result["class_preference"]["score"], "-1 to 1"],
        ["space preference", space["score"], "mIoU per half diagonal"],
        ["trend over all bins", space["trend"], "mIoU per half diagonal"],
    ]
    caption = "Higher is less bias: 1 and 0 for a perfect prediction."
    return Exhibit("table", "Scores", {"columns": ["", "score", "unit"], "rows": rows}, caption)


def _plot(result: Mapping[str, Any]) -> Exhibit:
    curve = result["space_preference"]["curve"]
    points = [(round(bin["distance"], 2), bin["miou"]) for bin in curve if bin["miou"] is not None]
    svg = line_chart(
        [away for away, _ in points],
        [miou for _, miou in points],
        title="mIoU by distance from the middle of the image",
        x_label="distance of the object's centroid from the middle, in half diagonals",
        y_label="mIoU",
    )
    caption = (
        "Objects, all pixels of a class in an image, grouped by the distance of their centroid. A "
        "curve that falls is a preference for the middle."
    )
    return Exhibit("svg", "Space preference", {"svg": svg}, caption)


def _bins(result: Mapping[str, Any]) -> Exhibit:
    curve = result["space_preference"]["curve"]
    rows = [[bin["distance"], bin["objects"], bin["miou"]] for bin in curve]
    return Exhibit(
        "table",
        "mIoU by distance",
        {"columns": ["distance", "objects", "mIoU"], "rows": rows, "right": [0, 1, 2]},
        "Bins with few objects say little, and the first and the last decide the mean slope.",
    )


def _classes(result: Mapping[str, Any]) -> Exhibit:
    scored = [c for c in result["class_preference"]["per_class"] if c["score"] is not None]
    rows = [
        [entry["name"], entry["score"], entry["rival"]]
        for entry in sorted(scored, key=lambda entry: entry["score"])
    ]
    return Exhibit(
        "table",
        "Class preference",
        {"columns": ["class", "score", "rival"], "rows": rows},
        "Share of a class's pixels that are right, less the share of the class that most others "
        "were taken for; below 0 the rival is preferred. Worst first.",
    )


def _matrix(result: Mapping[str, Any]) -> Exhibit:
    counts = np.array(result["confusion"], np.float64)
    pixels = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, pixels, out=np.full(counts.shape, np.nan), where=pixels > 0)
    names = [entry["name"] for entry in result["class_preference"]["per_class"]]
    title = "What the pixels of every class were taken for"
    svg = heat_map(shares, rows=names, columns=[*names, "no class"], title=title)
    caption = "Rows are true classes, in percent of the row; blue is right."
    return Exhibit("svg", title, {"svg": svg, "wide": True}, caption)
