"""The command `zerolabel fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import (
    DATA,
    FIT,
    GEOMETRY,
    OUT,
    build_options,
    count,
    failed,
    options,
    progress_bars,
)


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@OUT
@options(FIT, DATA, GEOMETRY)
def fit(photos: Path, out: Path, **asked: Any) -> int:
    """Find categories in PHOTOS and keep them as a model in OUT, without writing masks."""
    from zerolabel.jobs.fit import fit as job

    chosen = build_options(asked)
    with progress_bars() as progress:
        model = job(photos, out, options=chosen, progress=progress)
    click.echo(f"{count(model.method.k, 'category')} from {photos}")
    for note in model.method.notes:
        click.echo(f"note: {note}")
    click.echo(f"model: {out / 'model.safetensors'}")
    return failed(model.failures, out)
