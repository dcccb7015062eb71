"""LabelMe, Label Studio and PNG there and back, and what holds for every format."""

import json
import weakref

import numpy as np
import pytest
import yaml
from exported import (
    FORMATS,
    NASTY,
    categories,
    items,
    noise,
    objects,
    photos,
    plan,
    ring,
    same,
    stems,
    wide,
    write_export,
)
from PIL import Image
from reference.exports import read_label_studio, read_labelme, read_labels

from zerolabel.errors import DataError, UsageError
from zerolabel.outputs.exports.items import cut

pytestmark = pytest.mark.usefixtures("small_worlds")
MASKS = photos()


@pytest.mark.parametrize("parts", [False, True])
def test_labelme_round_trip(tmp_path, parts):
    listed = categories()
    folder = write_export(tmp_path / "out", "labelme", listed, parts=parts)
    for name, mask in stems(MASKS).items():
        size, _, there = read_labelme(folder / "annotations" / f"{name}.json")
        assert size == mask.shape
        assert same(there, objects(mask, listed, parts=parts)), name
    assert len(list((folder / "annotations").rglob("*.json"))) == len(MASKS)


def test_labelme_holds_any_name_and_number(tmp_path):
    masks, _ = wide()
    listed = categories(300, ["a\nb", "x: y", "yes", "- z", '"', "1"])
    folder = write_export(tmp_path / "out", "labelme", listed, masks)
    _, _, there = read_labelme(folder / "annotations" / "x.json")
    assert same(there, objects(masks["x.jpg"], listed, parts=False))
    config = yaml.safe_load((folder / "labelme.yaml").read_text("ascii"))
    assert config["labels"] == [category.name for category in listed]
    assert config["label_colors"] == {c.name: list(c.colour) for c in listed}


def test_labelme_keeps_run_json_apart(tmp_path):
    folder = write_export(tmp_path / "out", "labelme", categories(), {"run.jpg": ring()})
    assert not (folder / "run.json").exists()


def test_labelme_refuses_a_backslash(tmp_path):
    with pytest.raises(DataError, match=r"takes a backslash in a name for a folder"):
        write_export(tmp_path / "out", "labelme", categories(), {"a\\b.jpg": ring()})


@pytest.mark.parametrize("parts", [False, True])
def test_label_studio_round_trip(tmp_path, parts):
    listed = categories()
    folder = write_export(tmp_path / "out", "label-studio", listed, parts=parts)
    labels, tasks = read_label_studio(folder)
    assert labels == [(name, colour) for name, colour, _ in read_labels(folder).values()]
    assert [name for name, _ in labels] == NASTY
    for (name, mask), (address, sizes, there) in zip(MASKS.items(), tasks, strict=True):
        assert address == f"http://x/?d={name}"
        assert sizes <= {mask.shape}
        assert same(there, objects(mask, listed, parts=parts)), name


def test_label_studio_holds_any_number(tmp_path):
    masks, listed = wide()
    _, [(_, _, there)] = read_label_studio(
        write_export(tmp_path / "out", "label-studio", listed, masks)
    )
    assert same(there, objects(masks["x.jpg"], listed, parts=False))


def test_png_round_trip(tmp_path):
    listed = categories()
    folder = write_export(tmp_path / "out", "png", listed)
    for name, mask in stems(MASKS).items():
        with Image.open(folder / "masks" / f"{name}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), mask)
            shown = np.asarray(picture.convert("RGB"))
        colours = np.array([category.colour for category in listed])
        np.testing.assert_array_equal(shown[mask < 4], colours[mask[mask < 4]])
    assert [value for _, _, value in read_labels(folder).values()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("way", ["png", "cvat"])
def test_eight_bits_hold_255_categories(tmp_path, way):
    with pytest.raises(
        UsageError, match=r"RUN has 256 categories.*holds 255. .*coco, label-studio"
    ):
        write_export(tmp_path / "out", way, categories(256))
    write_export(tmp_path / "full", way, categories(255))


@pytest.mark.parametrize(
    ("way", "name", "words"),
    [
        ("cvat", "a:b", "a colon"),
        ("cvat", "a\nb", "the character '\\\\n'"),
        ("cvat", "#a", "begins with #"),
        ("cvat", "a ", "blanks around"),
        ("cvat", "x" * 65, "more than 64"),
        ("cvat", "a\ud800", "the character"),
        ("label-studio", "a\x00", "the character '\\\\x00'"),
        ("label-studio", "a\nb", "the character '\\\\n'"),
        ("label-studio", "", "an empty name"),
        ("labelme", "", "an empty name"),
    ],
)
def test_names_that_a_format_cannot_hold(tmp_path, way, name, words):
    with pytest.raises(UsageError, match=f"Category 1 .*cannot hold .*{words}.*zerolabel name"):
        write_export(tmp_path / "out", way, categories(2, ["a", name]))


@pytest.mark.parametrize("way", FORMATS)
def test_equal_names(tmp_path, way):
    listed, masks = categories(2, ["a", "a"]), {"a.png": noise(0, 2)}
    if way in ("coco", "png"):  # which tell categories by numbers
        write_export(tmp_path / "out", way, listed, masks)
        return
    with pytest.raises(UsageError, match="Categories 0 and 1 are both called 'a'"):
        write_export(tmp_path / "out", way, listed, masks)


def test_odd_photo_names_survive_elsewhere(tmp_path):
    name = "a\nb #\udc80.jpg"
    folder = write_export(tmp_path / "coco", "coco", categories(), {name: ring()})
    assert json.loads((folder / "stuff.json").read_text("utf-8"))["images"][0]["file_name"] == name
    folder = write_export(tmp_path / "studio", "label-studio", categories(), {name: ring()})
    [task] = json.loads((folder / "tasks.json").read_text("utf-8"))
    assert task["data"]["image"] == "http://x/?d=a%0Ab%20%23%80.jpg"


@pytest.mark.parametrize("way", FORMATS)
def test_one_image_is_in_memory_at_a_time(tmp_path, way):
    seen, most = [], []

    def stream():
        for item in items({f"{i}.png": ring() for i in range(6)}, 4):
            seen.append(weakref.ref(item.regions.ids))
            most.append(sum(one() is not None for one in seen))
            yield item

    (tmp_path / "out").mkdir()
    FORMATS[way].FORMAT.write(tmp_path / "out", stream(), plan(categories()))
    assert max(most) <= 2


@pytest.mark.parametrize("way", FORMATS)
def test_no_image_at_all(tmp_path, way):
    folder = write_export(tmp_path / "out", way, categories(), {})
    assert len(read_labels(folder)) == 4
    if way == "coco":
        assert json.loads((folder / "stuff.json").read_text())["images"] == []


def test_holes_are_kept(tmp_path):
    # the reason for masks instead of polygons
    regions = cut(ring(), 4, parts=True)
    around = np.flatnonzero(regions.categories == 1)[0]
    assert not (regions.ids[4:6, 4:6] == around).any()
    assert (regions.ids[3, 3:7] == around).all()
