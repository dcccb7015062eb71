"""The command `zerolabel attention`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from zerolabel.cli.options import DATA, SHOWN, count, failed, options, progress_bars
from zerolabel.cli.params import Size


class Side(Size):
    """Pixels: one number for the short side, or rows and columns."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse it; anything else is wrong usage."""
        both = super().convert(value, param, ctx)
        return both if "x" in str(value).lower() else both[0]


class Range(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on only
    """Whose extremes get the first and the last colour, or the two values."""

    name = "frame|clip|LOW,HIGH"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | tuple[float, float]:
        """Parse it; anything else is wrong usage."""
        if value in ("frame", "clip"):
            return str(value)
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected frame, clip or LOW,HIGH such as 0,0.01; found {value!r}.")
        return low, high


class Rate(click.ParamType):  # type: ignore[type-arg]
    """Frames per second."""

    name = "N"

    def convert(self, value: Any, param: Any, ctx: Any) -> Fraction:
        """Parse it; anything else is wrong usage."""
        try:
            rate = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 1000:
            self.fail(f"expected frames per second such as 25 or 30000/1001; found {value!r}.")
        return rate


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words with commas between them."""

    name = "NAME,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Split them."""
        words = [word.strip() for word in str(value).split(",")]
        return tuple(dict.fromkeys(word for word in words if word))


VIEW = (
    click.option(
        "--show",
        type=Words(),
        default="overlay",
        show_default=True,
        help="What to draw: overlay, heat, contour, mask, side-by-side, strip (all heads), pca.",
    ),
    click.option(
        "--heads",
        default="mean",
        show_default=True,
        metavar="NAME|N",
        help="mean, max, union, all, best (needs masks), or the index of one.",
    ),
    click.option(
        "--mass",
        type=float,
        default=0.6,
        show_default=True,
        help="Share of the attention that contour and mask keep.",
    ),
    click.option(
        "--range",
        "limits",
        type=Range(),
        help="One range of colours per picture, for all, or two values.  "
        "[default: clip for clips, frame for images]",
    ),
    click.option(
        "--size",
        type=Side(),
        default="480",
        show_default=True,
        help="Pixels of the short side to look at; HxW stretches.",
    ),
    click.option(
        "--upsample",
        default="nearest",
        show_default=True,
        metavar="NAME",
        help="From patches to pixels: nearest, bilinear, guided (along the photo's edges).",
    ),
    click.option(
        "--mode",
        default="attention",
        show_default=True,
        metavar="NAME",
        help="attention (CLS, softmaxed), or seed-logits (all queries, raw).",
    ),
    click.option(
        "--foreground/--no-foreground",
        default=True,
        show_default=True,
        help="Colours of pca on the foreground only, or everywhere.",
    ),
    click.option(
        "--truth",
        type=click.Path(exists=True, path_type=Path),
        help="Masks for --heads best: a folder, or a file for one image.",
    ),
)
CLIP = (
    click.option("--frames", is_flag=True, help="The folder holds the frames of one clip."),
    click.option("--fps", type=Rate(), help="Frames per second.  [default: the clip's]"),
    click.option(
        "--format",
        metavar="NAME",
        help="Of a clip: mp4 (needs ffmpeg), gif, frames.  [default: as it came]",
    ),
)
BACKBONE = click.option(
    "--backbone",
    default="auto",
    show_default=True,
    help="auto is DINO if its weights are here, else embedded; it must give attention.",
)


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pictures, made if missing.",
)
@options(VIEW, CLIP, (BACKBONE,), DATA)
def attention(source: Path, out: Path, **asked: Any) -> int:
    """Show what a vision transformer attends to in SOURCE.

    SOURCE is an image, a folder of images, a video, an animated GIF, or with --frames a folder of
    frames. A picture is called like its image, what it shows and of which heads, for example
    cat-overlay-mean.png. Videos are read and written by ffmpeg.
    """
    from zerolabel.jobs.attention import attention as job
    from zerolabel.jobs.looking.options import Options

    with progress_bars() as progress:
        shown = job(source, out, options=Options(**asked), progress=progress)
    click.echo(f"{count(shown.images, 'image')}, {count(len(shown.files), 'file')} in {shown.path}")
    if shown.note:
        click.echo(f"note: {shown.note}")
    for name in shown.files[:SHOWN]:
        click.echo(f"  {name}")
    if len(shown.files) > SHOWN:
        click.echo(f"  and {len(shown.files) - SHOWN} more")
    return failed(shown.failures, shown.path)
