"""The command `zerolabel refine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import OUT, OUTPUT, announce, options, parse_changes, progress_bars
from zerolabel.jobs.refining.students import STUDENTS, USUAL

STUDENT = (
    click.option(
        "--student",
        metavar="NAME",
        default=USUAL,
        show_default=True,
        help=f"The network that learns the masks: {', '.join(STUDENTS)}.",
    ),
    click.option(
        "--preset", help="Of the student's method, instead of the one that the name stands for."
    ),
    click.option(
        "--trust",
        type=float,
        metavar="WEIGHT",
        help="Weight of the old masks beside the student, from 0, where it alone decides, to less "
        "than 1.  [default: 0.1 for light, else 0]",
    ),
    click.option("--seed", type=int, help="Fixes every random draw.  [default: 0]"),
    click.option(
        "--set",
        "changes",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other setting of the student's method; repeatable.",
    ),
    click.option(
        "--backbone",
        default="auto",
        show_default=True,
        help="That a student starts from, if it has one; `zerolabel models` lists all.",
    ),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False),
        help="Weights file of the backbone.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
    click.option(
        "--data",
        type=click.Path(exists=True, path_type=Path),
        help="Where the photos are now.  [default: where RUN was made]",
    ),
    click.option("--split", help="Split of a data set.  [default: that of RUN]"),
)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@OUT
@options(STUDENT, OUTPUT)
def refine(run: Path, out: Path, changes: tuple[str, ...], seed: int | None, **asked: Any) -> int:
    """Let a student learn the masks of RUN, and segment its photos again into OUT.

    What is noise in the masks is not learned, pixels without a category get one, and edges become
    smooth; where the student is in doubt the old mask decides. OUT is a run directory with the
    categories of RUN, their names and colours; its report shows the masks before and after, and its
    model, the student alone, is one small network for `zerolabel predict`. No ground truth is read.
    """
    from zerolabel.jobs.refine import refine as job

    settings: dict[str, Any] = dict(parse_changes(changes))
    if seed is not None:
        settings["seed"] = seed
    with progress_bars() as progress:
        found = job(run, out, settings=settings, progress=progress, **asked)
    code = announce(found.run)
    click.echo(in_words(found.facts))
    return code


def in_words(facts: Mapping[str, Any]) -> str:
    """Say what changed, in one line."""
    filled = f" ({facts['filled']:.1%} had no category before)" if facts["filled"] else ""
    pieces = f"{facts['pieces_before']:,} connected pieces became {facts['pieces_after']:,}"
    return f"changed: {facts['changed']:.1%} of the pixels{filled}; {pieces}"
