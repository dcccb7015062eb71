"""Images that have one class each: labelled packs, and folders with one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from zerolabel.data.folder import file_digest, find_images
from zerolabel.data.packs import Pack
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import DataError
from zerolabel.ops.resize import resize
from zerolabel.types import Image, Sample


@dataclass(frozen=True)
class Classified:
    """Images and the class of each.

    Attributes:
        name: of the folder or the file.
        samples: in a fixed order.
        classes: name of the class of every sample.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]


def open_classified(path: str | Path) -> Classified:
    """Open a labelled pack, or a folder with one folder of images per class.

    Args:
        path: an `.npz` pack with labels, whose numbers are the names of its classes; or a folder,
            whose images are of the class that the folder directly below it is called.

    Returns:
        Its images; none is decoded.

    Raises:
        DataError: nothing is there, the pack has no labels, or images lie outside class folders.
    """
    path = Path(path)
    return _pack(path) if path.suffix == ".npz" else _folders(path)


def central(image: Image, size: int) -> Tensor:
    """Cut out the middle of an image as DINO does for its k-NN (Caron et al. 2021).

    The short side is brought to 256/224 of `size` (bicubic), and the middle square is cut out; but
    an image is never enlarged beyond `size`, so that one of that size stays as it is.

    Args:
        image: uint8 (H, W, 3).
        size: S, pixels a side.

    Returns:
        uint8 (3, S, S).
    """
    H, W = image.shape[:2]
    short = min(round(size * 256 / 224), max(min(H, W), size))
    h, w = (short * side // min(H, W) for side in (H, W))
    top, left = (h - size) // 2, (w - size) // 2
    resized = resize(to_tensor(image)[None], (h, w))[0]
    return resized[:, top : top + size, left : left + size].contiguous()


def _pack(path: Path) -> Classified:
    pack = Pack(path)
    if pack.labels is None:
        raise DataError(
            f"{path} holds no labels. Expected the array labels, one whole number per image. Use a "
            "labelled pack, or a folder with one folder per class."
        )
    content = file_digest(path)
    samples = tuple(
        Sample(f"{path.name}/{i}", partial(pack.decode, i), partial("{}/{}".format, content, i))
        for i in range(len(pack))
    )
    return Classified(path.name, samples, tuple(str(label) for label in pack.labels.tolist()))


def _folders(path: Path) -> Classified:
    samples = tuple(find_images(path))
    outside = [sample.id for sample in samples if "/" not in sample.id]
    if outside:
        raise DataError(
            f"{len(outside)} of the {len(samples)} images of {path} have no class, such as "
            f"{outside[0]}. Expected {path / 'CLASS' / 'IMAGE'}, one folder per class; sort the "
            "images into folders that are called like their classes."
        )
    return Classified(
        path.resolve().name, samples, tuple(sample.id.split("/")[0] for sample in samples)
    )
