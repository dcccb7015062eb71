import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
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


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for name in ("2007_3", "2007_1", "2007_1-b", "not_listed"):
        photo(base / "JPEGImages" / f"{name}.jpg")
        mask(base / "SegmentationClass" / f"{name}.png", [[0, 1, 20, 0, 1, 255]])
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
            mask(root / f"{split}annot" / f"{name}.png", [[0, 10, 11, 11]], palette=False)
    return root


def pair(root, *, masks="masks", classes="road\nsky\nsea\n"):
    for name in ("b/two", "a"):
        photo(root / "images" / f"{name}.jpg")
        mask(root / masks / f"{name}.png", [[0, 1, 2, 255]])
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("above", range(3))
def test_voc_is_found_from_any_folder_of_its_own(voc, above):
    root = [voc, *voc.parents][above]
    dataset = open_dataset(root)
    assert (dataset.name, dataset.space, dataset.split) == ("voc", "voc21", "val")
    assert (len(dataset.classes), dataset.listed) == (21, 2)
    assert [sample.id for sample in dataset.samples] == ["2007_1-b.jpg", "2007_1.jpg"]
    assert dataset.images.samefile(voc / "JPEGImages")
    assert dataset.ignore == (255,)


def test_samples_know_the_classes_of_the_label_space_they_are_read_by(voc):
    for space, first, count in (("voc21", "background", 21), ("voc20", "aeroplane", 20)):
        dataset = open_dataset(voc, space=space)
        assert len(dataset.classes) == count
        assert dataset.classes[0] == first
        assert {sample.classes for sample in dataset.samples} == {dataset.classes}


def test_voc_labels_are_palette_indices(voc):
    sample = open_dataset(voc, split="train").samples[0]
    assert sample.id == "2007_3.jpg"
    label = sample.load_label()
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 1, 20, 0, 1, 255]]
    assert sample.load().shape == (4, 6, 3)
    assert sample.digest() == open_dataset(voc).samples[0].digest()  # same bytes, other file


def test_a_list_that_names_missing_images_is_an_error(voc):
    (voc / "ImageSets/Segmentation/val.txt").write_text("2007_1\n2007_9\n")
    with pytest.raises(DataError, match=r"val\.txt lists 2 images, 1 of which .* 2007_9"):
        open_dataset(voc)


def test_camvid_ignores_void(camvid):
    dataset = open_dataset(camvid)
    assert (dataset.name, dataset.space, dataset.split) == ("camvid", "camvid11", "train")  # no val
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
    assert (dataset.name, dataset.split, dataset.classes) == (
        "street",
        "all",
        ("road", "sky", "sea"),
    )
    assert [sample.id for sample in dataset.samples] == ["a.jpg", "b/two.jpg"]
    for sample in dataset.samples:
        assert sample.load_label().tolist() == [[0, 1, 2, 255]]
        assert sample.classes == ("road", "sky", "sea")


def test_a_pair_of_folders_without_names_counts_its_classes(tmp_path):
    dataset = open_dataset(pair(tmp_path, classes=""))
    assert dataset.classes == dataset.samples[0].classes == ("class 0", "class 1", "class 2")
    assert dataset.samples[0].load_label().tolist() == [[0, 1, 2, 255]]


def test_an_image_without_a_mask_has_no_label(tmp_path):
    photo(pair(tmp_path) / "images" / "new.jpg")
    samples = {sample.id: sample for sample in open_dataset(tmp_path).samples}
    assert samples["new.jpg"].load_label is None
    assert samples["new.jpg"].classes == ()
    assert samples["a.jpg"].load_label is not None


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


@pytest.mark.parametrize(("above", "ids"), [(2, "21, 254"), (0, "21, 254")])
def test_ids_outside_the_label_space_are_an_error(voc, above, ids):
    mask(voc / "SegmentationClass" / "2007_1.png", [[0, 21, 254, 255]])
    root = [voc, *voc.parents][above]
    label = open_dataset(root).samples[1].load_label
    with pytest.raises(DataError, match=rf"2007_1\.png .*voc21: expected 0-20, 255, found {ids}\."):
        label()


def test_ids_outside_the_list_of_classes_are_an_error(tmp_path):
    label = open_dataset(pair(tmp_path, classes="road\nsky\n")).samples[0].load_label
    with pytest.raises(DataError, match=r"a\.png .*: expected 0-1, 255, found 2\."):
        label()


