"""Photos to measure on, and commands in processes of their own.

Imports nothing large: on Linux a child's peak memory, as it is measured from outside, starts at
that of its parent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

COMMAND = (sys.executable, "-c", "from zerolabel.cli.main import main; main()")


def data_root(name: str) -> Path:
    """The folder of a data set, below the one that ZEROLABEL_DATA names."""
    root = Path(os.environ.get("ZEROLABEL_DATA", ""), name)
    if "ZEROLABEL_DATA" not in os.environ or not root.is_dir():
        raise SystemExit(f"Set ZEROLABEL_DATA to a folder that holds {name}/.")
    return root


def voc_photos() -> list[Path]:
    """All photos of PASCAL VOC 2012 that are there, sorted by name."""
    return sorted(data_root("voc").rglob("JPEGImages/*.jpg"))


def gather(photos: Sequence[Path], folder: Path) -> Path:
    """Copy photos into a new folder."""
    folder.mkdir(parents=True)
    for photo in photos:
        shutil.copy(photo, folder)
    return folder


def run_command(*arguments: str | Path) -> tuple[float, float]:
    """Run `zerolabel ARGUMENTS` and measure it from outside.

    Returns:
        Wall seconds, start of Python included, and peak resident memory in MB.
    """
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    start = time.perf_counter()
    child = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"zerolabel {arguments[0]} ended with exit code {child.returncode}.")
    return seconds, usage.ru_maxrss / unit
