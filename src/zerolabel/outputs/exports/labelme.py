"""LabelMe: one JSON file for each photo, with shapes of the type "mask".

LabelMe reads such shapes from version 5.4 on. A polygon cannot have a hole; a mask can.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from zerolabel.errors import DataError, UsageError
from zerolabel.outputs.exports.items import Format, Item, Plan, Regions
from zerolabel.outputs.exports.labels import check_names, write_labels
from zerolabel.outputs.masks import COMPRESSION
from zerolabel.store import write_bytes, write_json

VERSION = "5.4.1"  # its layout has masks
CONFIG = "labelme.yaml"
SHAPES = "annotations"  # of their own, else the file of run.jpg would be that of the export


def check(plan: Plan) -> None:
    """Refuse names that are not all different; JSON holds any characters."""
    check_names(plan, what="LabelMe")


def write(folder: Path, items: Iterable[Item], plan: Plan) -> None:
    """Write `annotations/**.json`, `labelme.yaml` with names and colours, and the label map.

    Args:
        folder: where to; it is there.
        items: images in any order; each says where its photo is.
        plan: of the export; its `place` decides on the way from a file to its photo.

    Raises:
        DataError: a photo whose name LabelMe takes apart.
        UsageError: the photos are on another drive.
    """
    names = [category.name for category in plan.categories]
    write_labels(folder, plan.categories, names)
    colours = {category.name: list(category.colour) for category in plan.categories}
    config = {"shape_color": "manual", "labels": names, "label_colors": colours}
    # in ASCII: LabelMe reads it in whatever code its system has
    write_bytes(folder / CONFIG, yaml.safe_dump(config, sort_keys=False).encode("ascii"))
    for item in items:
        file = Path(SHAPES, item.mask).with_suffix(".json")
        height, width = item.regions.ids.shape
        content = {
            "version": VERSION,
            "flags": {},
            "shapes": list(_shapes(item.regions, names)),
            "imagePath": _way(item, (plan.place / file).parent),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(folder / file, content)


def _way(item: Item, start: Path) -> str:
    """The path of a photo as it is seen from the folder of its file."""
    if "\\" in item.image:
        raise DataError(
            f"LabelMe cannot find the photo {item.image}: it takes a backslash in a name for a "
            "folder. Rename the photo and segment again, or choose another --format."
        )
    if item.photo is None:
        return item.image
    try:
        return Path(os.path.relpath(item.photo, start)).as_posix()
    except ValueError:
        raise UsageError(
            f"{item.photo} is on another drive than {start}, and LabelMe needs the way from one to "
            "the other. Choose an --out on the drive of the photos."
        ) from None


def _shapes(regions: Regions, names: list[str]) -> Iterator[dict[str, Any]]:
    for i, (k, (rows, columns)) in enumerate(
        zip(regions.categories.tolist(), regions.boxes, strict=True)
    ):
        inside = (regions.ids[rows, columns] == i).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(inside).save(buffer, "PNG", compress_level=COMPRESSION)
        yield {
            "label": names[k],
            # the corners belong to the box
            "points": [[columns.start, rows.start], [columns.stop - 1, rows.stop - 1]],
            "group_id": None,
            "description": "",
            "shape_type": "mask",
            "flags": {},
            "mask": base64.b64encode(buffer.getvalue()).decode("ascii"),
        }


FORMAT = Format(write, check, photos=True)
