"""Palette PNGs, the masks as this project keeps them itself, beside a label map."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from zerolabel.outputs.exports.items import Format, Item, Plan
from zerolabel.outputs.exports.labels import check_count, write_labels
from zerolabel.outputs.masks import write_mask
from zerolabel.types import IGNORE


def check(plan: Plan) -> None:
    """Refuse more categories than 8 bits hold beside "no category"."""
    others = "coco, label-studio or labelme"
    check_count(plan, IGNORE, what="an 8-bit palette PNG", others=others)


def write(folder: Path, items: Iterable[Item], plan: Plan) -> None:
    """Write `masks/**.png` and the label map; a pixel's value is its category, 255 is none.

    Args:
        folder: where to; it is there.
        items: images in any order.
        plan: of the export.
    """
    write_labels(folder, plan.categories, [c.id for c in plan.categories])
    ids = np.arange(len(plan.categories), dtype=np.uint8)
    colours = np.array([c.colour for c in plan.categories], np.uint8)
    for item in items:
        label_map = item.regions.paint(ids, IGNORE)
        write_mask(folder / "masks" / item.mask, label_map, colours=colours)


FORMAT = Format(write, check, names=False, parts=False, over=False)
