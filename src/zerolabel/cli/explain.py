"""The command `zerolabel explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import DATA, options


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("image")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the page, made if missing.  [default: RUN/explain/IMAGE]",
)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="Folder or data set that holds IMAGE, if IMAGE is an id.  [default: where RUN was made]",
)
@click.option(
    "--embedding",
    default="pca",
    show_default=True,
    metavar="NAME",
    help="pca (principal components), or tsne (needs scikit-learn).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of tsne.")
@options(DATA)
def explain(run: Path, image: str, out: Path | None, **asked: Any) -> int:
    """Show how the method of RUN sees IMAGE.

    RUN is a folder that fit or segment wrote, IMAGE a photo, or the id of one of its images. The
    page shows the patches of the image in two dimensions, in the colours of their regions, beside
    the photo.
    """
    from zerolabel.jobs.explain import explain as job
    from zerolabel.jobs.explain import in_words

    found = job(run, image, out, **asked)
    click.echo(in_words(found.facts))
    click.echo(f"page: {found.page}")
    return 0
