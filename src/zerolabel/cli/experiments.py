"""What `zerolabel sweep` and `zerolabel reproduce` share: running cells and printing a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zerolabel.cli.options import count, progress_bars
from zerolabel.cli.table import format_table

if TYPE_CHECKING:
    from zerolabel.jobs.experiments.cells import Experiment
    from zerolabel.jobs.experiments.table import Row

SHOWN = 10  # failures that are printed


def run_cells(
    experiment: Experiment,
    places: Mapping[str, Path],
    out: Path,
    *,
    weights: str | None,
    device: str,
) -> tuple[list[Row], int]:
    """Run an experiment, write its tables, and print them.

    Args:
        experiment: what to run.
        places: roots of the data sets.
        out: the folder of the experiment.
        weights: weights file of the backbone, or None.
        device: where backbones run.

    Returns:
        The rows, and the exit code: 3 if some cells failed, 1 if all did, else 0.
    """
    from zerolabel.jobs.experiments.files import write_tables
    from zerolabel.jobs.experiments.run import run
    from zerolabel.jobs.experiments.table import layout

    with progress_bars() as progress:
        found = run(experiment, places, out, weights=weights, device=device, progress=progress)
    rows = write_tables(experiment, found, out)
    note = f" ({experiment.note})" if experiment.note else ""
    click.echo(f"{experiment.title}{note}")
    if rows:
        shared, header, lines = layout(experiment, rows)
        table = format_table(header, lines)
        click.echo(f"{shared}; percent, mean ± standard deviation over seeds\n\n{table}\n")
    if not found.failures:
        return rows, 0
    failed, cells = len(found.failures), len(experiment.cells)
    click.echo(f"{failed} of {count(cells, 'run')} failed; table.json lists all of them:")
    for name, reason in list(found.failures.items())[:SHOWN]:
        click.echo(f"  {name}: {reason}")
    return rows, 3 if found.results else 1


def written_files(out: Path) -> list[Path]:
    """The files that `run_cells` wrote."""
    return [
        out / name for name in ("table.csv", "table.json", "chart.svg") if (out / name).exists()
    ]
