"""The command `zerolabel evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import Size, options, progress_bars
from zerolabel.cli.table import format_table

PATH = click.Path(exists=True, file_okay=False, path_type=Path)
ATTENTION = (
    click.option("--backbone", help="With attention.  [jaccard; default: dino-vits16]"),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False),
        help="Weights file of the backbone.  [jaccard]",
    ),
    click.option("--device", help="auto, cpu, cuda or mps.  [jaccard]"),
    click.option("--size", type=Size(), help="Pixels to encode at.  [jaccard; default: 480]"),
    click.option(
        "--mass", type=float, help="Share of the attention to keep.  [jaccard; default: 0.6]"
    ),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for evaluation-jaccard.json.  [jaccard]",
    ),
)


@click.command("evaluate")
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, help="Root of a data set with labels.")
@click.option(
    "--protocol",
    default="full",
    show_default=True,
    help="How to score: full, full-nobg (background not scored), datus (misses dropped), or "
    "jaccard (attention of a backbone).",
)
@click.option("--split", help="Split of the data set.  [default: val where there is one]")
@options(ATTENTION)
def evaluate(run: Path, data: Path | None, protocol: str, split: str | None, **asked: Any) -> None:
    """Score the masks of RUN against ground truth.

    DATA is PASCAL VOC 2012, CamVid, or a folder with `images` and `masks` or `labels` (PNGs of
    class ids) and optionally `classes.txt`. The numbers are also written to
    RUN/evaluation-PROTOCOL.json.

    With --protocol jaccard no run is needed: RUN is then the data set, and what is scored is how
    well the attention maps of a backbone outline its objects.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if protocol != "jaccard":
        if data is None:
            raise click.UsageError("Missing option '--data'.")
        if given:
            names = ", ".join(f"--{name}" for name in given)
            raise click.UsageError(f"{names}: for --protocol jaccard only.")
        from zerolabel.jobs.evaluate import evaluate as job

        click.echo(_report(job(run, data, protocol=protocol, split=split)))
        return
    if data is not None:
        raise click.UsageError("--protocol jaccard takes the data set in the place of RUN.")
    from zerolabel.jobs.jaccard import evaluate_attention

    with progress_bars() as progress:
        result = evaluate_attention(run, split=split, progress=progress, **given)
    click.echo(_attention_report(result))


def _attention_report(result: dict[str, Any]) -> str:
    """Lay out how well attention outlines objects: one line per head, the means."""
    scores, (H, W) = result["scores"], result["size"]
    title = (
        f"protocol jaccard, {result['dataset']} {result['split']}, {result['backbone']} at "
        f"{H}x{W}, {_percent(result['mass'])} % of the mass, {scores['objects']} "
        f"{result['objects_are']} in {scores['images']} of {result['images']} images"
    )
    pairs = zip(scores["per_head"], scores["best"], strict=True)
    rows = [[str(i), _percent(mean), str(best)] for i, (mean, best) in enumerate(pairs)]
    table = format_table(["head", "Jaccard", "best for"], rows)
    means = (
        f"best head of each object {_percent(scores['jaccard'])}   "
        f"the whole image {_percent(scores['everything'])}   (percent)"
    )
    return "\n".join([title, "", table, "", means])


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
