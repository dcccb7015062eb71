"""The command `zerolabel export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import count, progress_bars


@click.command("export")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--format",
    metavar="NAME",
    required=True,
    help="coco, labelme, cvat, label-studio or png.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder that is missing or empty.",
)
@click.option(
    "--parts",
    is_flag=True,
    help="One annotation for each connected part, not for each category of an image.",
)
@click.option(
    "--minimum",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Pixels below which an annotation is left out.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="Where the photos are now.  [default: where RUN was made]",
)
@click.option("--split", help="Split of a data set.")
@click.option(
    "--prefix",
    metavar="URL",
    help="What makes an address of a photo's path.  [label-studio; default: that of local files]",
)
def export(run: Path, out: Path, **asked: Any) -> None:
    """Write the masks of RUN as an annotation tool reads them.

    \b
    coco           stuff.json with run lengths, panoptic.json with PNGs
    labelme        a JSON file for each photo
    cvat           annotations.zip for "Segmentation mask 1.1"
    label-studio   tasks.json with predictions, config.xml
    png            palette PNGs

    RUN is a folder that segment, predict or refine wrote. Holes are kept, names and colours are
    those of its categories, and labels.csv lists them in every format.
    """  # noqa: D301  (\b keeps the lines of a list)
    from zerolabel.jobs.export import export as job

    with progress_bars() as progress:
        found = job(run, out, progress=progress, **asked)
    for note in found.notes:
        click.echo(f"note: {note}")
    shapes = "" if found.format == "png" else f", {count(found.annotations, 'annotation')}"
    click.echo(f"{count(found.images, 'image')}{shapes}: {found.path}")
