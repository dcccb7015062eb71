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
    from zerolabel.backbones.registry import BACKBONES, CLIP_GIVES, VIT_GIVES
    from zerolabel.backbones.vocabulary import here
    from zerolabel.backbones.weights import megabytes

    rows = [("NAME", "LICENCE", "SIZE", "CACHED", "GIVES", "SOURCE")]
    for name, item in BACKBONES.items():
        size = megabytes(item) if item.repo or item.packaged else "-"
        cached = ("yes" if here(item) else "no") if item.repo or item.packaged else "-"
        short = {VIT_GIVES: "all", CLIP_GIVES: "all+"}
        gives = short.get(item.gives) or ",".join(sorted(item.gives))
        rows.append((name, item.licence, size, cached, gives, item.source))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    click.echo(f"\nall: {', '.join(sorted(VIT_GIVES))}")
    click.echo(f"all+: these, and {', '.join(sorted(CLIP_GIVES - VIT_GIVES))}, which go with words")
    click.echo(
        "student: tokens, of what maskclip+ or reclip++ taught; --weights RUN/model.safetensors"
    )


@models.command("get")
@click.argument("name")
def get_model(name: str) -> None:
    """Download the weights of backbone NAME into the Hugging Face cache.

    With those of a CLIP comes the vocabulary of its tokenizer. Set HF_HOME to keep them elsewhere.
    """
    from zerolabel.backbones.registry import entry
    from zerolabel.backbones.vocabulary import here
    from zerolabel.backbones.weights import get, megabytes

    item = entry(name)
    if item.repo and not here(item):
        click.echo(f"{name}: about {megabytes(item)} from {item.source}, licence {item.licence}")
    click.echo(f"{name}: {get(name)}")
