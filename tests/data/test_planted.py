import numpy as np
import pytest

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.layouts import LAYOUTS
from zerolabel.data.planted import plant
from zerolabel.data.spaces import spaces_of
from zerolabel.errors import UsageError
from zerolabel.jobs.check_data import check_data

SIZE = (24, 36)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_was_planted_is_found_again(name, tmp_path):
    base = plant(name, tmp_path, images=3, size=SIZE)
    for root in (tmp_path, base):
        dataset = open_dataset(root)
        assert dataset.name == name
        assert dataset.space == next(iter(spaces_of(name)), "")
    seen = set()
    assert len(dataset.samples) == 3
    for sample in dataset.samples:
        assert sample.load().shape == (*SIZE, 3)
        for label in [sample.load_label()] if sample.load_label else sample.load_regions():
            assert label.shape == SIZE
            seen |= set(np.unique(label).tolist())
    assert len(seen - {255}) >= 4
    assert (255 in seen) == (255 in {255 for _ in dataset.ignore})


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_planted_data_set_has_no_findings(name, tmp_path):
    result = check_data(plant(name, tmp_path, images=2, size=SIZE))
    assert result["findings"] == 0
    for part in result["splits"].values():
        assert (part["images"], part["masks"], part["pairs"]) == (2, 2, 2)


@pytest.mark.parametrize("space", [s for name in LAYOUTS for s in spaces_of(name)])
def test_planted_labels_suit_every_space_of_their_data_set(space, tmp_path):
    name = next(name for name in LAYOUTS if space in spaces_of(name))
    dataset = open_dataset(plant(name, tmp_path, images=1, size=SIZE), space=space)
    label = dataset.samples[0].load_label()
    assert label.max(initial=0, where=label < 255) < len(dataset.classes)
    assert (label < 255).any()


def test_a_class_looks_the_same_in_all_splits_and_unlike_the_others(tmp_path):
    base = plant("voc", tmp_path, images=8, size=(48, 64), seed=3)
    means = []
    for split in ("train", "val"):
        pixels = [
            (sample.load_label().ravel(), sample.load().reshape(-1, 3))
            for sample in open_dataset(base, split=split).samples
        ]
        label, colour = (np.concatenate(part) for part in zip(*pixels, strict=True))
        means.append([colour[label == c].mean(0) for c in np.unique(label[label < 255])])
    train, val = np.array(means)
    distance = np.linalg.norm(train[:, None] - val[None], axis=2)
    assert (distance.argmin(1) == np.arange(len(train))).all()
    assert distance.diagonal().max() < 20


def test_the_frame_is_not_scored(tmp_path):
    label = open_dataset(plant("voc", tmp_path, images=1, size=SIZE)).samples[0].load_label()
    assert (label[[0, -1]] == 255).all()
    assert (label[:, [0, -1]] == 255).all()
    assert (label[1:-1, 1:-1] < 255).all()


def test_splits_can_be_chosen(tmp_path):
    base = plant("voc", tmp_path, images=2, size=SIZE, splits=["trainaug"])
    dataset = open_dataset(base)
    assert dataset.split == "trainaug"
    assert dataset.samples[0].load_label is not None
    assert (base / "SegmentationClassAug").is_dir()
    assert not (base / "SegmentationClass").exists()


def test_the_same_seed_plants_the_same(tmp_path):
    roots = [plant("camvid", tmp_path / str(i), images=1, size=SIZE, seed=i // 2) for i in range(3)]
    digests = [open_dataset(root).samples[0].digest() for root in roots]
    assert digests[0] == digests[1] != digests[2]


def test_unknown_names_name_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match="Unknown data set 'coco'"):
        plant("coco", tmp_path)
    with pytest.raises(UsageError, match="split of CamVid 'trainaug'"):
        plant("camvid", tmp_path, splits=["trainaug"])


def test_the_archive_of_maskcontrast_is_understood(tmp_path):
    base = plant("voc", tmp_path, images=2, size=SIZE)
    (base / "JPEGImages").rename(base / "images")
    (base / "ImageSets/Segmentation").rename(base / "sets")
    (base / "ImageSets").rmdir()
    dataset = open_dataset(base)
    assert (dataset.name, dataset.split, len(dataset.samples)) == ("voc", "val", 2)
    assert dataset.samples[0].load_label is not None


def test_lip_does_without_its_lists(tmp_path):
    base = plant("lip", tmp_path, images=2, size=SIZE)
    assert open_dataset(base).listed == 2
    (base / "val_id.txt").unlink()
    dataset = open_dataset(base, split="val")
    assert (dataset.listed, len(dataset.samples)) == (None, 2)
