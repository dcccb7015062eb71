"""The command `zerolabel name`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zerolabel.cli.options import options, progress_bars
from zerolabel.cli.params import Size
from zerolabel.cli.table import format_table

if TYPE_CHECKING:
    from zerolabel.types import Category

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
WAYS = (
    click.option(
        "--vocabulary",
        metavar="WORDS",
        help="Name by words: a label space such as coco27, a file, or a list with commas.",
    ),
    click.option("--csv", type=EXISTING, help="Name by hand: a table with the columns id, name."),
    click.option("--truth", is_flag=True, help="Name by the ground truth under the masks."),
    click.option("--write-csv", type=FILE, help="Write such a table to edit, and name nothing."),
    click.option("--reset", is_flag=True, help="Give the numbers back."),
)
LOOK = (
    click.option(
        "--data",
        type=click.Path(exists=True, path_type=Path),
        help="Where the photos, or the labels, are.  [--vocabulary, --truth; default: where RUN "
        "was made]",
    ),
    click.option("--split", help="Split of a data set.  [--vocabulary, --truth]"),
    click.option("--space", help="Label space, e.g. voc20.  [--truth; default: the data set's]"),
    click.option(
        "--unique",
        is_flag=True,
        help="Let each class name one category at most.  [--vocabulary, --truth]",
    ),
    click.option(
        "--backbone",
        help="One that reads images and texts.  [--vocabulary; default: clip-vitb16]",
    ),
    click.option("--weights", type=EXISTING, help="Its weights file.  [--vocabulary]"),
    click.option("--device", help="auto, cpu, cuda or mps.  [--vocabulary]"),
    click.option("--size", type=Size(), help="Pixels to encode at.  [--vocabulary; default: 224]"),
    click.option(
        "--templates",
        metavar="NAME",
        help="Sentences that a word is put into: all, imagenet or plain.  [--vocabulary; default: "
        "all]",
    ),
    click.option(
        "--images",
        type=click.IntRange(1),
        help="Photos that a category is looked at in, at most.  [--vocabulary; default: 12]",
    ),
)


@click.command("name")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options(WAYS, LOOK)
def name(run: Path, **asked: Any) -> None:
    """Give the categories of RUN names, in exactly one of these ways.

    \b
    --vocabulary WORDS   the words that CLIP finds most like the regions
    --csv FILE           a table that you edited
    --truth              the classes of a labelled data set
    --write-csv FILE     the table to edit
    --reset              numbers again

    RUN is a folder that segment or predict wrote. Names go into categories.json, the model and the
    report; masks and colours stay. Running again replaces names.
    """  # noqa: D301  (\b keeps the lines of a list)
    from zerolabel.jobs.name import name as job

    with progress_bars() as progress:
        found = job(run, progress=progress, **asked)
    if found.way != "write_csv":
        click.echo(_table(found.categories))
        for note in found.notes:
            click.echo(f"note: {note}")
    for path in found.files:
        click.echo(f"written: {path}")


def _table(categories: tuple[Category, ...]) -> str:
    """Lay the names out, the largest category first."""
    ordered = sorted(categories, key=lambda category: -category.pixel_share)
    rows = [[str(c.id), f"{c.pixel_share:.1%}", c.name, *_cells(c)] for c in ordered]
    return format_table(["id", "share", "name", "score", "margin", "next"], rows)


def _cells(category: Category) -> list[str]:
    found = category.naming
    if found is None:
        return ["-", "-", ""]
    numbers = ["-" if v is None else f"{v:.3f}" for v in (found.score, found.margin)]
    return [*numbers, ", ".join(f"{word} {score:.3f}" for word, score in found.alternatives)]
