"""The command `zerolabel segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import (
    DATA,
    FIT,
    GEOMETRY,
    OUT,
    OUTPUT,
    announce,
    build_options,
    options,
    progress_bars,
)


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@OUT
@options(FIT, OUTPUT, DATA, GEOMETRY)
def segment(photos: Path, out: Path, overlays: bool, report: bool, **asked: Any) -> int:
    """Find categories that hold across all PHOTOS and label every pixel with one.

    PHOTOS is a folder at any depth, one image, or a data set in a known layout. The run directory
    gets masks (palette PNG), overlays, categories.json, a report to open in a browser, and the
    model. Run the same command again after an interruption and it goes on.
    """
    from zerolabel.jobs.segment import segment as job

    chosen = build_options(asked)
    with progress_bars() as progress:
        run = job(photos, out, options=chosen, overlays=overlays, report=report, progress=progress)
    return announce(run)
