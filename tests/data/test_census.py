"""What labels hold is counted as a slow loop counts it, and what is wrong with them is said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.census import FEW, census
from zerolabel.data.folder import from_arrays
from zerolabel.data.planted import plant
from zerolabel.errors import DataError, UsageError
from zerolabel.store import Store

PHOTO = np.zeros((1, 1, 3), np.uint8)


def samples(*labels, classes=()):
    """Images 0.png, 1.png, ... with these labels; None for none."""
    made = [
        from_arrays(f"{i}.png", PHOTO, None if label is None else np.array(label))
        for i, label in enumerate(labels)
    ]
    return [replace(sample, classes=classes) for sample in made]


def only(found):
    (words,) = found.problems()
    return words


values = st.sampled_from([0, 1, 2, 3, 5, 254, 255, 256, 700])
labels = st.lists(
    st.none() | arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=values),
    max_size=5,
)


@given(labels, st.none() | st.integers(1, 6))
def test_counts_are_those_of_a_loop(labels, classes):
    found = census(samples(*labels), classes=classes)
    limit = classes or 255
    pixels, images, strange, void, bare = {}, {}, {}, [], []
    for i, label in enumerate(labels):
        if label is None:
            bare.append(f"{i}.png")
            continue
        flat = label.ravel().tolist()
        for value in flat:
            pixels[value] = pixels.get(value, 0) + 1
        for value in set(flat):
            images[value] = images.get(value, 0) + 1
            if value != 255 and value >= limit:
                strange.setdefault(value, []).append(f"{i}.png")
        if set(flat) == {255}:
            void.append(f"{i}.png")
    C = classes or 1 + max((value for value in pixels if value < 255), default=-1)
    assert found.names == tuple(f"class {i}" for i in range(C))
    assert found.pixels.dtype == found.images.dtype == np.int64
    assert found.pixels.tolist() == [pixels.get(i, 0) for i in range(C)]
    assert found.images.tolist() == [images.get(i, 0) for i in range(C)]
    assert found.ignored == pixels.get(255, 0)
    assert (list(found.void), list(found.unlabelled)) == (void, bare)
    assert {value: list(where) for value, where in found.strange.items()} == strange
    assert list(found.absent) == [i for i in range(C) if i not in images]
    odd = {name for where in strange.values() for name in where}
    assert found.counted == len(labels) - len(bare) - len(odd)
    wrong = strange or void or bare or (images and found.absent) or np.sum(found.images > 0) == 1
    assert bool(found.problems()) == bool(wrong)


def test_whole_labels_have_no_problem_and_a_table():
    found = census(
        samples([[0, 0, 1]], [[0, 255, 255], [2, 2, 2]], classes=("road", "sky", "sea")), classes=3
    )
    assert found.problems() == []
    exhibit = found.exhibit()
    assert exhibit.kind == "table"
    assert exhibit.data["columns"] == ["id", "class", "pixels", "images"]
    assert exhibit.data["rows"] == [
        (0, "road", "42.86 %", 2),
        (1, "sky", "14.29 %", 1),
        (2, "sea", "42.86 %", 1),
    ]
    assert "in 2 images; 22.2 % of all pixels do not count" in exhibit.caption
    assert census([]).exhibit().data["rows"] == []


def test_no_image_is_decoded_and_labels_are_read_once():
    asked = []

    def load():
        raise AssertionError

    made = []
    for sample in samples(*[[[0, 1]]] * 130):

        def load_label(sample=sample):
            asked.append(sample.id)
            return sample.load_label()

        made.append(replace(sample, load=load, load_label=load_label))
    seen = []
    store = Store(report=lambda *tick: seen.append(tick))
    assert census(made, store=store).counted == 130
    assert sorted(asked) == sorted(sample.id for sample in made)
    assert seen == [("labels", done, 130) for done in (0, 64, 128, 130)]
    assert "labels" in store.seconds


@pytest.mark.parametrize("classes", [0, 256, -1])
def test_there_cannot_be_so_many_classes(classes):
    with pytest.raises(UsageError, match=f"Expected 1 to 255 classes, found {classes}"):
        census([], classes=classes)


# --- what is wrong -------------------------------------------------------------------------------


def test_images_without_labels():
    words = only(census(samples([[0, 1]], None, None, None, None)))
    assert words.startswith("4 images without a label")
    assert "1.png, 2.png, 3.png and 1 more. Add the masks" in words
    assert only(census(samples(None))).startswith("1 image, and no label. Give a labelled split")


def test_labels_that_cannot_be_read():
    def torn():
        raise DataError("The mask b.png cannot be read: torn")

    made = samples([[0, 1]], [[0]])
    found = census([made[0], replace(made[1], load_label=torn)])
    assert found.unreadable == {"1.png": "The mask b.png cannot be read: torn"}
    assert only(found).startswith("1 label cannot be read, e.g. of 1.png: The mask b.png cannot")


def test_values_that_are_no_class():
    found = census(samples(*[[[0, 1, 2, 7, 9]]] * (FEW + 2)), classes=3)
    assert {value: len(where) for value, where in found.strange.items()} == {7: FEW, 9: FEW}
    words = only(found)
    assert "hold the values 7, 9, which are no class. Expected 0-2, 255; see e.g. 0.png" in words
    assert "Save these pixels as 255 if they are not to count, or name them in classes.txt" in words


def test_labels_that_are_all_ignored():
    words = only(census(samples([[0, 1]], [[255]])))
    assert words.startswith("1 label without a pixel that counts, only 255: 1.png.")
    words = only(census(samples([[255]], [[255, 255]]), classes=4))
    assert words.startswith("All 2 labels without a pixel that counts")


def test_classes_that_never_occur():
    words = only(census(samples([[0, 2]], classes=("a", "b", "c", "d")), classes=4))
    assert words.startswith("2 of 4 classes never occur and cannot be learned: b (1), d (3).")
    assert census(samples([[0, 2]])).absent == (1,)
    words = census(samples([[0, 11]])).problems()[0]
    assert "class 1 (1), " in words
    assert "class 8 (8) and 2 more" in words


def test_one_class_alone_is_a_problem():
    words = census(samples([[1, 255]], classes=("a", "b")), classes=2).problems()
    assert words[0].startswith("Every pixel that counts has the id 1 (b): there is nothing to tell")


def folder(root, *labels, classes):
    """A folder as users make it, with masks of any values."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for i, label in enumerate(labels):
        Image.new("RGB", (len(label[0]), len(label))).save(root / "images" / f"{i}.jpg")
        Image.fromarray(np.array(label, np.uint8)).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(classes))
    return open_dataset(root).samples


