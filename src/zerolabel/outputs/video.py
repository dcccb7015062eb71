"""Clips on disk: MP4 through the user's ffmpeg, GIF, or a folder of frames; whole or not at all.

Frames go out as they come; none is kept.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image as Pillow

from zerolabel.data.ffmpeg import encoder, named, running
from zerolabel.errors import StoreError, UsageError
from zerolabel.store import open_whole, write_bytes
from zerolabel.types import Image

Write = Callable[[Image], None]
FORMATS = {"mp4": ".mp4", "gif": ".gif", "frames": ""}  # how the name of each ends
FRAME = "frame-{:06d}.png"
OURS = re.compile(r"frame-\d{6,}\.png|\..*")
GIF_FASTEST = Fraction(50)  # frames per second; browsers slow down what is faster
# A colour table for every frame, looping for ever: GIF89a specification, sections 18, 23 and 26.
GIF_LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
GIF_END = b"\x3b"


def open_video(
    path: Path, *, size: tuple[int, int], fps: Fraction
) -> contextlib.AbstractContextManager[Write]:
    """Begin a clip; it appears under its name when the block ends without an error.

    Args:
        path: ends in `.mp4`, `.gif`, or in no suffix for a folder of numbered PNG files.
        size: (H, W) of the frames.
        fps: frames per second; a folder does not keep it, a GIF has hundredths of a second.

    Returns:
        A context whose value takes one frame after the other, uint8 (H, W, 3).

    Raises:
        UsageError: another suffix, frames of another size, or MP4 without ffmpeg.
        StoreError: the disk refuses, or ffmpeg does.
    """
    kinds = {".mp4": _mp4, ".gif": _gif, "": _folder}
    if path.suffix.lower() not in kinds:
        raise UsageError(f"Expected a clip named .mp4, .gif or without a suffix, found {path}.")
    return kinds[path.suffix.lower()](path, size, fps)


@contextlib.contextmanager
def _mp4(path: Path, size: tuple[int, int], fps: Fraction) -> Iterator[Write]:
    """Pipe frames into ffmpeg; sides of odd length grow by one pixel, as 4:2:0 colour needs."""
    H, W = size
    even = ((0, H % 2), (0, W % 2), (0, 0))
    arguments = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{W + W % 2}x{H + H % 2}"]
    arguments += ["-r", f"{fps.numerator}/{fps.denominator}", "-i", "pipe:0", *encoder()]
    # Said and done in BT.709: players guess otherwise, by the size of the frames.
    arguments += ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p"]
    arguments += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    with open_whole(path) as file:
        place = named(Path(file.name))
        arguments += ["-movflags", "+faststart", "-f", "mp4", "-y", place]
        with running(arguments, writes=True) as child:
            pipe = child.process.stdin
            if pipe is None:
                raise StoreError(f"{path} cannot be written: no pipe to ffmpeg.")

            def write(frame: Image) -> None:
                _check(frame, size)
                padded = np.pad(frame, even, mode="edge") if H % 2 or W % 2 else frame
                pipe.write(np.ascontiguousarray(padded).data)

            broken = False
            try:
                yield write
                pipe.close()
            except BrokenPipeError:  # ffmpeg has said why before it left
                broken = True
            if child.process.wait() or broken:
                reason = child.words() or "it gave no reason"
                raise StoreError(f"ffmpeg could not write {path}: {reason}. Is the disk full?")


@contextlib.contextmanager
def _gif(path: Path, size: tuple[int, int], fps: Fraction) -> Iterator[Write]:
    """Write frame after frame; Pillow would hold all of them before it writes the first."""
    H, W = size
    if max(H, W) > 0xFFFF:
        raise UsageError(f"A GIF has at most 65535 pixels a side, not {H}x{W}. Use frames.")
    step = 100 / min(fps, GIF_FASTEST)  # hundredths of a second
    done = 0
    with open_whole(path) as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", W, H, 0x70, 0, 0) + GIF_LOOP)

        def write(frame: Image) -> None:
            nonlocal done
            _check(frame, size)
            # The sum of the rounded delays stays with the clock.
            delay = round((done + 1) * step) - round(done * step)
            _gif_frame(file, frame, delay)
            done += 1

        yield write
        file.write(GIF_END)


def _gif_frame(file: IO[bytes], frame: Image, delay: int) -> None:
    """Let Pillow make a GIF of one frame, and take its colour table and its pixels out."""
    buffer = io.BytesIO()
    Pillow.fromarray(frame).quantize(256).save(buffer, "GIF", optimize=False, interlace=0)
    data = buffer.getvalue()
    bits = data[10] & 7  # the table has 2^(bits + 1) colours
    at = 13 + 3 * 2 ** (bits + 1)
    table = data[13:at]
    while data[at] == 0x21:  # extensions: a label, then blocks up to an empty one
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    place = data[at : at + 9]  # separator, left, top, width, height
    file.write(b"\x21\xf9\x04\x04" + struct.pack("<HBB", delay, 0, 0))  # leave the frame in place
    file.write(place + bytes([0x80 | bits]) + table + data[at + 10 : -1])


@contextlib.contextmanager
def _folder(path: Path, size: tuple[int, int], fps: Fraction) -> Iterator[Write]:
    """Number the frames in a hidden folder that gets its name at the end."""
    if path.is_dir() and not all(OURS.fullmatch(item.name) for item in path.iterdir()):
        raise StoreError(f"{path} holds other files than frames. Choose another --out.")
    hidden = path.with_name(f".{path.name[:200]}.tmp")
    shutil.rmtree(hidden, ignore_errors=True)  # what a killed job left
    done = 0

    def write(frame: Image) -> None:
        nonlocal done
        _check(frame, size)
        done += 1
        buffer = io.BytesIO()
        Pillow.fromarray(frame).save(buffer, "PNG", compress_level=4)
        write_bytes(hidden / FRAME.format(done), buffer.getvalue())

    try:
        yield write
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            hidden.replace(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _check(frame: Image, size: tuple[int, int]) -> None:
    if frame.dtype != np.uint8 or frame.shape != (*size, 3):
        expected = f"uint8 ({size[0]}, {size[1]}, 3)"
        raise UsageError(f"Expected frames {expected}, found {frame.dtype} {frame.shape}.")
