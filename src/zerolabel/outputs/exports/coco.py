"""COCO: stuff annotations with run lengths, and panoptic PNGs.

Source of both layouts: the COCO data format (Lin et al., "Microsoft COCO", ECCV 2014; Caesar et
al., "COCO-Stuff", CVPR 2018; Kirillov et al., "Panoptic Segmentation", CVPR 2019).
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zerolabel.ops.rle import compress, encode
from zerolabel.outputs.exports.items import Format, Item, Plan, Regions
from zerolabel.outputs.exports.labels import write_labels
from zerolabel.outputs.exports.stream import Entries, text
from zerolabel.outputs.masks import COMPRESSION
from zerolabel.store import open_whole, write_bytes
from zerolabel.types import Category

FIRST = 1  # category 0 is nobody's: many readers take it for "unlabelled"
NAMES = ("stuff", "panoptic")


def check(plan: Plan) -> None:
    """COCO tells categories by numbers, and JSON holds any name."""


def write(folder: Path, items: Iterable[Item], plan: Plan) -> None:
    """Write `stuff.json`, `panoptic.json`, `panoptic/**.png` and the label map.

    The category's `category_id` is its id + 1. In a panoptic PNG the value R + 256 G + 256^2 B of a
    pixel is the id of its segment, 0 where it has none.

    Args:
        folder: where to; it is there.
        items: images in the order of their numbers, which begin at 1.
        plan: of the export.
    """
    write_labels(folder, plan.categories, [c.id + FIRST for c in plan.categories])
    with ExitStack() as files:
        stuff, panoptic = (
            files.enter_context(open_whole(folder / f"{name}.json")) for name in NAMES
        )
        # the list of images belongs into both files, and cannot be written between annotations
        images = Entries(files.enter_context(TemporaryFile(dir=folder)))
        for file in (stuff, panoptic):
            file.write(_head(plan.categories))
        shapes, segments = Entries(stuff), Entries(panoptic)
        for item in items:
            height, width = item.regions.ids.shape
            number = images.count + 1
            name = {"id": number, "file_name": item.image, "width": width, "height": height}
            images.add(name)
            write_bytes(folder / "panoptic" / item.mask, draw_ids(item.regions.ids))
            infos = list(_infos(item.regions))
            found = [info | {"id": i} for i, info in enumerate(infos, start=1)]
            segments.add({"image_id": number, "file_name": item.mask, "segments_info": found})
            for info, counts in zip(infos, _strings(item.regions), strict=True):
                rle = {"size": [height, width], "counts": counts}
                shape = {"id": shapes.count + 1, "image_id": number, **info, "segmentation": rle}
                shapes.add(shape)
        for file in (stuff, panoptic):
            _close(file, images.file)


def _head(categories: Sequence[Category]) -> bytes:
    """The file up to the list of annotations."""
    listed = [
        {
            "id": category.id + FIRST,
            "name": category.name,
            "supercategory": "",
            "isthing": 0,
            "color": list(category.colour),
        }
        for category in categories
    ]
    info = text({"description": "masks found by zerolabel"})
    return b'{"info": %b,\n"licenses": [],\n"categories": %b,\n"annotations": [' % (
        info,
        text(listed),
    )


def _close(file: IO[bytes], images: IO[bytes]) -> None:
    """The file from the end of the annotations on."""
    file.write(b'\n],\n"images": [')
    images.seek(0)
    shutil.copyfileobj(images, file)
    file.write(b"\n]}\n")


def _strings(regions: Regions) -> list[str]:
    return compress(encode(regions.ids, len(regions.areas), order="F"))


def _infos(regions: Regions) -> Iterator[dict[str, Any]]:
    """What both kinds of annotations say of a region."""
    for k, area, (rows, columns) in zip(
        regions.categories.tolist(), regions.areas.tolist(), regions.boxes, strict=True
    ):
        size = [columns.stop - columns.start, rows.stop - rows.start]
        box = [columns.start, rows.start, *size]
        yield {"category_id": k + FIRST, "area": area, "bbox": box, "iscrowd": 0}


def draw_ids(ids: NDArray[np.int32]) -> bytes:
    """Draw the ids of segments as colours.

    Args:
        ids: (H, W), 0..R-1; -1 is none.

    Returns:
        A PNG whose pixels are R + 256 G + 256^2 B = id + 1.
    """
    numbers = ids + 1
    colours = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


FORMAT = Format(write, check)
