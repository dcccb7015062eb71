"""`zerolabel models`: which backbones there are, and getting their weights."""

from __future__ import annotations

import click


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List backbones and download their weights."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
def list_models() -> None:
    """List the backbones: licence, size, what each gives, and whether its weights are here.

    Sizes are approximate: four bytes per parameter.
    """
    from zerolabel.backbones.registry import BACKBONES
    from zerolabel.backbones.weights import find, megabytes

    everything = frozenset[str]().union(*(item.gives for item in BACKBONES.values()))
    rows = [("NAME", "LICENCE", "SIZE", "CACHED", "GIVES", "SOURCE")]
    for name, item in BACKBONES.items():
        size = megabytes(item) if item.repo or item.packaged else "-"
        here = ("yes" if find(item) else "no") if item.repo or item.packaged else "-"
        gives = "all" if item.gives == everything else ",".join(sorted(item.gives))
        rows.append((name, item.licence, size, here, gives, item.source))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    click.echo(f"\nall: {', '.join(sorted(everything))}")


@models.command("get")
@click.argument("name")
def get_model(name: str) -> None:
    """Download the weights of backbone NAME into the Hugging Face cache.

    Set HF_HOME to keep them elsewhere.
    """
    from zerolabel.backbones.registry import entry
    from zerolabel.backbones.weights import find, get, megabytes

    item = entry(name)
    if item.repo and find(item) is None:
        click.echo(f"{name}: about {megabytes(item)} from {item.source}, licence {item.licence}")
    click.echo(f"{name}: {get(name)}")
