"""CVAT there and back: annotations pixel for pixel, names, colours, limits of its reader."""

import json
import zipfile

import numpy as np
import pytest
from exported import categories, noise, objects, photos, ring, same, stems, write_export
from reference.exports import read_cvat, read_labels, voc_colour

from zerolabel.errors import DataError
from zerolabel.outputs.exports import cvat
from zerolabel.types import Category

pytestmark = pytest.mark.usefixtures("small_worlds")
MASKS = photos()


@pytest.mark.parametrize("parts", [False, True])
def test_cvat_round_trip(tmp_path, parts):
    listed = categories()
    folder = write_export(tmp_path / "out", "cvat", listed, parts=parts)
    found = read_cvat(folder / "annotations.zip")
    for name, mask in stems(MASKS).items():
        size, there = found.pop(name)
        assert size == mask.shape
        assert same(there, objects(mask, listed, parts=parts)), name
    assert not found
    with zipfile.ZipFile(folder / "annotations.zip") as archive:
        for name in archive.namelist():  # the same lies beside it
            assert archive.read(name) == (folder / name).read_bytes()


def test_cvat_labels(tmp_path):
    listed = [*categories(3, ["background", "void", "x"]), Category(3, "y", (0, 0, 0))]
    folder = write_export(tmp_path / "out", "cvat", listed, {"a.png": noise(0, 4)})
    lines = (folder / "labelmap.txt").read_text("utf-8").splitlines()
    assert lines[1] == "no category:0,0,0::"  # "background" is a category of this run
    assert lines[2] == "background:66,133,212::"
    labels = json.loads((folder / "cvat-labels.json").read_text("utf-8"))
    assert [label["name"] for label in labels] == ["background", "void", "x", "y"]
    assert [label["color"] for label in labels] == [c for _, c, _ in read_labels(folder).values()]
    assert labels[3]["color"] != "#000000"  # black is no category
    assert read_labels(folder)[0][2] == "66,133,212"
    [(_, there)] = read_cvat(folder / "annotations.zip").values()
    assert same(there, objects(noise(0, 4), listed, parts=False))
    plain = write_export(
        tmp_path / "plain", "cvat", categories(2, ["a", "b"]), {"a.png": noise(0, 2)}
    )
    assert "background:0,0,0::" in (plain / "labelmap.txt").read_text("utf-8")


def test_cvat_archives_are_the_same_every_time(tmp_path):
    one, two = (write_export(tmp_path / name, "cvat", categories()) for name in ("one", "two"))
    assert (one / "annotations.zip").read_bytes() == (two / "annotations.zip").read_bytes()


def test_cvat_colours_of_objects():
    colours = cvat.object_colours()
    assert [tuple(c) for c in colours.tolist()] == [voc_colour(i) for i in range(256)]


def test_cvat_limits(tmp_path):
    listed = categories(255)
    board = np.full((40, 40), 255, np.uint8)
    board[::2, ::2] = np.arange(400).reshape(20, 20) % 4
    board[0, :3] = 0  # one is larger
    masks = {"a.png": board}
    with pytest.raises(DataError, match=r"a.png has 399 annotations.*255.*--minimum 2"):
        write_export(tmp_path / "many", "cvat", listed, masks, parts=True)
    [(_, there)] = read_cvat(
        write_export(tmp_path / "few", "cvat", listed, masks, parts=True, minimum=2)
        / "annotations.zip"
    ).values()
    assert len(there) == 1
    every = np.arange(255, dtype=np.uint8).reshape(15, 17)
    folder = write_export(tmp_path / "every", "cvat", listed, {"b.png": every})
    [(_, there)] = read_cvat(folder / "annotations.zip").values()
    assert same(there, objects(every, listed, parts=False))


@pytest.mark.parametrize("name", ["a\nb.jpg", " a.jpg", "#a.jpg", "a\udc80.jpg"])
def test_photos_that_the_list_of_cvat_cannot_hold(tmp_path, name):
    with pytest.raises(DataError, match="cannot hold the name"):
        write_export(tmp_path / "out", "cvat", categories(), {name: ring()})
