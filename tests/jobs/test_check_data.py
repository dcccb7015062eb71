"""Every way in which a data set can be broken is found, named and counted."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.planted import plant
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.check_data import KINDS, check_data

DATA = os.environ.get("ZEROLABEL_DATA")
SIZE = (12, 16)


@pytest.fixture
def camvid(tmp_path):
    return plant("camvid", tmp_path, images=3, size=SIZE, splits=["val"])


def folder(root, label, *, classes="a\nb\n"):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    Image.new("RGB", (4, 2)).save(root / "images" / "one.png")
    Image.fromarray(np.asarray(label)).save(root / "masks" / "one.png")
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def first(folder):
    return min(folder.iterdir())


def only(result, split="val"):
    """The one finding of a split."""
    (finding,) = result["splits"][split]["findings"]
    assert result["findings"] == 1
    assert finding["count"] == len(finding["items"])
    assert finding["kind"] in KINDS
    return finding


def test_a_whole_data_set_says_what_it_is(camvid):
    seen = []
    result = check_data(camvid.parent, progress=lambda *tick: seen.append(tick))
    assert (result["dataset"], result["title"], result["root"]) == ("camvid", "CamVid", str(camvid))
    assert (result["space"], result["classes"], result["findings"]) == ("camvid11", 11, 0)
    part = result["splits"]["val"]
    assert (part["images"], part["masks"], part["pairs"], part["listed"]) == (3, 3, 3, None)
    assert len(part["absent"]) == 5  # six classes are planted
    assert seen == [("check val", 0, 3), ("check val", 3, 3)]


def test_values_that_the_label_space_lacks(camvid):
    for path in sorted((camvid / "valannot").iterdir())[:2]:
        label = np.asarray(Image.open(path)).copy()
        label[3, 3:5] = 200, 90
        Image.fromarray(label).save(path)
    result = check_data(camvid)
    findings = result["splits"]["val"]["findings"]
    assert [(f["kind"], f["value"], f["count"]) for f in findings] == [
        ("unseen_ids", 90, 2),
        ("unseen_ids", 200, 2),
    ]
    assert findings[0]["items"] == ["planted_000000.png", "planted_000001.png"]
    assert findings[0]["message"] == "2 masks with a value that the label space lacks"


def test_a_mask_of_another_size(camvid):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(first(camvid / "valannot"))
    found = only(check_data(camvid))
    assert found["kind"] == "size_mismatches"
    assert found["items"] == ["planted_000000.png: 5x6 for 12x16"]


def test_missing_pairs_both_ways(camvid):
    first(camvid / "valannot").unlink()
    first(camvid / "val").rename(camvid / "val" / "planted_9.png")
    path = first(camvid / "valannot")
    path.with_stem("alone").write_bytes(path.read_bytes())
    result = check_data(camvid)
    found = {f["kind"]: f["items"] for f in result["splits"]["val"]["findings"]}
    assert found == {
        "images_without_mask": ["planted_9.png"],
        "masks_without_image": ["alone.png"],
    }
    assert result["splits"]["val"]["pairs"] == 2


def test_files_that_cannot_be_read(camvid):
    first(camvid / "val").write_bytes(b"torn")
    sorted((camvid / "valannot").iterdir())[1].write_bytes(b"torn")
    Image.new("RGB", (16, 12)).save(sorted((camvid / "valannot").iterdir())[2])
    found = only(check_data(camvid))
    assert found["kind"] == "unreadable"
    assert [item.split(":")[0] for item in found["items"]] == [
        "planted_000000.png",
        "planted_000001.png",
        "planted_000002.png",
    ]
    assert "RGB picture" in found["items"][2]


def test_masks_that_score_nothing(camvid):
    Image.fromarray(np.full(SIZE, 11, np.uint8)).save(first(camvid / "valannot"))
    found = only(check_data(camvid))
    assert (found["kind"], found["items"]) == ("nothing_scored", ["planted_000000.png"])


def test_images_that_are_listed_and_not_there(tmp_path):
    base = plant("voc", tmp_path, images=2, size=SIZE, splits=["val"])
    with open(base / "ImageSets/Segmentation/val.txt", "a") as file:
        file.write("2007_9\n")
    result = check_data(base)
    assert only(result)["items"] == ["2007_9"]
    assert only(result)["kind"] == "listed_without_image"
    assert result["splits"]["val"]["listed"] == 3


def test_masks_of_other_splits_are_no_finding(tmp_path):
    base = plant("voc", tmp_path, images=2, size=SIZE)
    assert len(list((base / "SegmentationClass").iterdir())) == 4
    result = check_data(base)
    assert list(result["splits"]) == ["train", "val"]
    assert result["findings"] == 0


def test_shipped_lists_are_checked_when_they_are_asked_for(tmp_path):
    base = plant("cocostuff", tmp_path, images=2, size=SIZE)
    assert list(check_data(base)["splits"]) == ["train", "val"]
    found = only(check_data(base, split="curated-val", space="coco27"), "curated-val")
    assert (found["kind"], found["count"]) == ("listed_without_image", 2173)


def test_a_split_without_any_label_is_no_finding(tmp_path):
    base = plant("cityscapes", tmp_path, images=1, size=SIZE, splits=["val", "test"])
    for path in sorted((base / "gtFine/test").rglob("*.png")):
        path.unlink()
    result = check_data(base)
    assert result["findings"] == 0
    assert result["splits"]["test"]["masks"] == 0
    assert result["splits"]["test"]["absent"] == []


def test_regions_are_checked_too(tmp_path):
    base = plant("bsds500", tmp_path, images=2, size=SIZE, splits=["test"])
    first(base / "groundTruth/test").write_bytes(b"torn")
    Image.new("RGB", (9, 9)).save(max((base / "images/test").iterdir()))
    result = check_data(base)
    kinds = [(f["kind"], f["count"]) for f in result["splits"]["test"]["findings"]]
    assert kinds == [("unreadable", 1), ("size_mismatches", 1)]
    assert (result["space"], result["classes"]) == ("", 0)


def test_suim_masks_of_another_size_are_reported_although_they_are_fitted(tmp_path):
    base = plant("suim", tmp_path, images=1, size=SIZE, splits=["test"])
    Image.new("RGB", (32, 24)).save(first(base / "TEST/images"))
    assert only(check_data(base), "test")["kind"] == "size_mismatches"


def test_a_plain_folder(tmp_path):
    root = folder(tmp_path / "own", np.array([[0, 1, 2, 255]] * 2, np.uint8))
    found = only(check_data(root), "all")
    assert (found["kind"], found["value"]) == ("unseen_ids", 2)
    (root / "classes.txt").unlink()
    result = check_data(root)
    assert (result["dataset"], result["classes"], result["findings"]) == ("own", 3, 0)


def test_a_plain_folder_without_names_and_a_coloured_mask(tmp_path):
    root = folder(tmp_path / "own", np.zeros((2, 4, 3), np.uint8), classes="")
    found = only(check_data(root), "all")
    assert found["kind"] == "unreadable"


def test_a_broken_list_of_classes_is_an_error(tmp_path):
    root = folder(tmp_path / "own", np.zeros((2, 4), np.uint8), classes="a\n\nb\n")
    with pytest.raises(DataError, match=r"classes\.txt names"):
        check_data(root)


def test_what_is_no_data_set(tmp_path, camvid):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is not a data set that is known"):
        check_data(tmp_path / "empty")
    with pytest.raises(UsageError, match="split"):
        check_data(camvid, split="tset")
    with pytest.raises(UsageError, match="label space of CamVid"):
        check_data(camvid, space="voc21")


@pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")
@pytest.mark.parametrize(
    ("root", "name", "counts"),
    [
        ("voc", "voc", {"train": 160, "val": 222}),
        ("camvid", "camvid", {"train": 123, "val": 101}),
        ("cocostuff", "cocostuff", {"train": 13, "val": 8}),
        ("cityscapes", "cityscapes", {"train": 2}),
        ("ade20k", "ade20k", {"val": 3}),
        ("suim", "suim", {"test": 8}),
        ("bsds500", "bsds500", {"test": 60}),
        ("clothing", "clothing", {"all": 40}),
    ],
)
def test_real_data_sets_are_whole(root, name, counts):
    result = check_data(Path(DATA) / root)
    assert result["dataset"] == name
    assert {split: part["pairs"] for split, part in result["splits"].items()} == counts
    assert {split: part["images"] for split, part in result["splits"].items()} == counts
    assert result["findings"] == 0
