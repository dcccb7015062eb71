"""The command `zerolabel compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zerolabel.cli.options import progress_bars
from zerolabel.cli.table import format_table

if TYPE_CHECKING:
    from zerolabel.jobs.compare import Comparison

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("compare")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--data",
    multiple=True,
    type=FOLDER,
    help="Root of a labelled data set: compute the scores that are missing on it; repeatable.",
)
@click.option("--protocol", help="Only scores of this protocol.  [default: all; full with --data]")
@click.option("--split", help="Only scores on this split.")
@click.option("--space", help="Only scores in this label space.")
@click.option(
    "--against",
    type=click.Choice(["first", "best"]),
    default="first",
    show_default=True,
    help="The row that differences are taken to.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for compare.csv, compare.json and a page with plots, index.html.",
)
@click.option(
    "--grid",
    type=click.IntRange(min=1),
    help="Also draw grid.png: so many images, each as photo, truth and runs.  [with --data, --out]",
)
@click.option("--seed", type=int, help="Choose the images of --grid by chance.  [default: evenly]")
def compare(runs: tuple[Path, ...], grid: int | None, **asked: Any) -> None:
    """Compare the scores of runs: one table over methods and data sets.

    Each RUN holds an evaluation-*.json, as `zerolabel evaluate` writes it, or is scored on --data.
    Runs that differ in nothing but their seed make one row, with mean and standard deviation. Only
    scores on the same images, in one label space and by one protocol share a column. Numbers that
    papers have printed for the same rules are shown below, marked as measured on other data.
    """
    from zerolabel.jobs.compare import compare as job

    with progress_bars() as progress:
        result = job(runs, grid=grid or 0, progress=progress, **asked)
    click.echo(_report(result))


def _report(result: Comparison) -> str:
    """Lay a comparison out: over all columns, each column, what is published, notes, files."""
    from zerolabel.jobs.comparing.page import QUOTED, brief, cells, headings
    from zerolabel.jobs.comparing.rows import titles
    from zerolabel.jobs.comparing.table import LEGEND, METRICS

    table = result.table
    named = titles(table.columns)
    parts = []
    if len(table.columns) > 1:
        rows = [
            [row.label, *(brief(table, row, c, between="+-") for c in table.columns)]
            for row in table.rows
        ]
        parts.append(f"mIoU in percent\n\n{format_table(['runs', *named.values()], rows)}")
    for column in table.columns:
        rows = [
            [row.label, *cells(table, row, column, between="+-")]
            for row in table.rows
            if column in row.cells
        ]
        parts.append(f"{column.words}\n\n{format_table(headings(), rows)}\n\n{table.floor(column)}")
        if quoted := result.published[column]:
            lines = [
                [e.method, e.backbone or "-", METRICS.get(e.metric, e.metric), f"{e.value:g}"]
                + [" ".join([e.paper, e.table]).strip()]
                for e in quoted
            ]
            header = ["method", "backbone", "metric", "value", "printed in"]
            parts.append(f"{QUOTED}\n\n{format_table(header, lines)}")
    parts.append(LEGEND.format(against=table.against))
    if result.notes:
        parts.append("\n".join(f"note: {note}" for note in result.notes))
    if result.files:
        parts.append("\n".join(f"written: {path}" for path in result.files))
    return "\n\n".join(parts)
