"""The command `zerolabel export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import count, progress_bars
from zerolabel.errors import UsageError

NETWORK = "onnx"
OF_MASKS = {"parts": False, "minimum": 1, "prefix": None}  # options of masks, and their defaults


@click.command("export")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--format",
    metavar="NAME",
    required=True,
    help="coco, labelme, cvat, label-studio, png or onnx.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder that is missing or empty; for onnx a new file, FILE.onnx.",
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
@click.option("--int8", is_flag=True, help="Compute in 8-bit numbers: faster.  [onnx]")
def export(run: Path, out: Path, int8: bool, **asked: Any) -> None:
    """Write the masks of RUN as an annotation tool reads them, or its network.

    \b
    coco           stuff.json with run lengths, panoptic.json with PNGs
    labelme        a JSON file for each photo
    cvat           annotations.zip for "Segmentation mask 1.1"
    label-studio   tasks.json with predictions, config.xml
    png            palette PNGs
    onnx           the network of deeplab or unet, as refine makes it

    RUN is a folder that segment, predict or refine wrote. Holes are kept, names and colours are
    those of its categories, and labels.csv lists them in every format of masks.
    """  # noqa: D301  (\b keeps the lines of a list)
    if asked["format"] == NETWORK:
        _network(run, out, int8=int8, **asked)
        return
    if int8:
        raise UsageError("--int8 goes with --format onnx. Leave it out.")
    from zerolabel.jobs.export import export as job

    with progress_bars() as progress:
        found = job(run, out, progress=progress, **asked)
    for note in found.notes:
        click.echo(f"note: {note}")
    shapes = "" if found.format == "png" else f", {count(found.annotations, 'annotation')}"
    click.echo(f"{count(found.images, 'image')}{shapes}: {found.path}")


def _network(
    run: Path, out: Path, *, int8: bool, data: Path | None, split: str | None, **asked: Any
) -> None:
    """Export the student of a run."""
    for name, usual in OF_MASKS.items():
        if asked[name] != usual:
            raise UsageError(f"--{name} is about masks, and onnx is a network. Leave it out.")
    from zerolabel.jobs.export_network import export_network as job

    with progress_bars() as progress:
        found = job(run, out, int8=int8, data=data, split=split, progress=progress)
    if found.agreement is not None:
        click.echo(f"int8: decides as before on {found.agreement:.1%} of the places")
    height, width = found.size
    words = f"{found.method}, {count(found.categories, 'category')}, photos at {height}x{width}"
    click.echo(f"{words}: {found.path}")
