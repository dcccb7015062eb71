"""The command `zerolabel pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import OUT, count, failed, parse_changes, progress_bars
from zerolabel.cli.params import Numbers

EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("data", nargs=-1, required=True, type=EXISTING)
@OUT
@click.option("--steps", type=int, default=0, help="Length of the run in steps, or:")
@click.option("--epochs", type=float, default=0.0, help="in passes over all images, or:")
@click.option("--minutes", type=float, default=0.0, help="in time.")
@click.option(
    "--preset",
    default="auto",
    show_default=True,
    help="default (a GPU), cpu, dino (as published); auto chooses by the device.",
)
@click.option("--arch", help="vit-nano, vit-mini, vit-tiny, vit-small, vit-base or vit-large.")
@click.option("--patch", type=int, help="Side of a patch in pixels.")
@click.option("--objective", help="dino, infonce or coding-rate.")
@click.option("--dense", help="none, ibot or match: what patch tokens learn from.")
@click.option("--batch", type=int, help="Images per step, over all processes.")
@click.option("--lr", type=float, help="Peak learning rate at a batch of 256.")
@click.option("--seed", type=int, help="Fixes every random draw.  [default: 0]")
@click.option(
    "--set", "changes", metavar="NAME=VALUE", multiple=True, help="Any other setting; repeatable."
)
@click.option(
    "--shares",
    type=Numbers("3,1"),
    help="Steps that draw from each of DATA, e.g. 3,1.  [default: equal]",
)
@click.option("--side", type=int, default=96, show_default=True, help="Pixels kept of an image.")
@click.option("--init", metavar="NAME|FILE", help="Weights to go on from.")
@click.option("--knn", type=EXISTING, help="Labelled .npz pack to score the run with as it goes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--amp", default="auto", show_default=True, help="bfloat16: auto, on or off.")
def pretrain(data: tuple[Path, ...], out: Path, **asked: Any) -> int:
    """Pre-train a backbone on unlabelled images: folders, or .npz packs.

    The weights come out as backbone.safetensors, for `--backbone NAME --weights FILE` elsewhere.
    Run the same command again after an interruption and it goes on exactly. On several GPUs:
    `torchrun --nproc_per_node=4 -m zerolabel pretrain ...`.
    """
    from zerolabel.jobs.pretrain import pretrain as job
    from zerolabel.jobs.pretraining.options import Options

    settings = parse_changes(asked.pop("changes"))
    for name in ("arch", "patch", "objective", "dense", "batch", "lr", "seed"):
        value = asked.pop(name)
        settings |= {} if value is None else {name: value}
    shares = asked.pop("shares") or ()
    chosen = Options(settings=settings, shares=shares, **asked)
    with progress_bars() as progress:
        done = job(data, out, options=chosen, progress=progress)
    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        return 0
    rate = done.images / max(done.seconds, 1e-9)
    click.echo(f"{count(done.steps, 'step')}, {done.images} images seen, {rate:.0f} images/s")
    if done.knn is not None:
        click.echo(f"k-NN top-1: {done.knn:.1%}")
    click.echo(f"weights: {done.weights}")
    click.echo(f"log:     {done.path / 'log.jsonl'}")
    return failed(done.failures, done.path, listed="pretrain.json")
