"""What the attention viewer can be asked for, and what makes no sense to ask."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

from zerolabel.data.ffmpeg import program
from zerolabel.errors import UsageError, unknown_name
from zerolabel.jobs.looking.attend import Size
from zerolabel.jobs.looking.draw import SAME, SHOWS
from zerolabel.jobs.looking.media import Media
from zerolabel.ops.maps import UPSAMPLE, Limits
from zerolabel.outputs.video import FORMATS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the viewer is asked for.

    Attributes:
        backbone: the name of one with attention, or "auto": DINO if its weights are here, else the
            embedded one.
        weights: a weights file, or None.
        device: "auto", "cpu", "cuda" or "mps".
        split: of a data set in a known layout, or None.
        size: pixels of the short side, or (H, W), at which images are looked at.
        mode: "attention", or "seed-logits".
        heads: "mean", "max", "union", "all", "best", or an index.
        show: pictures out of `SHOWS`.
        mass: share of the attention that masks keep, 0..1.
        limits: "frame" (every picture by its own extremes), "clip" (all by the same), or values;
            None for "clip" with clips and "frame" with images.
        upsample: "nearest", "bilinear" or "guided", from patches to pixels.
        foreground: whether principal components leave the background out.
        frames: whether a folder is one clip.
        fps: frames per second, in place of what the clip says.
        format: of clips: "mp4", "gif", "frames", or None for that of the source.
        truth: masks for `heads="best"`: a folder, or a file for a single image.
    """

    backbone: str = "auto"
    weights: str | None = None
    device: str = "auto"
    split: str | None = None
    size: Size = 480
    mode: str = "attention"
    heads: str = "mean"
    show: tuple[str, ...] = ("overlay",)
    mass: float = 0.6
    limits: str | Limits | None = None
    upsample: str = "nearest"
    foreground: bool = True
    frames: bool = False
    fps: Fraction | None = None
    format: str | None = None
    truth: Path | None = None

    def plain(self) -> dict[str, object]:
        """The settings as JSON can hold them."""
        kinds = (bool, int, float, str, tuple, type(None))
        found = dataclasses.asdict(self)
        return {k: v if isinstance(v, kinds) else str(v) for k, v in found.items()}


def check(options: Options) -> None:
    """Complain about options that fit no source.

    Raises:
        UsageError: it names the option and what it takes.
    """
    for show in options.show:
        if show not in SHOWS:
            raise unknown_name("picture", show, SHOWS)
    if not options.show:
        raise UsageError(f"Nothing to show. Choose from {', '.join(SHOWS)}.")
    if options.upsample not in UPSAMPLE:
        raise unknown_name("way from patches to pixels", options.upsample, UPSAMPLE)
    if options.format is not None and options.format not in FORMATS:
        raise unknown_name("format", options.format, FORMATS)
    if not 0 <= options.mass <= 1:
        raise UsageError(f"--mass is a share between 0 and 1, not {options.mass}.")
    limits = options.limits
    if isinstance(limits, str) and limits not in ("frame", "clip"):
        raise unknown_name("range", limits, ("frame", "clip"))
    if isinstance(limits, tuple) and not limits[0] < limits[1]:
        raise UsageError(f"--range takes LOW,HIGH with LOW below HIGH, found {limits}.")
    if options.truth is not None and options.heads != "best":
        raise UsageError("--truth chooses among heads. Add --heads best, or leave --truth out.")


def check_media(options: Options, media: Media) -> None:
    """Complain about options that do not fit this source.

    Raises:
        UsageError: it names the option, or ffmpeg is needed and missing.
    """
    if media.clip is None and options.format is not None:
        raise UsageError("--format is for clips; pictures of images are PNG files. Leave it out.")
    if media.clip is not None and options.heads == "best":
        raise UsageError("--heads best compares with masks, and a clip has none. Use mean or all.")
    if media.clip is not None:
        wanted = options.format or SAME[media.clip.kind]
        if wanted == "mp4":
            program("ffmpeg")  # complain before hours of work, not after
