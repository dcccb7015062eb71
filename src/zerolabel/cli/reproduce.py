"""The command `zerolabel reproduce`."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zerolabel.cli.experiments import run_cells, written_files
from zerolabel.cli.table import format_table

if TYPE_CHECKING:
    from zerolabel.jobs.experiments.cells import Experiment

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUT = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("name", required=False)
@click.argument("data", required=False, type=FOLDER, envvar="ZEROLABEL_DATA")
@click.option("--small", is_flag=True, help="Few images, one seed, the weights that are here.")
@click.option("--dry-run", is_flag=True, help="Rehearse it on tiny planted data; takes no DATA.")
@click.option(
    "--out", type=OUT, help="Its folder, to go on from.  [default: runs/NAME, runs/NAME-small]"
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False),
    help="Weights file, for a recipe with one backbone.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Markdown page to write, for a recipe that has one.",
)
def reproduce(
    name: str | None,
    data: Path | None,
    small: bool,
    dry_run: bool,
    out: Path | None,
    weights: str | None,
    device: str,
    page: Path | None,
) -> int:
    """Run the recipe NAME on DATA: published settings, and the published score beside ours.

    DATA is the folder of a data set, or of several in folders of any name; ZEROLABEL_DATA stands
    for it. Without NAME the recipes are listed. A recipe that was interrupted goes on.
    """
    from zerolabel import recipes

    if name is None:
        click.echo(_list())
        return 0
    if small and dry_run:
        raise click.UsageError("--small and --dry-run exclude each other.")
    experiment, write = recipes.find(name)(), recipes.page(name)
    if page is not None and (write is None or small or dry_run):
        why = "a small version would not hold its numbers" if write else f"{name} has none"
        raise click.UsageError(f"--page is for a whole recipe that has a page: {why}.")
    with tempfile.TemporaryDirectory(prefix="zerolabel-") as planted:
        if dry_run:
            experiment, places = _rehearse(experiment, Path(planted))
        elif data is None:
            raise click.UsageError("Missing argument 'DATA', the folder of the data sets.")
        else:
            experiment, places = _found(experiment, data, small=small)
        kept = Path("runs") / (f"{name}-small" if small else name)
        folder = out or (Path(planted) / "out" if dry_run else kept)
        rows, code = run_cells(experiment, places, folder, weights=weights, device=device)
        if out or not dry_run:
            click.echo("\n".join(map(str, written_files(folder))))
    if page is not None and write is not None:
        if code:
            click.echo(f"{page} was not written: it needs every run.")
        else:
            from zerolabel.store import write_bytes

            write_bytes(page, write(rows).encode())
            click.echo(str(page))
    return code


def _list() -> str:
    """Lay out all recipes, one line each."""
    from zerolabel import recipes

    lines = [(inspect.getdoc(recipes.find(name)) or "").splitlines()[0] for name in recipes.RECIPES]
    rows = [list(pair) for pair in zip(recipes.RECIPES, lines, strict=True)]
    return format_table(["recipe", "what it measures"], rows)


def _rehearse(experiment: Experiment, planted: Path) -> tuple[Experiment, dict[str, Path]]:
    from zerolabel.recipes.scale import rehearse

    return rehearse(experiment, planted / "data")


def _found(
    experiment: Experiment, data: Path, *, small: bool
) -> tuple[Experiment, dict[str, Path]]:
    from zerolabel.recipes.places import locate
    from zerolabel.recipes.scale import small as shrink

    return shrink(experiment) if small else experiment, locate(data)
