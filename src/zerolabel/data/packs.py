"""Packs: many small encoded images in one `.npz` file.

`data` (uint8) holds all encoded images end to end, image i is `data[offsets[i]:offsets[i + 1]]`
(int64), and `labels` (integers), where there are any, its class.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from zerolabel.errors import DataError, ImageError
from zerolabel.types import Image

FORMATS = ("WEBP", "JPEG", "PNG")  # what Pillow may decode; the content decides
REMAKE = "Write the pack again, or fetch it again."


class Pack:
    """One pack, its encoded images in memory.

    Attributes:
        path: the file.
        labels: int64 (N,) class of every image; None without.
    """

    def __init__(self, path: str | Path) -> None:
        """Read a pack and check that it can be what it claims to be; no image is decoded.

        Args:
            path: an `.npz` file.

        Raises:
            DataError: no such file, no zip archive, a missing or ill-formed array, or offsets that
                do not fit the data.
        """
        self.path = Path(path)
        arrays = _read(self.path)
        self._data = _array(self.path, arrays, "data", np.dtype(np.uint8))
        self._offsets = _array(self.path, arrays, "offsets", np.dtype(np.int64))
        _check_offsets(self.path, self._offsets, len(self._data))
        self.labels: NDArray[np.int64] | None = None
        if "labels" in arrays:
            labels = arrays["labels"]
            if labels.dtype.kind not in "iu" or labels.shape != (len(self),):
                raise _bad(self.path, f"{len(self)} integers in labels", _words(labels))
            self.labels = labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def decode(self, index: int) -> Image:
        """Decode one image.

        Args:
            index: 0..N-1.

        Returns:
            uint8 (H, W, 3) RGB.

        Raises:
            ImageError: the image is damaged or of another format than WebP, JPEG and PNG.
            IndexError: there is no such image.
        """
        return np.asarray(self._open(index))

    def decode_all(
        self, size: int, *, indices: Sequence[int] | None = None, threads: int = 2
    ) -> Tensor:
        """Decode images to squares of one size: the middle square, resized (bicubic).

        Args:
            size: S, pixels a side.
            indices: which images, in which order; None for all.
            threads: decoders at work at the same time.

        Returns:
            uint8 (N, 3, S, S); N of them at once in memory.

        Raises:
            ImageError: an image is damaged.
        """
        chosen = range(len(self)) if indices is None else indices
        squares = torch.empty(len(chosen), 3, size, size, dtype=torch.uint8)

        def work(place: int) -> None:
            image = self._open(chosen[place])
            square = torch.from_numpy(np.array(_square(image, size)))  # a copy that can be written
            squares[place] = square.permute(2, 0, 1)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, range(len(chosen))):
                pass  # raises what the worker raised
        return squares

    def _open(self, index: int) -> Pillow.Image:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} holds images 0..{len(self) - 1}, not {index}.")
        encoded = self._data[self._offsets[index] : self._offsets[index + 1]].tobytes()
        try:
            with Pillow.open(io.BytesIO(encoded), formats=FORMATS) as image:
                return image.convert("RGB")
        except Exception as error:  # a decoder can raise anything when its bytes are damaged
            raise ImageError(
                f"Image {index} of {self.path} ({len(encoded)} bytes) cannot be decoded: expected "
                f"WebP, JPEG or PNG, found {error}. {REMAKE}"
            ) from None


def _square(image: Pillow.Image, size: int) -> Pillow.Image:
    """The middle square of an image, resized."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    box = (left, top, left + short, top + short)
    if short == size:
        return image.crop(box)
    return image.resize((size, size), Pillow.Resampling.BICUBIC, box=box)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of an archive; checksums are checked on the way."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise _bad(path, "an .npz archive", "a single array")
            with found:
                return {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Expected a pack of images (.npz).") from None
    except (BadZipFile, OSError, ValueError, EOFError, zlib.error) as error:
        raise _bad(path, "an .npz archive", str(error) or "an empty file") from None


def _array(
    path: Path, arrays: dict[str, NDArray[np.generic]], name: str, dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    if name not in arrays:
        raise _bad(path, f"the array {name}", ", ".join(arrays) or "no array")
    found = arrays[name]
    if found.dtype != dtype or found.ndim != 1:
        raise _bad(path, f"{name} as {dtype} (n,)", _words(found))
    return found


def _check_offsets(path: Path, offsets: NDArray[np.generic], size: int) -> None:
    if len(offsets) < 2:
        raise _bad(path, "at least 2 offsets, one image", f"{len(offsets)}")
    steps = np.diff(offsets)
    if (steps <= 0).any():
        i = int((steps <= 0).argmax())
        raise _bad(path, "ascending offsets", f"{offsets[i + 1]} after {offsets[i]} at {i + 1}")
    if offsets[0] < 0 or offsets[-1] > size:
        found = f"{offsets[0]}..{offsets[-1]}"
        raise _bad(path, f"offsets in 0..{size}, the bytes of data", found)


def _words(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"


def _bad(path: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{path} is not a pack of images: expected {expected}, found {found}. {REMAKE}"
    )
