"""Readers and writers of annotation formats, one pixel or bit at a time."""

import base64
import csv
import io
import json
import zipfile
from itertools import groupby
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
from PIL import Image


def coco_counts(mask):
    """Runs down the columns, beginning with pixels outside."""
    counts, last, run = [], 0, 0
    for value in mask.ravel(order="F").tolist():
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return [*counts, run]


def coco_string(counts):
    """Differences to the count two before, in characters of five bits and a sign to go on."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            low = value & 31
            value >>= 5
            more = value != (-1 if low & 16 else 0)
            text += chr(48 + low + 32 * more)
    return text


def read_brush(data):
    """The values in a stream of rle-pack."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(width):
        nonlocal at
        at += width
        return int(bits[at - width : at], 2)

    count, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        same = read(1)
        length = read(sizes[read(2)]) + 1
        values += length * [read(width)] if same else [read(width) for _ in range(length)]
    assert len(values) == count
    assert len(bits) - at < 8
    return values


def pack_brush(mask):
    """A stream of rle-pack for a mask, run by run."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4).tolist()
    sizes = (3, 4, 8, 16)
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for value, run in groupby(values):
        left = len(list(run))
        while left:
            length = min(left, 1 << 16)
            kind = next(i for i, size in enumerate(sizes) if length <= 1 << size)
            bits += f"1{kind:02b}" + format(length - 1, f"0{sizes[kind]}b") + f"{value:08b}"
            left -= length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def read_labels(folder):
    """The label map: id -> name, colour, value."""
    rows = list(csv.reader(io.StringIO((folder / "labels.csv").read_text("utf-8"), newline="")))
    assert rows[0] == ["id", "name", "colour", "value"]
    return {int(id_): (name, colour, value) for id_, name, colour, value in rows[1:]}


def read_cvat(archive):
    """Per image of a CVAT zip its size and its objects: name -> (shape, [(label, pixels)])."""
    with zipfile.ZipFile(archive) as file:
        lines = file.read("labelmap.txt").decode().splitlines()
        assert lines[0].startswith("#")
        colours = {}
        for line in lines[1:]:
            name, colour, parts, actions = line.split(":")
            assert (parts, actions) == ("", "")
            key = tuple(int(value) for value in colour.split(","))
            assert key not in colours
            colours[key] = name
        found = {}
        for name in file.read("ImageSets/Segmentation/default.txt").decode().splitlines():
            classes, objects = (
                np.asarray(Image.open(io.BytesIO(file.read(f"Segmentation{kind}/{name}.png"))))
                for kind in ("Class", "Object")
            )
            assert classes.shape == objects.shape
            found[name] = classes.shape[:2], _cvat_objects(classes, objects, colours)
    assert len(found) * 2 + 2 == len(file.namelist())
    return found


def voc_colour(number):
    """Bits of the number, lowest first, go to R, G, B in turn, the highest bit of each first."""
    colour = [0, 0, 0]
    for bit in range(24):
        colour[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return tuple(colour)


def _cvat_objects(classes, objects, colours):
    numbers = {voc_colour(number): number for number in range(256)}
    members = {}
    for at in np.ndindex(classes.shape[:2]):
        number = numbers[tuple(objects[at].tolist())]  # CVAT refuses other colours
        label = colours[tuple(classes[at].tolist())]
        if number:
            members.setdefault(number, []).append((label, at))
        else:
            assert tuple(classes[at].tolist()) == (0, 0, 0)
    for pixels in members.values():
        assert len({label for label, _ in pixels}) == 1
    return [(pixels[0][0], {at for _, at in pixels}) for pixels in members.values()]


def read_labelme(path):
    """Shape of the image, way to the photo, and objects of a LabelMe file."""
    content = json.loads(path.read_text("utf-8"))
    assert content["imageData"] is None
    size = content["imageHeight"], content["imageWidth"]
    objects = []
    for shape in content["shapes"]:
        assert shape["shape_type"] == "mask"
        (left, top), (right, bottom) = shape["points"]
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"])))).astype(bool)
        assert mask.shape == (bottom - top + 1, right - left + 1)
        assert mask.any(1)[[0, -1]].all()
        assert mask.any(0)[[0, -1]].all()
        pixels = {(top + y, left + x) for y, x in np.argwhere(mask).tolist()}
        objects.append((shape["label"], pixels))
    return size, content["imagePath"], objects


def read_label_studio(folder):
    """Names and colours of the interface, and per task its image, size and objects."""
    view = ElementTree.fromstring((folder / "config.xml").read_text("utf-8"))
    image, brush = view.find("Image"), view.find("BrushLabels")
    assert brush.get("toName") == image.get("name")
    labels = [(label.get("value"), label.get("background")) for label in brush]
    tasks = []
    for task in json.loads((folder / "tasks.json").read_text("utf-8")):
        address = task["data"][image.get("value").removeprefix("$")]
        objects, sizes = [], set()
        [prediction] = task["predictions"]
        ids = [result["id"] for result in prediction["result"]]
        assert len(ids) == len(set(ids))
        for result in prediction["result"]:
            assert (result["from_name"], result["to_name"]) == (brush.get("name"), "image")
            assert (result["type"], result["value"]["format"]) == ("brushlabels", "rle")
            H, W = result["original_height"], result["original_width"]
            sizes.add((H, W))
            values = np.array(read_brush(result["value"]["rle"])).reshape(H, W, 4)
            assert set(np.unique(values)) <= {0, 255}
            assert (values == values[..., :1]).all()
            pixels = {tuple(at) for at in np.argwhere(values[..., 3]).tolist()}
            [label] = result["value"]["brushlabels"]
            objects.append((label, pixels))
        tasks.append((unquote(address), sizes, objects))
    return labels, tasks