def test_masks_of_more_than_a_byte_are_explained(tmp_path):
    pair(tmp_path, classes="")
    Image.fromarray(np.array([[300, 1]], np.uint16)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(
        DataError, match=r"a\.png holds the value 300\. Expected class ids 0 to 254"
    ):
        open_dataset(tmp_path)


def test_voc_without_background(voc):
    dataset = open_dataset(voc, split="train", space="voc20")
    assert dataset.classes[0] == "aeroplane"
    assert dataset.ignore == (0, 255)
    assert dataset.samples[0].load_label().tolist() == [[255, 0, 19, 255, 0, 255]]


def test_a_plain_folder_can_be_read_by_a_published_label_space(tmp_path):
    dataset = open_dataset(pair(tmp_path, classes=""), space="ade150")
    assert (dataset.name, dataset.space) == (tmp_path.name, "ade150")
    assert len(dataset.classes) == 150
    with pytest.raises(DataError, match="found 255"):  # ADE20K has no such value
        dataset.samples[0].load_label()


def test_a_label_space_of_another_data_set_names_the_own_ones(voc, tmp_path):
    with pytest.raises(UsageError, match=r"label space of PASCAL VOC.*Known: voc20, voc21"):
        open_dataset(voc, space="ade150")
    with pytest.raises(UsageError, match=r"Unknown label space 'voc12'\. Did you mean"):
        open_dataset(pair(tmp_path / "own"), space="voc12")


def test_several_data_sets_below_one_root_are_named(tmp_path):
    for name in ("voc", "context", "camvid"):
        plant(name, tmp_path, images=1, size=(8, 8))
    with pytest.raises(UsageError) as caught:
        open_dataset(tmp_path)
    for words in ("Context in", "VOC 2012 in", "CamVid in", "Give the folder of one"):
        assert words in str(caught.value)
    assert open_dataset(tmp_path / "VOCdevkit/VOC2012").name == "voc"
    assert open_dataset(tmp_path, space="context59").name == "context"


def test_context_is_told_from_the_voc_masks_of_its_year(tmp_path):
    base = plant("context", tmp_path, images=1, size=(8, 8))
    (base / "SegmentationClass").mkdir()
    lists = base / "ImageSets/Segmentation"
    lists.mkdir()
    (lists / "val.txt").write_text("planted_000001\n")
    assert open_dataset(base).space == "context60"
    assert open_dataset(base, space="voc21").name == "voc"


def test_splits_have_their_names_and_those_of_the_folders(tmp_path):
    base = plant("ade20k", tmp_path, images=1, size=(8, 8))
    assert open_dataset(base, split="training").split == "train"
    assert open_dataset(base, split="train").images.name == "training"
    assert open_dataset(base, split="validation").images.name == "validation"
    with pytest.raises(UsageError, match="Known: train, val"):
        open_dataset(base, split="test")


def test_a_split_can_be_cut_to_some_of_its_images(tmp_path):
    base = plant("camvid", tmp_path, images=5, size=(8, 8), splits=["val"])
    every = [sample.id for sample in open_dataset(base).samples]
    few = open_dataset(base, split="val:2")
    assert (few.split, [sample.id for sample in few.samples]) == ("val:2", [every[0], every[2]])
    assert len(open_dataset(base, split="val:9").samples) == 5
    for odd in ("val:", "val:0", "val:x"):
        with pytest.raises(UsageError, match=r"a split such as val, or val:24"):
            open_dataset(base, split=odd)


def test_curated_coco_is_what_is_there_of_the_list(tmp_path):
    base = plant("cocostuff", tmp_path, images=3, size=(8, 8))
    photo(base / "images/val2017/900000000001.jpg")
    dataset = open_dataset(base, split="curated-val", space="coco27")
    assert (len(dataset.samples), dataset.listed) == (3, 2175)
    assert len(open_dataset(base).samples) == 4
    for path in (base / "images/train2017").iterdir():
        path.rename(path.with_stem(f"x{path.stem}"))
    with pytest.raises(DataError, match=r"lists 49629 images, 49629 of which are not in"):
        open_dataset(base, split="curated-train")


def test_an_empty_list_is_an_error(voc):
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt names no image\. Expected one name per line"):
        open_dataset(voc)


def test_an_empty_split_is_an_error(camvid):
    (camvid / "val").mkdir()
    (camvid / "valannot").mkdir()
    with pytest.raises(DataError, match=r"val holds no image\. Expected files .* found nothing"):
        open_dataset(camvid)


@pytest.mark.parametrize("name", ["voc", "ade20k", "cityscapes", "cocostuff", "lip"])
def test_labels_may_be_missing(name, tmp_path):
    base = plant(name, tmp_path, images=2, size=(8, 8))
    for folder in sorted(base.rglob("*"), reverse=True):
        if folder.is_dir() and any(word in folder.as_posix() for word in MASKS):
            for path in folder.iterdir():
                path.unlink() if path.is_file() else path.rmdir()
            folder.rmdir()
    dataset = open_dataset(base)
    assert dataset.name == name
    assert len(dataset.samples) == 2
    assert all(sample.load_label is None for sample in dataset.samples)


MASKS = ("SegmentationClass", "annotations", "gtFine", "_segmentations")


@pytest.mark.parametrize(
    "names",
    [
        ("images/training/1.png", "annotations/training/1.png"),
        ("test/images/1.jpg", "test/masks/1.png"),
        ("train_images/1.jpg", "test_images/1.jpg"),
        ("train/1.jpg", "val/1.jpg"),
    ],
)
def test_folders_of_others_are_not_taken_for_a_published_data_set(names, tmp_path):
    for name in names:
        photo(tmp_path / name)
    assert open_dataset(tmp_path) is None


def test_copies_of_masks_in_other_codings_are_skipped(tmp_path):
    base = plant("cocostuff", tmp_path, images=1, size=(8, 8))
    (own,) = (base / "annotations/val2017").iterdir()
    for end in ("_labelTrainIds", "_27labelTrainIds"):
        own.with_stem(own.stem + end).write_bytes(own.read_bytes())
    base = plant("suim", tmp_path, images=1, size=(8, 8))
    (own,) = (base / "TEST/masks").iterdir()
    (base / "TEST/masks/RO").mkdir()
    (base / "TEST/masks/RO" / own.name).write_bytes(own.read_bytes())
    for root in (tmp_path / "MSCOCO", base):
        (sample,) = open_dataset(root).samples
        assert sample.load_label().shape == (8, 8)


def test_a_mask_of_suim_is_brought_to_the_size_of_its_image(tmp_path):
    base = plant("suim", tmp_path, images=1, size=(8, 12))
    (own,) = (base / "TEST/images").iterdir()
    Image.new("RGB", (18, 16)).save(own)
    (sample,) = open_dataset(base).samples
    assert sample.load_label().shape == sample.load().shape[:2] == (16, 18)


@real
@pytest.mark.parametrize(
    ("root", "split", "count", "space", "classes"),
    [
        ("voc", "val", 222, "voc21", 21),
        ("voc/VOCdevkit", "train", 160, "voc20", 20),
        ("camvid/CamVid", "val", 101, "camvid11", 11),
        ("camvid", "train", 123, "camvid11", 11),
        ("clothing", None, 40, None, 59),
        ("cocostuff", None, 8, "cocostuff171", 171),
        ("cocostuff", "train2017", 13, "coco27", 27),
        ("cocostuff", "val", 8, "coco80", 81),
        ("cocostuff", "curated-val", 3, "coco15", 15),
        ("cocostuff", "curated-train", 5, "coco27", 27),
        ("cityscapes", None, 2, "cityscapes27", 27),
        ("cityscapes", "train", 2, "cityscapes19", 19),
        ("cityscapes", "train", 2, "cityscapes7", 7),
        ("ade20k", "validation", 3, "ade150", 150),
        ("suim", None, 8, "suim8", 8),
        ("suim", "TEST", 8, "suim6", 6),
        ("suim", "test", 8, "suim5", 5),
    ],
)
def test_real_data(root, split, count, space, classes):
    dataset = open_dataset(Path(DATA) / root, split=split, space=space)
    assert (len(dataset.samples), len(dataset.classes)) == (count, classes)
    seen = set()
    for sample in dataset.samples[:10]:
        label = sample.load_label()
        assert label.shape == sample.load().shape[:2]
        seen |= set(np.unique(label).tolist())
    assert max(seen - {255}) < classes
    assert len(seen - {255}) >= min(4, classes)


@real
def test_real_regions_cover_their_images():
    dataset = open_dataset(Path(DATA) / "bsds500")
    assert (dataset.name, dataset.space, dataset.split) == ("bsds500", "", "test")
    assert (len(dataset.samples), dataset.classes) == (60, ())
    for sample in dataset.samples[:10]:
        maps = sample.load_regions()
        assert sample.load_label is None
        assert 4 <= len(maps) <= 9
        for one in maps:
            assert one.shape == sample.load().shape[:2]
            assert np.unique(one).tolist() == list(range(1, one.max() + 1))


@real
def test_several_real_data_sets_are_told_apart():
    with pytest.raises(UsageError, match="several data sets: Cityscapes"):
        open_dataset(DATA)
