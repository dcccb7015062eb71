import csv
import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.benchmarks import LAYOUTS, open_dataset, read_label
from zerolabel.errors import DataError, UsageError

DATA = os.environ.get("ZEROLABEL_DATA")
real = pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")


def photo(path, *, size=(6, 4), colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def mask(path, ids, *, palette=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(ids, np.uint8))
    if palette:
        # colours whose grey values and order differ from the ids
        image.putpalette([255 - value for value in range(256) for _ in range(3)])
    image.save(path)


def table(name):
    text = resources.files("zerolabel.data").joinpath(f"tables/{name}.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for name in ("2007_3", "2007_1", "2007_1-b", "not_listed"):
        photo(base / "JPEGImages" / f"{name}.jpg")
        mask(base / "SegmentationClass" / f"{name}.png", [[0, 1, 20, 21, 254, 255]])
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_3\n")
    (lists / "val.txt").write_text("2007_1\n2007_1-b\n\n")
    return base


@pytest.fixture
def camvid(tmp_path):
    root = tmp_path / "CamVid"
    for split, names in (("train", "ba"), ("test", "c")):
        for name in names:
            photo(root / split / f"{name}.png")
            mask(root / f"{split}annot" / f"{name}.png", [[0, 10, 11, 12]], palette=False)
    return root


def pair(root, *, masks="masks", classes="road\nsky\n"):
    for name in ("b/two", "a"):
        photo(root / "images" / f"{name}.jpg")
        mask(root / masks / f"{name}.png", [[0, 1, 2, 255]])
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("name", LAYOUTS)
def test_tables_number_their_classes_without_gaps(name):
    rows = table(name)
    classes = [row for row in rows if row["name"] != "void"]
    assert [int(row["id"]) for row in classes] == list(range(len(classes)))
    assert f"{len(classes)}" in name
    assert len({row["name"] for row in rows}) == len(rows)
    assert len({(row["r"], row["g"], row["b"]) for row in rows}) == len(rows)


def test_voc_colours_are_the_bits_of_the_ids_interleaved():
    for row in table("voc21")[:21]:
        index = int(row["id"])
        # bits 0, 1, 2 of the id are bit 7 of red, green, blue; bits 3, 4, 5 are bit 6
        colour = [(index >> c & 1) << 7 | (index >> c + 3 & 1) << 6 for c in range(3)]
        assert [int(row[key]) for key in "rgb"] == colour


@pytest.mark.parametrize("above", range(3))
def test_voc_is_found_from_any_folder_of_its_own(voc, above):
    root = [voc, *voc.parents][above]
    dataset = open_dataset(root)
    assert (dataset.name, dataset.split, len(dataset.classes)) == ("voc21", "val", 21)
    assert [sample.id for sample in dataset.samples] == ["2007_1-b.jpg", "2007_1.jpg"]
    assert dataset.images.samefile(voc / "JPEGImages")
    assert dataset.ignore == (255,)


def test_voc_labels_are_palette_indices_with_everything_else_ignored(voc):
    sample = open_dataset(voc, split="train").samples[0]
    assert sample.id == "2007_3.jpg"
    label = sample.load_label()
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 1, 20, 255, 255, 255]]
    assert sample.load().shape == (4, 6, 3)
    assert sample.digest() == open_dataset(voc).samples[0].digest()  # same bytes, other file


def test_a_list_that_names_missing_images_is_an_error(voc):
    (voc / "ImageSets/Segmentation/val.txt").write_text("2007_1\n2007_9\n")
    with pytest.raises(DataError, match=r"val\.txt lists 2 images, 1 of which .* 2007_9"):
        open_dataset(voc)


def test_camvid_ignores_void(camvid):
    dataset = open_dataset(camvid)
    assert (dataset.name, dataset.split) == ("camvid11", "train")  # there is no val
    assert [sample.id for sample in dataset.samples] == ["a.png", "b.png"]
    assert dataset.classes[0] == "sky"
    assert dataset.classes[10] == "bicyclist"
    assert dataset.ignore == (11,)
    assert dataset.samples[0].load_label().tolist() == [[0, 10, 255, 255]]
    assert [sample.id for sample in open_dataset(camvid.parent, split="test").samples] == ["c.png"]


def test_an_unknown_split_names_the_known_ones(camvid):
    with pytest.raises(UsageError, match=r"Unknown split 'tset'\. Did you mean .*Known: test, tra"):
        open_dataset(camvid, split="tset")


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_a_pair_of_folders_with_names(tmp_path, masks):
    dataset = open_dataset(pair(tmp_path / "street", masks=masks))
    assert (dataset.name, dataset.split, dataset.classes) == ("street", "all", ("road", "sky"))
    assert [sample.id for sample in dataset.samples] == ["a.jpg", "b/two.jpg"]
    for sample in dataset.samples:
        assert sample.load_label().tolist() == [[0, 1, 255, 255]]


