"""Clips: a video file, an animated image or a folder of frames, read one frame after the other.

Nothing is held in memory but the frame at hand. Every call of `Clip.frames` starts anew.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from zerolabel.data.ffmpeg import local, named, probe, running
from zerolabel.data.folder import SUFFIXES, file_digest, find_images, read_image
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.types import Image

FPS = Fraction(25)  # of frames that do not say when they are due
SLOWEST = 0.1  # seconds per frame of an animation that says 0, as browsers do
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
CUT = "ended prematurely"  # ffmpeg's words
ALIKE = 0.01  # rates closer than this are the same rate, told with another rounding
Frames = Generator[Image, None, None]


@dataclass(frozen=True)
class Clip:
    """Frames in time.

    Attributes:
        path: where they come from.
        kind: "video" (ffmpeg), "animation" (Pillow) or "frames" (a folder).
        size: (H, W) of every frame, upright and with square pixels.
        fps: frames per second.
        count: how many frames, where that is known without reading all of them; else a guess.
        frames: starts reading; an iterator of uint8 (H, W, 3) RGB that raises `DataError` where the
            clip is damaged or has no frames.
        digest: returns a hash of the content.
    """

    path: Path
    kind: str
    size: tuple[int, int]
    fps: Fraction
    count: int
    frames: Callable[[], Frames]
    digest: Callable[[], str]


def open_clip(path: str | Path, *, fps: Fraction | None = None) -> Clip:
    """Open a video file, an animated image, or a folder of frames.

    Args:
        path: a folder (its frames are sorted by the numbers in their names), or a file.
        fps: frames per second; by default what the file says, 25 for a folder.

    Returns:
        The clip; its first frame was read, so an unreadable file is noticed here.

    Raises:
        DataError: missing, no frames, or damaged at its beginning.
        UsageError: ffmpeg is needed and not there, or the rate is not positive.
    """
    path = Path(path)
    if fps is not None and fps <= 0:
        raise UsageError(f"Frames per second are a positive number, found {fps}.")
    if path.is_dir():
        return _open_folder(path, fps or FPS)
    if not path.is_file():
        raise DataError(f"{path} does not exist. Give a video, an animated GIF or a folder.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Expected a video; copy or record it again.")
    return _open_animation(path, fps) if is_animated(path) else _open_video(path, fps)


def is_clip(path: str | Path) -> bool:
    """Say whether a file holds a clip and not a still image, judging by its content.

    Args:
        path: a file; a damaged one with the suffix of an image counts as an image.
    """
    path = Path(path)
    return is_animated(path) or path.suffix.lower() not in SUFFIXES


def is_animated(path: Path) -> bool:
    """Say whether a file is an image of several frames, such as a GIF."""
    try:
        with Pillow.open(path, formats=[f for f in ANIMATED if f in _decoders()]) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # not an image, or a damaged one
        return False


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which frame-10000 comes after frame-9999, and 2.png before 10.png."""
    parts = re.findall(r"(\d+)|(\D+)", name)
    return [(0, int(number), "") if number else (1, 0, text) for number, text in parts]


def _open_folder(path: Path, fps: Fraction) -> Clip:
    found = {sample.id: sample for sample in find_images(path)}
    names = sorted(found, key=lambda name: (natural(name), name))
    paths = [path / name for name in names]
    size = _first(lambda: _folder_frames(paths, None), path).shape
    frames = partial(_folder_frames, paths, (size[0], size[1]))
    digest = partial(_digests, paths)
    return Clip(path, "frames", (size[0], size[1]), fps, len(paths), frames, digest)


def _folder_frames(paths: list[Path], size: tuple[int, int] | None) -> Frames:
    for path in paths:
        try:
            image = read_image(path)
        except ImageError as error:
            raise DataError(f"The frame {path}: {error}. Save it again or remove it.") from None
        if size is not None and image.shape[:2] != size:
            raise DataError(
                f"The frame {path} has {image.shape[0]}x{image.shape[1]} pixels, the first one "
                f"{size[0]}x{size[1]}. Frames of a clip have one size; without --frames every "
                "image is shown by itself."
            )
        yield image


def _digests(paths: list[Path]) -> str:
    return " ".join(file_digest(path) for path in paths)


def _open_animation(path: Path, fps: Fraction | None) -> Clip:
    frames = partial(_animation_frames, path)
    with Pillow.open(path) as image:
        count = int(getattr(image, "n_frames", 1))
        if fps is None:
            seconds = sum(_durations(image, count))
            fps = Fraction(count / seconds).limit_denominator(1000)
    H, W, _ = _first(frames, path).shape
    return Clip(path, "animation", (H, W), fps, count, frames, partial(file_digest, path))


