"""The command `zerolabel segment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zerolabel.cli.options import (
    DATA,
    FIT,
    GEOMETRY,
    OUT,
    OUTPUT,
    announce,
    build_options,
    count,
    failed,
    options,
    progress_bars,
)
from zerolabel.cli.params import Levels

if TYPE_CHECKING:
    from zerolabel.jobs.granularity import Levels as Found


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@OUT
@click.option(
    "--granularity",
    type=Levels(),
    help="Several numbers of categories instead of --k, e.g. 5,16,19: one result for each, in "
    "RUN/k5 and so on, and a page with all of them side by side.",
)
@options(FIT, OUTPUT, DATA, GEOMETRY)
def segment(
    photos: Path,
    out: Path,
    granularity: tuple[int | str, ...] | None,
    overlays: bool,
    report: bool,
    **asked: Any,
) -> int:
    """Find categories that hold across all PHOTOS and label every pixel with one.

    PHOTOS is a folder at any depth, one image, or a data set in a known layout. The run directory
    gets masks (palette PNG), overlays, categories.json, a report to open in a browser, and the
    model. Run the same command again after an interruption and it goes on.
    """
    from zerolabel.jobs.granularity import segment_levels
    from zerolabel.jobs.segment import segment as job

    chosen = build_options(asked)
    with progress_bars() as progress:
        output: dict[str, Any] = {"overlays": overlays, "report": report, "progress": progress}
        if granularity is None:
            run = job(photos, out, options=chosen, **output)
        else:
            levels = segment_levels(photos, out, granularity, options=chosen, **output)
    return announce(run) if granularity is None else _announce_levels(levels)


def _announce_levels(found: Found) -> int:
    """Print what came out at every level, and return the exit code."""
    images, levels = count(found.images, "image"), count(len(found.levels), "level")
    click.echo(f"{images} ({found.data}) at {levels}")
    for run in found.levels.values():
        click.echo(f"{count(len(run.categories), 'category')}: {run.report or run.path}")
    for note in found.notes:
        click.echo(f"note: {note}")
    if found.report is not None:
        click.echo(f"side by side: {found.report}")
    return failed(found.failures, found.path)
