"""The command `zerolabel doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zerolabel.jobs.checking.check import Check

NAME, STATE = 19, 8  # columns


@click.command()
@click.option(
    "--out",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder in which runs would be written.",
)
def doctor(out: Path) -> int:
    """Look at this machine: packages, devices, memory, disk, weights, and a quick self-check.

    Each line says ok, missing or problem, and what to do. Exit code 0 if jobs can run here, else 1.
    """
    from zerolabel.jobs.doctor import doctor as job
    from zerolabel.jobs.doctor import usable

    checks: list[Check] = []
    for check in job(out):
        if not checks or checks[-1].group != check.group:
            click.echo(("\n" if checks else "") + check.group)
        checks.append(check)
        _show(check)
    if usable(checks):
        click.echo("\nZerolabel works here.")
        return 0
    blocking = [check.name for check in checks if check.needed and check.state != "ok"]
    click.echo(f"\nZerolabel does not work here yet: see {', '.join(blocking)}.")
    return 1


def _show(check: Check) -> None:
    click.echo(f"  {check.name:<{NAME}}{check.state:<{STATE}} {check.found}")
    if check.advice:
        click.echo(f"{' ' * (NAME + STATE + 3)}-> {check.advice}")
