"""Which bands of images with more than three stand for red, green and blue."""

import json

import numpy as np
import pytest
from PIL import Image

import zerolabel
from zerolabel.errors import UsageError
from zerolabel.jobs.run.photos import open_photos

TINY = {"method": "wnet", "size": (16, 16), "base": 2, "depth": 1, "iterations": 1}
TINY["refine"] = "bilinear"  # guided, pixels would follow the picture


@pytest.fixture
def fields(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(2):
        np.save(folder / f"{i}.npy", draw.normal(size=(20, 24, 5)).astype(np.float32))
    return folder


def test_pictures_show_the_bands_that_were_chosen(fields, tmp_path):
    usual = zerolabel.segment(fields, tmp_path / "usual", report=False, **TINY).path
    chosen = zerolabel.segment(
        fields, tmp_path / "chosen", report=False, previews=(4, 3, 0), **TINY
    ).path
    masks = [np.asarray(Image.open(p / "masks" / "0.png")) for p in (usual, chosen)]
    np.testing.assert_array_equal(*masks)  # a method that knows bands sees all of them anyway
    overlays = [next((p / "overlays").rglob("0.*")).read_bytes() for p in (usual, chosen)]
    assert overlays[0] != overlays[1]
    assert json.loads((chosen / "run.json").read_text())["job"]["previews"] == [4, 3, 0]
    assert "previews" not in json.loads((usual / "run.json").read_text())["job"]


def test_a_run_finds_its_images_as_it_saw_them(fields, tmp_path):
    run = zerolabel.segment(
        fields, tmp_path / "run", report=False, overlays=False, previews=(4, 3, 0), **TINY
    ).path
    bands = np.load(fields / "0.npy")
    seen = open_photos(run, None, None)[0].load()
    order = np.argsort(bands[..., 4].ravel())
    assert (np.diff(seen[..., 0].ravel()[order].astype(int)) >= 0).all()  # red rises with band 4


def test_bands_that_cannot_be_are_refused(fields, tmp_path):
    with pytest.raises(UsageError, match="three bands"):
        zerolabel.segment(fields, tmp_path / "run", previews=(0, 1), **TINY)
