"""The command `zerolabel sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.experiments import run_cells, written_files
from zerolabel.cli.options import DATA, FIT, GEOMETRY, OUT, build_options, options

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("data", type=FOLDER)
@click.option(
    "--over",
    metavar="NAME=VALUES",
    multiple=True,
    required=True,
    help="Setting to vary: k=27:63:4 (both ends included) or size=128,224; repeatable.",
)
@click.option("--seeds", type=int, default=1, show_default=True, help="Seeds for every setting.")
@click.option(
    "--protocol",
    default="full",
    show_default=True,
    help="How runs are scored; see `zerolabel evaluate`.",
)
@click.option(
    "--fit-split",
    metavar="NAME",
    help="Split on which the method is fitted, e.g. train.  [default: the one that is scored]",
)
@click.option("--space", help="Label space of the data set.  [default: its first]")
@OUT
@options(FIT, GEOMETRY, DATA)
def sweep(
    data: Path,
    over: tuple[str, ...],
    seeds: int,
    protocol: str,
    fit_split: str | None,
    space: str | None,
    out: Path,
    **asked: Any,
) -> int:
    """Score a method on the labelled data set DATA with every value of some settings.

    Every combination is a run of its own below OUT, features are computed once for all of them,
    and a run that is done is not done again. OUT gets table.csv, table.json and chart.svg.
    """
    from zerolabel.data.benchmarks import open_dataset
    from zerolabel.jobs.scoring.labelled import open_labelled
    from zerolabel.jobs.sweep import sweep as cells

    chosen = build_options(asked)
    name = open_labelled(data, chosen.split, space=space).name
    if fit_split is not None:
        open_dataset(data, split=fit_split)  # which says that there is none before any work is done
    experiment = cells(
        name, chosen, over=over, seeds=seeds, protocol=protocol, space=space, train=fit_split
    )
    places = {name: data}
    _, code = run_cells(experiment, places, out, weights=chosen.weights, device=chosen.device)
    click.echo("\n".join(map(str, written_files(out))))
    return code
