"""The command `zerolabel evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.table import format_table

PATH = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("evaluate")
@click.argument("run", type=PATH)
@click.option("--data", required=True, type=PATH, help="Root of a data set with labels.")
@click.option(
    "--protocol",
    default="full",
    show_default=True,
    help="How to score: full, full-nobg (background not scored) or datus (misses dropped).",
)
@click.option("--split", help="Split of the data set.  [default: val where there is one]")
def evaluate(run: Path, data: Path, protocol: str, split: str | None) -> None:
    """Score the masks of RUN against ground truth.

    DATA is PASCAL VOC 2012, CamVid, or a folder with `images` and `masks` or `labels` (PNGs of
    class ids) and optionally `classes.txt`. The numbers are also written to
    RUN/evaluation-PROTOCOL.json.
    """
    from zerolabel.jobs.evaluate import evaluate as job

    click.echo(_report(job(run, data, protocol=protocol, split=split)))


def _report(result: dict[str, Any]) -> str:
    """Lay a result out: what was scored, one line per class, the means."""
    title = (
        f"protocol {result['protocol']['id']}, {result['dataset']} {result['split']}, "
        f"{result['images']} of {result['labelled_images']} images, "
        f"K = {result['clusters']}, C = {result['classes']}"
    )
    rows = [
        [
            entry["name"],
            *(_percent(entry[key]) for key in ("iou", "accuracy", "f1")),
            ", ".join(map(str, entry["clusters"])) or "-",
        ]
        for entry in result["per_class"]
    ]
    table = format_table(["class", "IoU", "acc", "F1", "clusters"], rows)
    means = "   ".join(
        f"{name} {_percent(result[key])}"
        for name, key in (
            ("mIoU", "miou"),
            ("pixel accuracy", "pixel_accuracy"),
            ("mean accuracy", "mean_accuracy"),
            ("mF1", "mean_f1"),
        )
    )
    lines = [title, *_missing(result["missing"]), "", table, "", f"{means}   (percent)"]
    return "\n".join(lines)


def _missing(ids: list[str]) -> list[str]:
    """Name the labelled images that the run has no mask for, a few of them."""
    if not ids:
        return []
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return [f"not scored, for want of a mask: {', '.join(ids[:5])}{more}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
