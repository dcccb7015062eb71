"""COCO there and back by pycocotools: annotations pixel for pixel, names, colours, label map."""

import contextlib
import io
import json

import numpy as np
import pytest
from exported import NASTY, categories, objects, photos, same, wide, write_export
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from reference.exports import read_labels

from zerolabel.outputs.exports import coco

pytestmark = [
    pytest.mark.usefixtures("small_worlds"),
    # pycocotools 2.0.11 has not learned a keyword of numpy 2 yet
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SIDES = {name: mask.shape for name, mask in photos().items()}
MASKS = photos()


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def read_stuff(folder):
    """Objects of each image, as pycocotools reads them."""
    read = load(folder / "stuff.json")
    names = {category["id"]: category["name"] for category in read.loadCats(read.getCatIds())}
    found = {}
    for image in read.loadImgs(read.getImgIds()):
        listed = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        found[image["file_name"]] = (
            (image["height"], image["width"]),
            [(names[entry["category_id"]], pixels(read.annToMask(entry))) for entry in listed],
        )
    return found


def read_panoptic(folder):
    """Objects of each image by the colours of the PNGs."""
    content = json.loads((folder / "panoptic.json").read_text("utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    found = {}
    for entry in content["annotations"]:
        with Image.open(folder / "panoptic" / entry["file_name"]) as picture:
            assert picture.mode == "RGB"
            colours = np.asarray(picture).astype(int)
        numbers = colours @ [1, 256, 256**2]
        known = {info["id"]: info for info in entry["segments_info"]}
        assert set(np.unique(numbers)) - {0} == set(known)
        for number, info in known.items():
            assert info["area"] == (numbers == number).sum()
            assert info["bbox"] == box(numbers == number)
            assert info["iscrowd"] == 0
        segments = [(names[info["category_id"]], pixels(numbers == i)) for i, info in known.items()]
        found[images[entry["image_id"]]["file_name"]] = numbers.shape, segments
    return found


def pixels(mask):
    return {tuple(at) for at in np.argwhere(mask).tolist()}


def box(mask):
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


READERS = {"stuff": ("coco", read_stuff), "panoptic": ("coco", read_panoptic)}


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_coco_round_trip(tmp_path, reader, parts):
    way, read = READERS[reader]
    listed = categories()
    found = read(write_export(tmp_path / "out", way, listed, parts=parts))
    assert {name: size for name, (size, _) in found.items()} == SIDES
    for name, mask in MASKS.items():
        assert same(found[name][1], objects(mask, listed, parts=parts)), name


@pytest.mark.parametrize("reader", READERS)
def test_coco_holds_any_number_of_categories(tmp_path, reader):
    way, read = READERS[reader]
    masks, listed = wide()
    [(_, found)] = read(write_export(tmp_path / "out", way, listed, masks)).values()
    assert same(found, objects(masks["x.jpg"], listed, parts=False))


def test_coco_facts(tmp_path):
    folder = write_export(tmp_path / "out", "coco", categories(), parts=True)
    content = json.loads((folder / "stuff.json").read_text("utf-8"))
    for entry in content["annotations"]:
        mask = rle.decode(entry["segmentation"])
        assert entry["area"] == mask.sum() == rle.area(entry["segmentation"])
        assert entry["bbox"] == box(mask) == rle.toBbox(entry["segmentation"]).tolist()
        assert entry["iscrowd"] == 0
    ids = [entry["id"] for entry in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    assert [c["name"] for c in content["categories"]] == NASTY
    assert [c["color"] for c in content["categories"]] == [list(c.colour) for c in categories()]
    values = [value for _, _, value in read_labels(folder).values()]
    assert values == [str(c["id"]) for c in content["categories"]] == ["1", "2", "3", "4"]


def test_coco_numbers_more_segments_than_one_channel_holds(tmp_path):
    board = np.indices((37, 41)).sum(0) % 2  # 8-connected, so that lines keep squares apart
    mask = np.where((np.indices((37, 41)) % 2).any(0), 255, board).astype(np.uint8)
    folder = write_export(tmp_path / "out", "coco", categories(), {"a.png": mask}, parts=True)
    [(_, found)] = read_panoptic(folder).values()
    assert len(found) == 19 * 21
    assert same(found, objects(mask, categories(), parts=True))


def test_coco_ids_fill_three_channels():
    ids = np.arange(-1, 70 * 1000 - 1, dtype=np.int32).reshape(70, 1000)
    with Image.open(io.BytesIO(coco.draw_ids(ids))) as picture:
        numbers = np.asarray(picture).astype(int) @ [1, 256, 256**2]
    np.testing.assert_array_equal(numbers, ids + 1)