def test_a_pair_of_folders_without_names_counts_its_classes(tmp_path):
    dataset = open_dataset(pair(tmp_path, classes=""))
    assert dataset.classes == ("class 0", "class 1", "class 2")
    assert dataset.samples[0].load_label().tolist() == [[0, 1, 2, 255]]


def test_an_image_without_a_mask_has_no_label(tmp_path):
    photo(pair(tmp_path) / "images" / "new.jpg")
    labels = {sample.id: sample.load_label for sample in open_dataset(tmp_path).samples}
    assert labels["new.jpg"] is None
    assert labels["a.jpg"] is not None


def test_nothing_is_opened_before_it_is_asked_for(tmp_path):
    pair(tmp_path)
    (tmp_path / "masks" / "a.png").write_bytes(b"broken")
    sample = open_dataset(tmp_path).samples[0]
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        sample.load_label()


def test_folders_that_are_no_labelled_data_set(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    assert open_dataset(tmp_path) is None
    assert open_dataset(tmp_path / "images") is None
    assert open_dataset(tmp_path / "nowhere") is None


def test_a_pair_of_folders_has_no_splits(tmp_path):
    with pytest.raises(UsageError, match="Known: all"):
        open_dataset(pair(tmp_path), split="val")


def test_masks_with_other_names_are_an_error(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a_mask.png", [[0, 1]])
    with pytest.raises(DataError, match=r"Expected a\.png for a\.jpg, found \['a_mask'\]"):
        open_dataset(tmp_path)


def test_two_images_that_would_share_a_mask_are_an_error(tmp_path):
    photo(pair(tmp_path) / "images" / "a.png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png would share the mask a\.png"):
        open_dataset(tmp_path)


def test_black_and_white_masks_are_explained(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png", [[0, 255]], palette=False)
    with pytest.raises(DataError, match="one class only"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("text", ["", "road\n", "road\n\nsky\n", "x\n" * 256])
def test_odd_lists_of_classes_are_an_error(tmp_path, text):
    pair(tmp_path)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt names"):
        open_dataset(tmp_path)


def test_lists_of_classes_must_be_utf8(tmp_path):
    pair(tmp_path)
    (tmp_path / "classes.txt").write_bytes("Straße\nsky\n".encode("latin-1"))
    with pytest.raises(DataError, match="Save it as UTF-8"):
        open_dataset(tmp_path)


def test_lists_of_classes_may_come_from_windows(tmp_path):
    pair(tmp_path)
    (tmp_path / "classes.txt").write_bytes("\ufeffStraße\r\nsky\r\n\r\n".encode())
    assert open_dataset(tmp_path).classes == ("Straße", "sky")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_coloured_masks_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png is a {mode} picture.*Expected.*found {mode}"):
        read_label(tmp_path / "a.png", 5)


def test_masks_of_every_depth_hold_the_same_ids(tmp_path):
    ids = np.array([[0, 1, 1, 0]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "8.png")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(ids.astype(bool)).save(tmp_path / "1.png")
    small = Image.fromarray(ids)
    small.putpalette([9, 9, 9, 5, 5, 5])
    small.save(tmp_path / "palette.png", bits=1)
    for name in ("8", "16", "1", "palette"):
        assert read_label(tmp_path / f"{name}.png", 2).tolist() == ids.tolist(), name


def test_grey_masks_of_four_bits_hold_ids(tmp_path):
    # Pillow cannot write these: one row of two pixels, values 3 and 11
    import struct
    import zlib

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    row = zlib.compress(bytes([0, 0x3B]))
    png = chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert read_label(tmp_path / "a.png", 20).tolist() == [[3, 11]]


def test_ids_of_16_bits_do_not_wrap(tmp_path):
    Image.fromarray(np.array([[1, 257, 65535, 255]], np.uint16)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", 2).tolist() == [[1, 255, 255, 255]]


@real
@pytest.mark.parametrize(
    ("root", "split", "count", "classes"),
    [
        ("voc", "val", 222, 21),
        ("voc/VOCdevkit", "train", 160, 21),
        ("camvid/CamVid", "val", 101, 11),
        ("camvid", "train", 123, 11),
        ("clothing", None, 40, 59),
    ],
)
def test_real_data(root, split, count, classes):
    dataset = open_dataset(Path(DATA) / root, split=split)
    assert (len(dataset.samples), len(dataset.classes)) == (count, classes)
    seen = set()
    for sample in dataset.samples[:10]:
        label = sample.load_label()
        assert label.shape == sample.load().shape[:2]
        seen |= set(np.unique(label).tolist())
    assert max(seen - {255}) < classes
    assert len(seen) > 5


@real
def test_real_tables_agree_with_the_palette_of_the_files():
    folder = Path(DATA) / "voc/VOCdevkit/VOC2012/SegmentationClass"
    with Image.open(sorted(folder.iterdir())[0]) as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    for row in table("voc21"):
        assert palette[int(row["id"])].tolist() == [int(row[key]) for key in "rgb"]