def test_masks_that_begin_at_one(tmp_path):
    """Values 0 to C of which 0 is no class, as ADE20K's, in a folder whose list has C names."""
    made = folder(tmp_path, [[0, 1, 2, 3]], [[1, 2, 2, 2]], classes=("wall", "sky", "tree"))
    found = census(made, classes=3)
    assert found.strange == {3: ("0.jpg",)}
    assert found.counted == 1
    strange, shifted = found.problems()
    assert "the value 3, which is no class. Expected 0-2, 255; see e.g. 0.jpg" in strange
    assert shifted.startswith("The ids seem to begin at 1.")
    assert "save 0 as 255 and every other id one lower" in shifted
    words = only(census(samples([[1, 2, 3]])))  # where no list says how many classes there are
    assert words.startswith("The ids seem to begin at 1.")


def test_a_folder_in_order_keeps_its_names(tmp_path):
    made = folder(tmp_path, [[0, 1, 2, 255]], classes=("wall", "sky", "tree"))
    found = census(made, classes=3)
    assert found.names == ("wall", "sky", "tree")
    assert found.problems() == []


def test_ade20k_in_its_own_folders_and_after_another_program_shifted_it(tmp_path):
    root = plant("ade20k", tmp_path, images=2, size=(8, 12), splits=["val"])
    found = census(open_dataset(root, split="val").samples, classes=150)
    assert not found.strange
    assert found.ignored > 0
    assert only(found).startswith("144 of 150 classes never occur")  # six are planted
    path = next(root.rglob("annotations/validation/*.png"))
    Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(path)  # 0 becomes 255
    found = census(open_dataset(root, split="val").samples, classes=150)
    assert list(found.strange) == [255]
    words = only(found)
    assert "Expected 0-150; see" in words
    assert "In this data set 255 does not mean ignore" in words
