"""Label Studio: tasks whose predictions are strokes of a brush, and the labelling interface.

Source of both layouts: the Label Studio documentation ("Import pre-annotated data", "BrushLabels").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from zerolabel import __version__
from zerolabel.ops.brush import pack
from zerolabel.ops.rle import encode
from zerolabel.outputs.exports.items import Format, Item, Plan
from zerolabel.outputs.exports.labels import (
    check_names,
    hexadecimal,
    odd_character,
    write_labels,
)
from zerolabel.outputs.exports.stream import Entries
from zerolabel.store import open_whole, write_bytes

PREFIX = "/data/local-files/?d="  # where Label Studio serves the files of its own machine
BRUSH, PHOTO = "label", "image"  # tags of the labelling interface


def check(plan: Plan) -> None:
    """Refuse names that are not all different, or that XML cannot hold."""
    check_names(plan, what="Label Studio", fault=odd_character)


def write(folder: Path, items: Iterable[Item], plan: Plan) -> None:
    """Write `tasks.json`, `config.xml` and the label map.

    Args:
        folder: where to; it is there.
        items: images in the order of the tasks.
        plan: of the export; its `prefix` makes an address of an image's path.
    """
    names = [category.name for category in plan.categories]
    write_labels(folder, plan.categories, names)
    write_bytes(folder / "config.xml", _interface(plan).encode())
    with open_whole(folder / "tasks.json") as file:
        file.write(b"[")
        tasks = Entries(file)
        for item in items:
            address = plan.prefix + quote(item.image, errors="surrogateescape")
            result = _strokes(item, names)
            prediction = {"model_version": f"zerolabel {__version__}", "result": result}
            tasks.add({"data": {PHOTO: address}, "predictions": [prediction]})
        file.write(b"\n]\n")


def _interface(plan: Plan) -> str:
    """The labelling interface, with names and colours."""
    labels = "".join(
        f"    <Label value={quoteattr(c.name)} background={quoteattr(hexadecimal(c.colour))}/>\n"
        for c in plan.categories
    )
    return (
        f'<View>\n  <Image name="{PHOTO}" value="${PHOTO}" zoom="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="{PHOTO}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def _strokes(item: Item, names: list[str]) -> list[dict[str, object]]:
    """The annotations of an image, one stroke for each."""
    regions = item.regions
    height, width = regions.ids.shape
    streams = pack(encode(regions.ids, len(regions.areas), order="C"))
    return [
        {
            "id": f"r{i}",
            "type": "brushlabels",
            "from_name": BRUSH,
            "to_name": PHOTO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": stream.tolist(), "brushlabels": [names[k]]},
        }
        for i, (k, stream) in enumerate(zip(regions.categories.tolist(), streams, strict=True))
    ]


FORMAT = Format(write, check)
