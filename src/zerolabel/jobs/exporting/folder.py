"""A folder that gets its name only when everything is in it."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zerolabel.errors import StoreError, UsageError
from zerolabel.store import Store


def check_empty(out: Path) -> None:
    """Refuse to write where something is: an export is made in one go, and never mixed.

    Args:
        out: the folder to be made.

    Raises:
        UsageError: it is a file, or holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "holds files already" if out.is_dir() else "is a file"
        raise UsageError(f"{out} {what}. Choose another --out, or delete it.")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Make a folder that is there as a whole or not at all.

    Args:
        out: missing or empty; folders above it are made.

    Yields:
        A folder to write into, on the same disk; on any exception nothing of it is left. What a
        killed job left of it is removed by the next one.

    Raises:
        UsageError: there is something at `out`.
        StoreError: another job is writing it, or the disk refuses.
    """
    check_empty(out)
    place = out.resolve()
    name = zlib.crc32(place.name.encode(errors="replace"))
    around = place.with_name(f".{name:08x}.export")  # hidden, so that no job takes it for data
    inside = around / "files"
    try:
        with Store(around).lock():
            try:
                shutil.rmtree(inside, ignore_errors=True)
                inside.mkdir()
                yield inside
                check_empty(out)
                if place.exists():
                    place.rmdir()
                inside.rename(place)
            finally:  # still locked: nobody else begins in between
                shutil.rmtree(around, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"{out} cannot be written: {error.strerror or error}. Choose another --out."
        ) from None
    finally:
        if os.name == "nt":  # it kept the lock; that of another job is kept now, too
            with suppress(OSError):
                (around / ".lock").unlink()
                around.rmdir()
