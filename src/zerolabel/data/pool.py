"""Unlabelled images for pre-training, decoded once to squares of one size per source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from zerolabel.data.folder import find_images
from zerolabel.data.packs import Pack
from zerolabel.errors import DataError, ImageError
from zerolabel.types import Image

LOOK = 16  # images whose size tells how large those of a source are
LONG = 1.1  # an image longer than this times its width gives two squares, one at either end
CHUNK = 512  # images decoded between two reports of progress
Tell = Callable[[str, int, int], None]
Squares = tuple[list[NDArray[np.uint8]], str]  # at most two (S, S, 3), or the reason for none


@dataclass(frozen=True)
class Pool:
    """The squares of one source.

    Attributes:
        name: of the source.
        images: uint8 RGB (N, 3, S, S).
        digest: hash of the decoded pixels.
        failures: id -> reason, of images that could not be read.
    """

    name: str
    images: Tensor
    digest: str
    failures: dict[str, str]


@dataclass(frozen=True)
class Source:
    """Images that can be read by number.

    Attributes:
        names: their ids.
        read: number -> image; raises `ImageError`.
    """

    names: list[str]
    read: Callable[[int], Image]


def load_pool(path: Path, *, side: int, tell: Tell | None = None) -> Pool:
    """Decode a folder of images or a pack.

    Args:
        path: a folder at any depth, one image, or an `.npz` pack.
        side: side of the squares in pixels; a source of smaller images keeps its own.
        tell: called with (work, images done, images in all).

    Returns:
        The squares.

    Raises:
        DataError: the source does not exist or holds nothing that can be read.
    """
    source = open_source(path)
    side = min(side, _short_side(source) or side)
    # Room for two squares each; pages that are never written cost nothing.
    images = torch.empty(2 * len(source.names), 3, side, side, dtype=torch.uint8)
    filled, failures = 0, {}
    total = hashlib.blake2b(digest_size=12)
    for name, (squares, reason) in zip(
        source.names, _decode(source, side, path.name, tell), strict=True
    ):
        if reason:
            failures[name] = reason
        for square in squares:
            total.update(square.tobytes())
            images[filled] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
            filled += 1
    if not filled:
        name, reason = next(iter(failures.items()))
        raise DataError(f"No image of {path} could be read, e.g. {name}: {reason}")
    return Pool(path.name, images[:filled], total.hexdigest(), failures)


def open_source(path: Path) -> Source:
    """Look into a folder or a pack without decoding anything.

    Raises:
        DataError: it does not exist, is no pack, or holds no image.
    """
    if path.suffix == ".npz":
        pack = Pack(path)
        return Source([f"image {i}" for i in range(len(pack))], pack.decode)
    samples = find_images(path)
    return Source([sample.id for sample in samples], lambda i: samples[i].load())


def _decode(source: Source, side: int, name: str, tell: Tell | None) -> Iterator[Squares]:
    """Decode everything in order, a chunk at a time."""
    count = len(source.names)
    with ThreadPoolExecutor(2) as workers:
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            yield from workers.map(partial(_squares, source, side), range(start, stop))
            if tell:
                tell(f"decode {name}", stop, count)


def _squares(source: Source, side: int, index: int) -> Squares:
    try:
        image = Pillow.fromarray(source.read(index))
    except ImageError as error:
        return [], str(error)
    width, height = image.size
    short, long = sorted((width, height))
    starts = (0, long - short) if long > LONG * short else ((long - short) // 2,)
    boxes = [
        (s, 0, s + short, short) if width > height else (0, s, short, s + short) for s in starts
    ]
    resized = (image.resize((side, side), Pillow.Resampling.BICUBIC, box=box) for box in boxes)
    return [np.asarray(square) for square in resized], ""


def _short_side(source: Source) -> int:
    """The largest short side among the first images that can be read; 0 if none can."""
    shorts = [0]
    for i in range(min(LOOK, len(source.names))):
        try:
            shorts.append(min(source.read(i).shape[:2]))
        except ImageError:
            continue
    return max(shorts)
