"""What may be opened at all, and the words for what then goes wrong."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from zerolabel.errors import ImageError


def check_file(path: Path) -> None:
    """Complain about what must not even be opened: reading from a pipe would wait for ever.

    Args:
        path: what should be a file.

    Raises:
        ImageError: it is none, or an empty one.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        broken = "a link to a file that does not exist" if path.is_symlink() else error.strerror
        raise ImageError(f"cannot be read: {broken}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise ImageError("a folder that cannot be listed")
    if not stat.S_ISREG(facts.st_mode):
        raise ImageError("not a regular file but a pipe, a socket or a device")
    if facts.st_size == 0:
        raise ImageError("the file is empty")


def check_pixels(count: int) -> None:
    """Refuse what Pillow would refuse: a small file can decode to any size.

    Args:
        count: pixels that the header promises.

    Raises:
        ImageError: more than twice `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if Pillow.MAX_IMAGE_PIXELS is not None and count > 2 * Pillow.MAX_IMAGE_PIXELS:
        raise ImageError(f"too large to be decoded safely: {count} pixels")


@contextmanager
def in_words() -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError` of one line, and let nothing warn."""
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of its limit and refuses at the limit; the limit is enough.
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Pillow.DecompressionBombError as error:
        raise ImageError(f"too large to be decoded safely: {error}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image, or of a format that is not supported") from None
    except MemoryError:
        raise ImageError("too large for this machine's memory") from None
    except Exception as error:  # a decoder can raise anything when its file is damaged
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ImageError(f"cannot be read: {' '.join(str(reason).split())}") from None
