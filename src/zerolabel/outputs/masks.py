"""Masks on disk: what they are called, how they are written and read back.

Up to 255 categories a mask is an 8-bit palette PNG whose entry 255, black, means "no category";
above that it is a 16-bit greyscale PNG and 65535 means "no category".
"""

from __future__ import annotations

import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from zerolabel.errors import DataError, UsageError
from zerolabel.store import write_bytes
from zerolabel.types import IGNORE, LabelMap

IGNORE_16 = 65535  # "no category" where 255 is the id of one
# Level 4 takes 0.7 ms for a 500x375 mask, level 9 ten times as long for half the bytes.
COMPRESSION = 4
_INDEX_MODES = ("P", "L", "1", "I;16", "I")
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow stretches greyscale of few bits to 0..255


def mask_names(ids: Sequence[str]) -> dict[str, str]:
    """Name the mask of every image: its path with the suffix replaced by `.png`.

    Where two masks would land in one file they keep their image's suffix (`a.jpg.png`), and where
    this is not enough the later one gets a number (`a.jpg~2.png`). Names that differ in case or in
    Unicode composition only count as one, as they do on Windows and macOS; a mask never takes the
    name of a folder.

    Args:
        ids: relative POSIX paths of the images, in any order.

    Returns:
        From id to relative POSIX path.
    """
    attempts = dict.fromkeys(sorted(set(ids)), 0)
    folders = {_same(str(parent)) for image in attempts for parent in PurePosixPath(image).parents}
    while True:
        clashing = list(_clashes(attempts, folders))
        if not clashing:
            return {image: _name(image, attempts[image]) for image in ids}
        for image in clashing:
            attempts[image] += 1


def write_mask(path: Path, label_map: LabelMap, *, colours: NDArray[np.uint8]) -> None:
    """Write a mask whole or not at all.

    Args:
        path: where to, ending in `.png`.
        label_map: category ids, integer (H, W), 0..K-1; 255 (65535 if K > 255) = no category.
        colours: RGB per category, uint8 (K, 3); they decide on 8 or 16 bits.

    Raises:
        UsageError: an id without a colour, or not a two-dimensional label map.
        StoreError: the disk refuses.
    """
    none, depth = (IGNORE, np.uint8) if len(colours) <= IGNORE else (IGNORE_16, np.uint16)
    _check(label_map, len(colours), none)
    picture = Image.fromarray(np.ascontiguousarray(label_map, dtype=depth))
    if depth is np.uint8:
        entries = np.zeros((256, 3), dtype=np.uint8)
        entries[: len(colours)] = colours
        picture.putpalette(entries.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=COMPRESSION)
    write_bytes(path, buffer.getvalue())


def read_mask(path: Path) -> LabelMap:
    """Read a mask, of this project or another: a PNG of indices.

    Args:
        path: a palette PNG or an 8- or 16-bit greyscale PNG.

    Returns:
        The indices, uint8 or uint16 (H, W).

    Raises:
        DataError: the file is missing, damaged, or holds colours instead of indices.
    """
    expected = "expected a palette PNG or a greyscale PNG of 8 or 16 bits with one id per pixel"
    try:
        # not Image.open: its limit on pixels is meant for strangers' images, and masks may be large
        with open(path, "rb") as file, PngImagePlugin.PngImageFile(file) as picture:
            mode = picture.mode
            stretch = _STRETCH.get(str(picture.tile[0].args), 1) if picture.tile else 1
            indices = np.array(picture) if mode in _INDEX_MODES else None
    except FileNotFoundError:
        raise DataError(f"{path} is not there; {expected}.") from None
    except SyntaxError:
        raise DataError(
            f"{path} is not a PNG; {expected}. JPEG changes ids: save the mask again as PNG."
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); {expected}.") from None
    if indices is None:
        raise DataError(
            f"{path} holds {mode} colours; {expected}. Turn its colours into ids first, by the "
            "colour table it was made with."
        )
    depth = np.uint16 if mode.startswith("I") else np.uint8
    return (indices // stretch if stretch > 1 else indices).astype(depth, copy=False)


def _clashes(attempts: dict[str, int], folders: set[str]) -> Iterator[str]:
    """Yield the images that must try their next name."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for image, attempt in attempts.items():
        groups[_same(_name(image, attempt))].append(image)
    for name, group in groups.items():
        if name in folders:
            yield from group
        elif len(group) > 1:
            # all give up the short name; the first in order may keep a longer one
            short = [image for image in group if attempts[image] == 0]
            yield from short or group[1:]


def _name(image: str, attempt: int) -> str:
    if attempt == 0:
        return str(PurePosixPath(image).with_suffix(".png"))
    return f"{image}.png" if attempt == 1 else f"{image}~{attempt}.png"


def _same(name: str) -> str:
    """Map names that some file system takes for one to one string."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check(label_map: LabelMap, count: int, none: int) -> None:
    if label_map.ndim != 2 or label_map.dtype.kind not in "iu":
        raise UsageError(
            f"Expected a label map of integers (H, W), found {label_map.dtype} {label_map.shape}."
        )
    if count > IGNORE_16:
        raise UsageError(f"A mask holds at most {IGNORE_16} categories, not {count}.")
    odd = label_map[(label_map < 0) | (label_map >= count)]
    stray = np.unique(odd[odd != none])
    if len(stray):
        raise UsageError(
            f"The label map holds {stray[:5].tolist()}, but there are {count} categories: "
            f"expected ids 0 to {count - 1}, and {none} for no category."
        )
