"""The user's own ffmpeg as a child process: found, asked about a file, and never left behind.

No video library comes with this package: the usual ones bundle codecs under the GPL.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from zerolabel.errors import DataError, UsageError

QUIET = ("-hide_banner", "-nostats", "-loglevel", "error")
PATIENCE = 10  # seconds for a child to end by itself
# Files that hold their own frames; playlists would make ffmpeg open addresses and other files.
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,mxf,gxf,nut,dv,rm,ivf,h264,"
    "hevc,obu,yuv4mpegpipe,gif,apng,webp_pipe,wav,mp3,aac,flac"
)


class Child:
    """A running ffmpeg.

    Attributes:
        process: the child; its stdin or stdout is the pipe of frames.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors

    def words(self) -> str:
        """Return the last line that it complained with; empty if it did not."""
        self._errors.seek(0)
        return last_line(self._errors.read())


def program(name: str) -> str:
    """Find ffmpeg or ffprobe.

    Args:
        name: "ffmpeg" or "ffprobe".

    Returns:
        Its path.

    Raises:
        UsageError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise UsageError(
            f"Video files need the program {name}, which is not on the PATH. Install ffmpeg "
            "(Debian and Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg), or use a folder "
            "of frames (--frames) or an animated GIF, which need no other program."
        )
    return found


@contextlib.contextmanager
def running(arguments: Sequence[str], *, writes: bool) -> Iterator[Child]:
    """Run ffmpeg with a pipe of frames, and end it whatever happens.

    Args:
        arguments: after the program's name.
        writes: True to write to its stdin, False to read from its stdout.

    Yields:
        The child.
    """
    # Complaints go to a file: a pipe that nobody reads would fill up and stop the child.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [program("ffmpeg"), *QUIET, *arguments],
            stdin=subprocess.PIPE if writes else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if writes else subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # an interruption is for us; we then end the child
        )
        try:
            yield Child(process, errors)
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


def probe(path: Path) -> dict[str, Any]:
    """Ask what a file holds.

    Args:
        path: a file.

    Returns:
        The facts of its first video stream that is no cover picture, with the file's "duration"
        where the stream has none.

    Raises:
        UsageError: there is no ffprobe.
        DataError: the file is no video that ffmpeg can read.
    """
    asked = subprocess.run(
        [program("ffprobe"), "-v", "error", "-of", "json", "-show_streams", "-show_format"]
        + [*local(), named(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if asked.returncode:
        raise DataError(
            f"{path} cannot be read as a video: {last_line(asked.stderr) or 'no reason given'}. "
            "Expected a whole video file that ffmpeg can decode; try to play it, or copy it again."
        )
    found = json.loads(asked.stdout)
    streams = found.get("streams", [])
    for stream in streams:
        cover = stream.get("disposition", {}).get("attached_pic")
        if stream.get("codec_type") == "video" and not cover:
            return {"duration": found.get("format", {}).get("duration"), **stream}
    kinds = ", ".join(sorted({str(stream.get("codec_type")) for stream in streams})) or "nothing"
    raise DataError(f"{path} has no video stream: found {kinds}. Give a video or images.")


@cache
def encoder() -> tuple[str, ...]:
    """Choose ffmpeg's arguments for an MP4: H.264 where this ffmpeg has it, else MPEG-4."""
    found = subprocess.run(
        [program("ffmpeg"), *QUIET, "-encoders"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if b" libx264 " in found.stdout:
        return ("-c:v", "libx264", "-crf", "18", "-preset", "veryfast")
    return ("-c:v", "mpeg4", "-q:v", "3")


def last_line(output: bytes) -> str:
    """Return the last thing that ffmpeg said, without who in it said so and about which file."""
    lines = output.decode(errors="replace").strip().splitlines()
    return re.sub(r"^(\[[^\]]*\]|file:.*?:(?= )) *", "", lines[-1]).rstrip(". ") if lines else ""


def local() -> tuple[str, ...]:
    """Return the arguments before an input that keep ffmpeg to this one file."""
    return ("-protocol_whitelist", "file,pipe", "-format_whitelist", CONTAINERS)


def named(path: Path) -> str:
    """Write a path so that ffmpeg takes it for a file, whatever its name looks like."""
    return f"file:{path}"
