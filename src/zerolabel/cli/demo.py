"""The command `zerolabel demo`."""

from __future__ import annotations

from pathlib import Path

import click

from zerolabel.cli.options import progress_bars


@click.command()
@click.option(
    "--out",
    default="zerolabel-demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the images and both runs.",
)
def demo(out: Path) -> None:
    """Segment a planted world and two real photos, and say which is which.

    The planted world is drawn by the program, so its true categories are known and the result is
    scored. The photos come with the package; for them there is no ground truth to score against.
    """
    from zerolabel.jobs.demo import CATEGORIES, LICENCE
    from zerolabel.jobs.demo import demo as job

    with progress_bars() as progress:
        done = job(out, progress=progress)
    planted, real = done.planted, done.real
    click.echo(
        f"PLANTED, drawn by this program: {planted.images} images of {CATEGORIES} textures\n"
        f"  found {len(planted.categories)} categories without being told how many; mIoU "
        f"{done.miou:.1%}, pixel accuracy {done.accuracy:.1%}\n"
        f"  images: {out / 'data' / 'world' / 'images'}\n"
        f"  report: {planted.report}\n"
        f"REAL, two photographs: {real.images} images, no ground truth, so no score\n"
        f"  {len(real.categories)} categories, a number that was given; authors and licence: "
        f"{out / 'data' / 'photos' / LICENCE}\n"
        f"  report: {real.report}\n"
        "Open the reports in a browser. Your own photos: zerolabel segment PHOTOS --out RUN"
    )
