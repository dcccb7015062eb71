"""Small masks with holes and scattered parts, what is in them by walking, exports, and runs."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from reference.graphs import components_by_walking

from zerolabel.outputs.colours import palette
from zerolabel.outputs.exports import coco, cvat, label_studio, labelme, png
from zerolabel.outputs.exports.items import Item, Plan, cut
from zerolabel.outputs.masks import write_mask
from zerolabel.types import Category

NASTY = ["background", 'a, "b" & <c>', "日本 ü", "'; -- {}"]  # every format holds these
FORMATS = {"coco": coco, "cvat": cvat, "label-studio": label_studio, "labelme": labelme, "png": png}


def ring(size=9):
    """Category 0 around category 1 around a hole of 0; a corner of 2 in two parts; none at left."""
    mask = np.zeros((size, size + 3), np.uint8)
    mask[2:7, 2:8] = 1
    mask[4:6, 4:6] = 0
    mask[0, -1] = mask[2, -1] = mask[8, 0] = 2
    mask[1, -2] = 2  # touches the first at a corner
    mask[:4, 0] = 255
    return mask


def noise(i, k, size=(7, 10), none=255):
    """Patches of any category, some pixels without."""
    rng = np.random.default_rng(i)
    mask = np.kron(rng.integers(0, k, size), np.ones((2, 2), int))[: 2 * size[0] - 1]
    mask[rng.random(mask.shape) < 0.1] = none
    return mask.astype(np.uint8 if k <= 255 else np.uint16)


def categories(k=4, names=NASTY):
    """K categories with the nasty names first."""
    colours = palette(k).tolist()
    listed = [*names, *(f"category {i}" for i in range(len(names), k))][:k]
    return [Category(i, name, tuple(colours[i])) for i, name in enumerate(listed)]


def plan(listed, place="out"):
    return Plan("RUN", listed, Path(place).resolve(), "http://x/?d=")


def items(masks, k, *, parts=False, minimum=1):
    """Masks by image name, as a job hands them to a format."""
    for name, mask in masks.items():
        regions = cut(mask, k, parts=parts, minimum=minimum)
        yield Item(name, str(Path(name).with_suffix(".png").as_posix()), None, regions)


def objects(mask, listed, *, parts):
    """The annotations that a mask shall have: (name, pixels), found by walking."""
    k = len(listed)
    known = mask < k
    marks = components_by_walking(mask.astype(int), 8) if parts else mask
    found = {}
    for at in map(tuple, np.argwhere(known).tolist()):
        found.setdefault((int(mask[at]), int(marks[at])), set()).add(at)
    return [(listed[category].name, pixels) for (category, _), pixels in sorted(found.items())]


def same(found, expected):
    """Whether two lists hold the same annotations, in any order."""

    def plain(pairs):
        return sorted((name, sorted(pixels)) for name, pixels in pairs)

    return plain(found) == plain(expected)


def write_exportable(root, masks, listed, **facts):
    """Write masks as a finished run, and photos where it says that they are."""
    colours = np.array([category.colour for category in listed], np.uint8)
    run, place = root / "run", root / "photos"
    for name, mask in masks.items():
        write_mask(run / "masks" / Path(name).with_suffix(".png"), mask, colours=colours)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(place / name)
    entries = [{"id": c.id, "name": c.name, "colour": list(c.colour)} for c in listed]
    (run / "categories.json").write_text(json.dumps({"categories": entries}), "utf-8")
    job = {"method": "kmeans", "backbone": "filterbank", "config": {}, **facts}
    said = {"zerolabel": "1", "status": "done", "job": job, "data_path": str(place)}
    (run / "run.json").write_text(json.dumps(said), "utf-8")
    return run


def photos():
    """Masks by image name: odd names, folders, and one without any category."""
    nothing = np.full((5, 6), 255, np.uint8)
    return {"a b.jpg": ring(), "deep/ü,1.x.png": noise(1, 4), "none.jpg": nothing}


def write_export(folder, way, listed, masks=None, *, parts=False, minimum=1):
    """Export masks, `photos()` unless others are given, as a job does."""
    masks = photos() if masks is None else masks
    folder.mkdir()
    asked = plan(listed, folder)
    FORMATS[way].FORMAT.check(asked)
    FORMATS[way].FORMAT.write(
        folder, items(masks, len(listed), parts=parts, minimum=minimum), asked
    )
    return folder


def wide(k=300):
    """Masks of more than 255 categories."""
    return {"x.jpg": noise(3, k, size=(20, 30), none=65535)}, categories(k)


def stems(masks):
    """Masks by image name without suffix."""
    return {name.rsplit(".", 1)[0]: mask for name, mask in masks.items()}
