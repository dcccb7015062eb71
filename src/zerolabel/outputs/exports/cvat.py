"""CVAT "Segmentation mask 1.1": colours of categories and of objects, in a zip and beside it.

Source of the layout: the CVAT documentation. Colours of objects are those of Pascal VOC (Everingham
et al., "The Pascal Visual Object Classes Challenge", IJCV 2010), of which CVAT knows 255.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zerolabel.errors import DataError
from zerolabel.outputs.exports.items import Format, Item, Plan
from zerolabel.outputs.exports.labels import (
    check_count,
    check_names,
    distinct_colours,
    hexadecimal,
    odd_character,
    write_labels,
)
from zerolabel.outputs.masks import COMPRESSION
from zerolabel.store import json_bytes, open_whole, write_bytes

ARCHIVE = "annotations.zip"
LABELS = "cvat-labels.json"  # for the constructor of labels
LIST = "ImageSets/Segmentation/default.txt"
BACKGROUNDS = ("background", "no category", "without category", "void")
MOST = 255  # categories and objects: CVAT keeps either number in 8 bits, and 0 is the background
LONGEST = 64  # characters of a name; CVAT cuts what is longer
BLACK = (0, 0, 0)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same masks make the same archive at any time


def check(plan: Plan) -> None:
    """Refuse what `labelmap.txt` or CVAT cannot hold: too many categories, odd names."""
    check_count(plan, MOST, what="CVAT", others="coco, label-studio or labelme")
    check_names(plan, what="CVAT", fault=_fault)


def write(folder: Path, items: Iterable[Item], plan: Plan) -> None:
    """Write `annotations.zip`, what is in it as files, labels for CVAT, and the label map.

    Args:
        folder: where to; it is there.
        items: images in any order.
        plan: of the export.

    Raises:
        DataError: an image with too many objects, or a name that the list of images cannot hold.
    """
    categories, colours = plan.categories, distinct_colours(plan.categories)
    shown = [",".join(map(str, colour)) for colour in colours.tolist()]
    write_labels(folder, categories, shown, colours=colours)
    labels = [
        {"name": category.name, "color": hexadecimal(colour), "attributes": []}
        for category, colour in zip(categories, colours.tolist(), strict=True)
    ]
    write_bytes(folder / LABELS, json_bytes(labels))
    names = [category.name for category in categories]
    rest = next(name for name in BACKGROUNDS if name not in names)
    rows = [(rest, ",".join(map(str, BLACK))), *zip(names, shown, strict=True)]
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{colour}::" for name, colour in rows)]
    stems: list[str] = []
    objects = object_colours()
    with open_whole(folder / ARCHIVE) as file, ZipFile(file, "w") as archive:

        def add(name: str, data: bytes) -> None:
            """Write a file, and put it into the archive."""
            write_bytes(folder / name, data)
            entry = ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16  # else unpacked files may be read by nobody
            archive.writestr(entry, data)

        add("labelmap.txt", _text(lines))
        for item in items:
            stem = _stem(item)
            stems.append(stem)
            _check_objects(item)
            regions = item.regions
            add(f"SegmentationClass/{stem}.png", _png(regions.paint(colours, BLACK)))
            add(f"SegmentationObject/{stem}.png", _png(objects[regions.ids + 1]))
        add(LIST, _text(stems))


def object_colours() -> NDArray[np.uint8]:
    """The colours of objects 0 to 255, uint8 (256, 3): bits of the number, spread over RGB."""
    numbers = np.arange(MOST + 1)[:, None]
    colours = np.zeros((MOST + 1, 3), np.int64)
    for place in range(8):
        colours |= (numbers >> 3 * place + np.arange(3) & 1) << 7 - place
    return colours.astype(np.uint8)


def _fault(name: str) -> str:
    """What `labelmap.txt` or CVAT cannot hold in a name."""
    if ":" in name:
        return "a colon in a name"
    if name.startswith("#"):
        return "a name that begins with #"
    if name != name.strip():
        return "blanks around a name"
    if len(name) > LONGEST:
        return f"a name of more than {LONGEST} characters"
    return odd_character(name)


def _stem(item: Item) -> str:
    """The name by which CVAT finds the image: its path without the suffix."""
    stem, own = item.mask.removesuffix(".png"), str(PurePosixPath(item.image).with_suffix(""))
    if stem != own:
        raise DataError(
            f"{item.image} has the name of another photo but for suffix or case, and CVAT tells "
            "photos by their names without suffix. Rename one and segment again, or choose another "
            "--format."
        )
    if stem != stem.strip() or stem.startswith("#") or odd_character(stem):
        raise DataError(
            f"The list of images for CVAT cannot hold the name {item.image!r}: expected no blanks "
            "around it, no # in front and no odd characters. Rename it and segment again, or "
            "choose another --format."
        )
    return stem


def _check_objects(item: Item) -> None:
    areas = np.sort(item.regions.areas)[::-1]
    if len(areas) > MOST:
        raise DataError(
            f"{item.image} has {len(areas)} annotations, and CVAT reads {MOST} of an image. Leave "
            f"small ones out with --minimum {areas[MOST] + 1}, or choose another --format."
        )


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _png(colours: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


FORMAT = Format(write, check, names=False)
