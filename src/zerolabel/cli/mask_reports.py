"""The reports that `zerolabel evaluate` prints of masks: of one run, of several seeds, of rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zerolabel.cli.options import count
from zerolabel.cli.score_reports import percent, spread
from zerolabel.cli.table import format_table

SCORES = {
    "mIoU": "miou",
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "mF1": "mean_f1",
}
SHOWN = 5  # images without a mask that are named


def mask_report(result: dict[str, Any]) -> str:
    """Lay the score of a run out: what was scored, one line per class, the means."""
    rows = [
        [
            entry["name"],
            *(percent(entry[key]) for key in ("iou", "accuracy", "f1")),
            ", ".join(map(str, entry["clusters"])) or "-",
        ]
        for entry in result["per_class"]
    ]
    table = format_table(["class", "IoU", "acc", "F1", "clusters"], rows)
    seeds, clusters = _seeds([(result["run"] or {}).get("seed")]), [result["clusters"]]
    means = "   ".join(f"{name} {percent(result[key])}" for name, key in SCORES.items())
    lines = [f"{means}   (percent)", _floor(result)]
    return "\n".join(
        [
            *_title(result, clusters, seeds),
            "",
            table,
            "",
            *(f"{_about(result, clusters, seeds)}: {line}" for line in lines),
        ]
    )


def seeds_report(result: dict[str, Any]) -> str:
    """Lay the scores of several seeds out: one line per run, their means and deviations."""
    clusters, seeds = result["clusters"], _seeds(result["seeds"])
    rows = [
        [run["run"], "-" if seed is None else str(seed), str(K)]
        + [percent(run[key]) for key in SCORES.values()]
        for run, seed, K in zip(result["runs"], result["seeds"], clusters, strict=True)
    ]
    means = "   ".join(f"{name} {spread(result[key])}" for name, key in SCORES.items())
    lines = [f"{means}   (percent)", _floor(result)]
    return "\n".join(
        [
            *_title(result, clusters, seeds),
            "",
            format_table(["run", "seed", "K", *SCORES], rows),
            "",
            *(f"{_about(result, clusters, seeds)}: {line}" for line in lines),
        ]
    )


def explain_report(result: dict[str, Any]) -> str:
    """Lay out what the same masks score under each rule."""
    own = result["protocol"]["id"]
    rows = [
        [
            row["rule"],
            row["value"],
            str(row["classes"]),
            percent(row["miou"]),
            _change(row["miou_difference"]),
            percent(row["pixel_accuracy"]),
            _change(row["pixel_accuracy_difference"]),
            percent(row["floor"]["miou"]),
        ]
        for row in result["rows"]
    ]
    head = ["rule", "value", "C", "mIoU", "diff", "pixel acc", "diff", "floor"]
    seeds = _seeds([(result["run"] or {}).get("seed")])
    lines = [
        f"Each line below the first changes one rule of {own}, and diff is what that does.",
        "floor is the mIoU of one category everywhere. All in percent.",
    ]
    title = _title(result, [result["clusters"]], seeds)
    return "\n".join([*title, "", format_table(head, rows), "", *lines])


def bias_report(result: dict[str, Any]) -> str:
    """Lay out which classes and places the masks prefer: one line per class, the scores."""
    kinds, places = result["class_preference"], result["space_preference"]
    rows = [
        [entry["name"], _share(entry["score"]), entry["rival"] or "-"]
        for entry in kinds["per_class"]
    ]
    lines = [
        f"class preference {_share(kinds['score'])} (1 is no bias, below 0 rivals are preferred)",
        f"space preference {_share(places['score'])}, trend {_share(places['trend'])} (mIoU per "
        "half diagonal; 0 is no bias, below 0 the middle is preferred)",
    ]
    seeds = _seeds([(result["run"] or {}).get("seed")])
    title = _title(result, [result["clusters"]], seeds)
    table = format_table(["class", "right less rival", "strongest rival"], rows)
    return "\n".join([*title, "", table, "", *lines])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _title(result: dict[str, Any], clusters: Sequence[int], seeds: str) -> list[str]:
    """Say what was scored, and what a reader must know about it."""
    data = f"{result['dataset']} {result['split']}"
    if result["space"] != result["dataset"]:
        data += f" ({result['space']})"
    lines = [
        f"protocol {result['protocol']['id']}, {data}, {result['images']} of "
        f"{count(result['labelled_images'], 'image')}, K = {_range(clusters)}, "
        f"C = {result['classes']}, {seeds}"
    ]
    if result["missing"]:
        more = len(result["missing"]) - SHOWN
        names = ", ".join(result["missing"][:SHOWN]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"not scored, for want of a mask: {names}")
    if result["masks"] != "as made":
        lines.append(
            f"masks of the images' own size, {result['masks']}: a network that is given "
            f"{result['protocol']['geometry']} images may score otherwise"
        )
    return lines


def _about(result: dict[str, Any], clusters: Sequence[int], seeds: str) -> str:
    """What must stand beside every number."""
    images = count(result["images"], "image")
    K = _range(clusters)
    return f"{result['protocol']['id']}, {images}, K = {K}, C = {result['classes']}, {seeds}"


def _floor(result: dict[str, Any]) -> str:
    lowest = result["floor"]
    return (
        f"one category everywhere would score mIoU {percent(lowest['miou'])}   "
        f"pixel accuracy {percent(lowest['pixel_accuracy'])}"
    )


def _seeds(seeds: Sequence[int | None]) -> str:
    known = ", ".join(str(seed) for seed in seeds if seed is not None)
    return count(len(seeds), "seed") + (f" ({known})" if known else "")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _change(difference: float) -> str:
    return "-" if difference == 0 else f"{100 * difference:+.1f}"