def _durations(image: Pillow.Image, count: int) -> Iterator[float]:
    """Yield the seconds that every frame is shown."""
    for i in range(count):
        try:
            image.seek(i)
            image.load()  # WebP tells the time only then
        except Exception:  # damaged: whoever reads the frames will say so
            return
        yield float(image.info.get("duration") or 0) / 1000 or SLOWEST


def _animation_frames(path: Path) -> Frames:
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        try:
            image = stack.enter_context(Pillow.open(path))
            for i in range(int(getattr(image, "n_frames", 1))):
                image.seek(i)
                layer = image.convert("RGBA")
                white = Pillow.new("RGBA", layer.size, "white")
                yield np.array(Pillow.alpha_composite(white, layer).convert("RGB"))
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise DataError(f"{path} is damaged: {error}. Save or copy it again.") from None


def _open_video(path: Path, fps: Fraction | None) -> Clip:
    facts = probe(path)
    size = _shown_size(facts)
    rate = fps or _rate(facts)
    said = str(facts.get("nb_frames", ""))
    seconds = float(facts.get("duration") or 0)
    count = int(said) if said.isdecimal() and fps is None else round(seconds * rate)
    source = int(facts["index"])
    frames = partial(_video_frames, path, size=size, rate=rate, stream=source)
    _first(frames, path)
    return Clip(path, "video", size, rate, count, frames, partial(file_digest, path))


def _video_frames(path: Path, *, size: tuple[int, int], rate: Fraction, stream: int) -> Frames:
    """Decode by ffmpeg, which turns frames upright; an error in the middle of a file is one."""
    H, W = size
    arguments = ["-xerror", *local(), "-i", named(path), "-map", f"0:{stream}"]
    arguments += ["-vf", f"scale={W}:{H},setsar=1", "-r", f"{rate.numerator}/{rate.denominator}"]
    arguments += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    done = 0
    with running(arguments, writes=False) as child:
        pipe = child.process.stdout
        while pipe is not None and len(data := pipe.read(H * W * 3)) == H * W * 3:
            yield np.frombuffer(data, np.uint8).reshape(H, W, 3)
            done += 1
        failed = child.process.wait() or data
        if failed or CUT in child.words():  # of a file cut short it may say so and not fail
            raise DataError(
                f"{path} is damaged after {done} frames: {child.words()}. Expected a whole video "
                "file; copy it again, or let `ffmpeg -i FILE -c copy NEW.mp4` save what is left."
            )
    if not done:
        raise DataError(f"{path} is a video without frames. Give one that has at least one.")


def _shown_size(facts: dict[str, Any]) -> tuple[int, int]:
    """The height and width at which the frames are meant to be seen."""
    width, height = int(facts.get("width", 0)), int(facts.get("height", 0))
    if not (width and height):
        raise DataError("The video does not say how large its frames are; convert it first.")
    aspect = _fraction(facts.get("sample_aspect_ratio"))
    width = max(1, round(width * (aspect or 1)))
    turns = [data.get("rotation", 0) for data in facts.get("side_data_list", [])]
    turns += [facts.get("tags", {}).get("rotate", 0)]
    turned = any(round(float(turn)) % 180 == 90 for turn in turns)
    return (width, height) if turned else (height, width)


def _rate(facts: dict[str, Any]) -> Fraction:
    """Frames per second: those of the clock, or their average where they come unevenly."""
    base, average = (_fraction(facts.get(f"{kind}_frame_rate")) for kind in ("r", "avg"))
    if not base or not average:
        return base or average or FPS
    return base if abs(base / average - 1) < ALIKE else average


def _fraction(text: str | None) -> Fraction | None:
    """Read "30000/1001" or "4:3"; None for what says nothing, such as "0/0"."""
    found = re.fullmatch(r"(\d+)[/:](\d+)", text or "")
    if found is None or not int(found[1]) or not int(found[2]):
        return None
    return Fraction(int(found[1]), int(found[2]))


def _first(frames: Callable[[], Frames], path: Path) -> Image:
    """Read the first frame and let go of the rest."""
    with contextlib.closing(frames()) as reading:
        for image in reading:
            return image
    raise DataError(f"{path} has no frames. Give a clip that has at least one.")


def _decoders() -> dict[str, Any]:
    Pillow.init()
    return Pillow.OPEN
