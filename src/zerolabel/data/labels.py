"""Reading ground truth: every format that the data sets come in, and raw values turned into ids."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from zerolabel.data.spaces import Space
from zerolabel.errors import DataError
from zerolabel.types import LabelMap

STRETCH = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of few bits over 0..255
HALF = 127  # above it a colour channel counts as on; some SUIM masks have blended borders
ELEMENTS = 1 << 20  # counted at once: numpy widens them to eight bytes each
UNREADABLE = (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError)


class UnknownValuesError(DataError):
    """A mask that holds values which its label space lacks.

    Attributes:
        values: these, each once, in ascending order.
        expected: the values that it knows, in words.
    """

    def __init__(self, message: str, *, values: Sequence[int], expected: str) -> None:
        super().__init__(message)
        self.values, self.expected = tuple(values), expected


def read_label(
    path: Path, space: Space, *, reader: str = "ids", image: Path | None = None
) -> LabelMap:
    """Read the classes of a mask.

    Args:
        path: the file.
        space: what its values stand for.
        reader: a key of `READERS`.
        image: an image file to whose size the mask is brought; None leaves it as it is.

    Returns:
        uint8 (H, W), 0..C-1, or 255 where nothing is scored.

    Raises:
        DataError: the file is unreadable, of another kind, or holds values that the space lacks.
    """
    label = remap(read_raw(path, reader=reader), space, path=path)
    return label if image is None else fit(label, read_size(image))


def read_raw(path: Path, *, reader: str = "ids") -> LabelMap:
    """Read the raw values of a mask.

    Args:
        path: the file.
        reader: a key of `READERS`.

    Returns:
        Integer (H, W).

    Raises:
        DataError: the file is unreadable or of another kind.
    """
    try:
        return READERS[reader](path)
    except UNREADABLE as error:
        raise DataError(f"The mask {path} cannot be read: {error}") from None


def remap(raw: LabelMap, space: Space, *, path: Path) -> NDArray[np.uint8]:
    """Turn raw values into ids.

    Args:
        raw: integer (H, W).
        space: what the values stand for.
        path: where they are from, for the error.

    Returns:
        uint8 (H, W), 0..C-1, or 255 where nothing is scored; it can be written to.

    Raises:
        DataError: values that the space lacks.
    """
    if raw.dtype != np.uint8 and raw.size and (raw.min() < -1 or raw.max() > 255):
        raise _unknown(np.unique(raw).tolist(), space, path)
    values = raw.astype(np.uint8).tobytes()  # -1 becomes 255
    table, known = space.translation
    # bytes.translate takes a quarter of the time of numpy's indexing.
    strange = values.translate(None, delete=known)
    if strange:
        raise _unknown(sorted(set(strange)), space, path)
    return np.frombuffer(bytearray(values.translate(table)), np.uint8).reshape(raw.shape)


def tally(label: LabelMap) -> dict[int, int]:
    """Count the pixels of every value.

    Args:
        label: integer (H, W).

    Returns:
        Value -> pixels, for the values that occur, in ascending order.
    """
    flat = label.reshape(-1)
    if label.dtype != np.uint8:
        values, counts = np.unique(flat, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    found = np.zeros(256, np.int64)  # counting bytes is quicker than sorting them
    for start in range(0, flat.size, ELEMENTS):
        found += np.bincount(flat[start : start + ELEMENTS], minlength=256)
    return {value: int(found[value]) for value in np.flatnonzero(found).tolist()}


def read_regions(path: Path) -> list[LabelMap]:
    """Read the region maps of one image of BSDS500, one per annotator.

    Args:
        path: a `.mat` file whose `groundTruth` is a 1 x A array of `Segmentation`, `Boundaries`.

    Returns:
        A region maps, int32 (H, W), ids 1..R of each annotator's own.

    Raises:
        DataError: the file is unreadable or of another kind.
    """
    from scipy.io import loadmat  # only BSDS500 needs it, and it is slow to import

    try:
        truth = loadmat(path)["groundTruth"]
        return [truth[0, a]["Segmentation"][0, 0].astype(np.int32) for a in range(truth.shape[1])]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{path} is no ground truth of BSDS500. Expected a .mat file whose groundTruth holds a "
            f"Segmentation per annotator, found {type(error).__name__}: {error}."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"The regions {path} cannot be read: {error}") from None


def read_size(path: Path) -> tuple[int, int]:
    """Read the (H, W) of an image without decoding it; EXIF rotation is not looked at.

    Args:
        path: the file.

    Raises:
        DataError: it is no image.
    """
    try:
        with Pillow.open(path) as image:
            return image.height, image.width
    except UNREADABLE as error:
        raise DataError(f"The image {path} cannot be read: {error}") from None


def fit(label: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Resize a label map by nearest neighbours, as Pillow and the published code do.

    Args:
        label: integer (H, W).
        size: (H, W) in pixels.

    Returns:
        Same type, of that size; the value at the centre of every new pixel.
    """
    if label.shape == tuple(size):
        return label
    values = label if label.dtype == np.uint8 else label.astype(np.int32)  # what Pillow can hold
    picture = Pillow.fromarray(values).resize((size[1], size[0]), Pillow.Resampling.NEAREST)
    return np.array(picture).astype(label.dtype, copy=False)


def _read_ids(path: Path) -> LabelMap:
    """Read a palette or grey PNG of ids."""
    with Pillow.open(path) as image:
        mode = image.mode
        stretch = STRETCH.get(str(image.tile[0].args), 1) if image.tile else 1
        ids = np.asarray(image)
    if ids.ndim != 2 or ids.dtype.kind == "f":
        raise DataError(
            f"The mask {path} is a {mode} picture. Expected a palette or grey PNG whose values are "
            f"class ids (Pillow modes P, L, 1 or I;16), found {mode}. Replace every colour by its "
            "class id and save the ids."
        )
    if ids.dtype == bool:
        return ids.astype(np.uint8)
    return ids // stretch if stretch > 1 else ids


def _read_colours(path: Path) -> LabelMap:
    """Read a picture whose red, green and blue are the bits of an id, red the highest (SUIM)."""
    with Pillow.open(path) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise DataError(
                f"The mask {path} is a {image.mode} picture. Expected colours, whose red, green "
                f"and blue are on or off (Pillow modes RGB, RGBA or P), found {image.mode}."
            )
        on = np.asarray(image.convert("RGB")) > HALF
    bits: LabelMap = np.packbits(on, axis=2)[..., 0] >> 5  # 3 of 8 bits are used
    return bits


def _read_text(path: Path) -> LabelMap:
    """Read a matrix of whole numbers, one line per row; any negative one is -1."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns of an empty file
        try:
            raw = np.loadtxt(path, dtype=np.int32, ndmin=2)
        except UserWarning:
            raise DataError(f"The mask {path} is empty. Expected rows of whole numbers.") from None
    matrix: LabelMap = np.maximum(raw, -1)
    return matrix


READERS: dict[str, Callable[[Path], LabelMap]] = {
    "ids": _read_ids,
    "colours": _read_colours,
    "text": _read_text,
}


def _unknown(values: Sequence[int], space: Space, path: Path) -> UnknownValuesError:
    strange = [value for value in values if value not in space.known]
    return UnknownValuesError(
        f"The mask {path} holds values outside the label space {space.name}: expected "
        f"{space.expected}, found {', '.join(map(str, strange[:8]))}"
        f"{' and more' if len(strange) > 8 else ''}. Check that it belongs to this data set; "
        "`zerolabel data check` lists every such file.",
        values=strange,
        expected=space.expected,
    )
