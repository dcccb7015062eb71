"""`zerolabel data`: which data sets are known, and whether one on disk is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import count, progress_bars
from zerolabel.cli.table import format_table

SHOWN = 3  # items of a finding, and absent classes, that are printed
FOUND = 3  # exit code: done, with findings


@click.group()
def data() -> None:
    """List the data sets that are known, or check one."""


@data.command("list")
def list_data() -> None:
    """List the data sets, their folders, and their label spaces with the number of classes."""
    from zerolabel.data.layouts import FOLDER, LAYOUTS
    from zerolabel.data.spaces import space, spaces_of

    rows = [
        (name, item.title, " or ".join(item.homes), _spaces([space(s) for s in spaces_of(name)]))
        for name, item in LAYOUTS.items()
    ]
    rows.append(("folder", FOLDER.title, "images + masks|labels", "lines of classes.txt"))
    click.echo(format_table(("NAME", "DATA SET", "FOLDER", "LABEL SPACES (CLASSES)"), rows))


@data.command("check")
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", help="Only this split.  [default: all]")
@click.option("--space", help="Label space; `zerolabel data list` names them.")
@click.option(
    "--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write everything here."
)
def check(root: Path, split: str | None, space: str | None, out: Path | None) -> int:
    """Read every image and mask of the data set at ROOT, and say what does not fit together.

    Exit codes: 0 nothing found, 1 not a data set, 3 something found.
    """
    from zerolabel.jobs.check_data import check_data
    from zerolabel.store import write_json

    with progress_bars() as progress:
        result = check_data(root, split=split, space=space, progress=progress)
    if out is not None:
        write_json(out, result)
    _print(result)
    return FOUND if result["findings"] else 0


def _spaces(spaces: list[Any]) -> str:
    listed = ", ".join(f"{one.name} ({len(one.classes)})" for one in spaces)
    return listed or "regions, no classes"


def _print(result: dict[str, Any]) -> None:
    classes = f"label space {result['space']}, {result['classes']} classes"
    click.echo(f"{result['dataset']}: {result['title']} in {result['root']}")
    click.echo(classes if result["space"] else "regions of several annotators, no classes")
    columns = ("images", "masks", "pairs", "listed")
    rows = [
        (name, *("-" if part[key] is None else str(part[key]) for key in columns))
        for name, part in result["splits"].items()
    ]
    click.echo(format_table(("SPLIT", *map(str.upper, columns)), rows))
    for name, part in result["splits"].items():
        if part["absent"]:
            many = f"{len(part['absent'])} of {result['classes']} classes never occur"
            click.echo(f"{name}: {many}: {_some(part['absent'])}")
    for name, part in result["splits"].items():
        for finding in part["findings"]:
            value = f" ({finding['value']})" if "value" in finding else ""
            click.echo(f"{name}: FOUND {finding['message']}{value}: {_some(finding['items'])}")
    click.echo(f"{count(result['findings'], 'finding')}" if result["findings"] else "all is well")


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
