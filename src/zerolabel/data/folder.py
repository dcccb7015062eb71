"""Any tree of images is a data set: lazy, sorted, every mode and orientation turned into RGB."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import ExifTags
from PIL import Image as Pillow

from zerolabel.data import tiff
from zerolabel.data.arrays import is_array
from zerolabel.data.bands import PREVIEW, Three, check_chosen, find_bands, read_bands
from zerolabel.data.bands import preview as show
from zerolabel.data.opening import check_file, in_words
from zerolabel.errors import DataError, ImageError
from zerolabel.types import Image, LabelMap, Sample

SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .bmp .gif .tif .tiff .webp .ppm .pgm .pnm .jp2 .avif .npy".split()
)
PHOTOS = SUFFIXES - {".npy", ".tif", ".tiff"}  # the others may hold more than a photo
# What Pillow may decode; EPS, for one, would start another program, whatever the file is called.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
TURNS = {  # what undoes each value of the EXIF orientation (EXIF 2.32, table 6)
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
RUN_MARK = "run.json"  # a folder that holds such a file of ours is a run directory, not data


def find_images(root: str | Path, *, previews: Three = PREVIEW) -> list[Sample]:
    """List every image below a folder, or the one image that `root` is.

    Hidden files and folders and run directories are skipped; links are followed, each folder once.
    Nothing is opened yet but for a look at the header of .npy and TIFF files, which may have
    bands: what cannot be read says so when it is loaded.

    Args:
        root: a folder, any nesting, or one image file.
        previews: which bands of images with bands are loaded as red, green and blue, from 0.

    Returns:
        Samples sorted by id, the path relative to `root` with forward slashes.

    Raises:
        DataError: `root` does not exist or holds no image.
        UsageError: `previews` are not three numbers of 0..15.
    """
    root = Path(root)
    check_chosen(previews)
    if root.is_file():
        return [_sample(root, root.name, previews)]
    if not root.is_dir():
        problem = "is neither a folder nor a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}. Give a folder of images or one image file.")
    others: Counter[str] = Counter()
    samples = [
        _sample(path, path.relative_to(root).as_posix(), previews) for path in _walk(root, others)
    ]
    if not samples:
        found = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(4)) or "nothing"
        raise DataError(
            f"{root} holds no image. Expected files such as .jpg, .png, .tif or .webp at any "
            f"depth, found {found}; hidden folders and run directories are skipped."
        )
    return sorted(samples, key=lambda sample: sample.id)


def from_arrays(name: str, image: Image, label: LabelMap | None = None) -> Sample:
    """Wrap arrays as a sample.

    Args:
        name: the sample's id.
        image: uint8 (H, W, 3).
        label: integer (H, W), 255 = ignore; None without labels.

    Returns:
        A sample that holds them in memory.
    """
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
    load_label = None if label is None else (lambda: label)
    return Sample(name, lambda: image, lambda: digest, load_label)


def read_image(path: Path, *, previews: Three = PREVIEW) -> Image:
    """Read one image as it is meant to be seen.

    The content decides on the format, not the suffix. EXIF rotation is applied, transparency is
    laid on white, palette and CMYK become RGB, 16-bit values are divided by 256, and only the first
    frame of several is read. Of images with bands that are no photo three are stretched.

    Args:
        path: an image file.
        previews: which bands are shown as red, green and blue, see `bands.preview`.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: the file is unreadable, empty, truncated, or too large to be decoded safely.
    """
    check_file(path)
    with in_words():
        kind = tiff.look(path)
        if is_array(path) or (kind is not None and kind.banded):
            return show(read_bands(path), chosen=previews)
        with Pillow.open(path, formats=_formats()) as image:
            return _to_rgb(_upright(image))


def file_digest(path: Path) -> str:
    """Hash the content of a file, 32 hexadecimal digits; an unreadable file hashes its absence."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        check_file(path)
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ImageError):
        return "unreadable"
    return digest.hexdigest()


def _sample(path: Path, name: str, previews: Three) -> Sample:
    return Sample(
        name,
        partial(read_image, path, previews=previews),
        cache(partial(file_digest, path)),  # hashed once per job, however many stages ask
        load_bands=None if path.suffix.lower() in PHOTOS else find_bands(path),
    )


def _walk(root: Path, others: Counter[str]) -> Iterator[Path]:
    """Yield image paths below root, leaving out what is hidden and what is a run.

    Args:
        root: a folder that exists.
        others: counts the suffixes of what was no image.

    Yields:
        Files by their suffix, and folders that cannot be listed, for which `read_image` says why.
    """
    closed: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        if Path(error.filename) == root:
            raise DataError(f"{root} cannot be read: {error.strerror}. Change its permissions.")
        closed.append(Path(error.filename))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=note):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen or _is_run(folder, files):
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and suffix in SUFFIXES:
                yield Path(folder, name)
            elif not name.startswith("."):
                others[suffix or "without suffix"] += 1
    yield from closed


def _is_run(folder: str, files: list[str]) -> bool:
    """Say whether a folder is a run directory; other programs write files called run.json too."""
    if RUN_MARK not in files:
        return False
    try:
        with open(os.path.join(folder, RUN_MARK), "rb") as file:
            return b'"zerolabel"' in file.read(64)
    except OSError:
        return False


@cache
def _formats() -> list[str]:
    """The formats that this Pillow can decode."""
    Pillow.init()
    return [name for name in FORMATS if name in Pillow.OPEN]


def _upright(image: Pillow.Image) -> Pillow.Image:
    """Apply the EXIF rotation; a damaged EXIF block says nothing about the pixels."""
    image.load()  # first: loading a TIFF rotates it and clears the tag
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Pillow.Image) -> Image:
    """Turn any Pillow mode into uint8 RGB."""
    if image.mode.startswith(("I", "F")):
        return _from_deep(np.asarray(image))
    if "transparency" not in image.info and not image.mode.endswith(("A", "a")):
        return np.asarray(image.convert("RGB"))
    layer = image.convert("RGBA")
    white = Pillow.new("RGBA", layer.size, "white")
    return np.asarray(Pillow.alpha_composite(white, layer).convert("RGB"))


def _from_deep(values: np.ndarray) -> Image:
    """Bring integers of 16 bits (divided by 256) and floats of 0..1 or 0..255 to uint8."""
    low, top = float(values.min(initial=0)), float(values.max(initial=0))
    real = values.dtype.kind == "f"
    if not (low >= 0 and top <= (255 if real else 65535)):  # so put that NaN fails
        raise ImageError(
            f"values from {low:g} to {top:g}: expected 16-bit integers, or floats of 0..1 or 0..255"
        )
    grey = np.rint(values * 255 if top <= 1 else values) if real else values // 256
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
