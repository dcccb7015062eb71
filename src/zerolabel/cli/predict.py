"""The command `zerolabel predict`."""

from __future__ import annotations

from pathlib import Path

import click

from zerolabel.cli.options import DATA, GEOMETRY, OUT, OUTPUT, announce, options, progress_bars


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@OUT
@options(OUTPUT, DATA, GEOMETRY)
def predict(
    model: Path,
    photos: Path,
    out: Path,
    overlays: bool,
    report: bool,
    split: str | None,
    geometry: str,
    previews: tuple[int, int, int] | None,
    weights: str | None,
    device: str,
) -> int:
    """Segment PHOTOS with the categories of MODEL.

    MODEL is a folder that fit, segment or refine wrote, or an ONNX file that export wrote.
    """
    from zerolabel.data.bands import PREVIEW
    from zerolabel.jobs.predict import predict as job

    with progress_bars() as progress:
        run = job(
            model,
            photos,
            out,
            split=split,
            geometry=geometry,
            previews=previews or PREVIEW,
            weights=weights,
            device=device,
            overlays=overlays,
            report=report,
            progress=progress,
        )
    return announce(run)
