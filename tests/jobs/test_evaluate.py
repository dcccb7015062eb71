import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.scores_by_sets import set_scores
from scored_runs import PREDICTED, TRUTH, save, write_data, write_run

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.evaluate import evaluate

DATA = os.environ.get("ZEROLABEL_DATA")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", PREDICTED)


def flat(maps, order=None):
    values = [value for name in TRUTH for row in maps[name] for value in row]
    return [order.get(value, value) for value in values] if order else values


def test_numbers_equal_sets_of_pixels(run, data):
    result = evaluate(run, data)
    per_class, right = set_scores(flat(TRUTH), flat(PREDICTED, {0: 2, 1: 0, 2: 1}), 3)
    found = [[entry[key] for key in ("iou", "accuracy", "f1")] for entry in result["per_class"]]
    np.testing.assert_allclose(found, per_class, rtol=1e-12)
    means = [result[key] for key in ("miou", "mean_accuracy", "mean_f1")]
    np.testing.assert_allclose(means, np.mean(per_class, axis=0), rtol=1e-12)
    assert result["pixel_accuracy"] == pytest.approx(right)
    assert [entry["class"] for entry in result["matching"]] == [2, 0, 1]
    assert [entry["clusters"] for entry in result["per_class"]] == [[1], [2], [0]]
    assert [entry["pixels"] for entry in result["per_class"]] == [9, 6, 6]


def test_result_says_what_was_scored_and_is_kept(run, data):
    result = evaluate(str(run), str(data))
    assert json.loads((run / "evaluation-full.json").read_text()) == result
    assert result["protocol"]["id"] == "full"
    assert set(result["protocol"]) >= {"geometry", "matching", "absent", "ignore", "background"}
    assert (result["dataset"], result["space"], result["split"]) == ("data", "data", "all")
    assert result["data_root"] == str(data.resolve())
    assert (result["run"], result["masks"]) == (None, "as made")
    assert (result["images"], result["labelled_images"], result["missing"]) == (2, 2, [])
    assert (result["clusters"], result["classes"], result["ignored_ids"]) == (3, 3, [255])
    assert result["data_hash"] == hashlib.sha256(b"a.jpg\ndeep/b.jpg").hexdigest()


def test_the_confusion_matrix_is_kept(run, data):
    result = evaluate(run, data)
    pairs = Counter(zip(flat(TRUTH), flat(PREDICTED), strict=True))
    expected = [[pairs[c, k] for k in (0, 1, 2, 255)] for c in range(3)]
    assert result["counts"] == expected
    assert evaluate(run, data, protocol="full-nobg")["counts"] == expected[1:]


def test_one_category_everywhere_stands_beside_the_score(run, data):
    # 9, 6 and 6 true pixels
    assert evaluate(run, data)["floor"] == {"miou": 9 / 21 / 3, "pixel_accuracy": 9 / 21}
    black = write_run(run.parent / "black", {k: np.zeros((3, 4)) for k in TRUTH})
    result = evaluate(black, data)
    assert result["floor"] == {key: result[key] for key in ("miou", "pixel_accuracy")}


def test_named_classes_are_taken_at_their_word_or_matched(run, data):
    named, full = (evaluate(run, data, protocol=name) for name in ("classes", "full"))
    per_class, right = set_scores(flat(TRUTH), flat(PREDICTED), 3)
    ious = [entry["iou"] for entry in named["per_class"]]
    np.testing.assert_allclose(ious, [scores[0] for scores in per_class])
    assert named["pixel_accuracy"] == pytest.approx(right)
    assert [entry["class"] for entry in named["matching"]] == [0, 1, 2]
    assert named["counts"] == full["counts"]
    assert full["pixel_accuracy"] > named["pixel_accuracy"]
    many = write_run(run.parent / "many", PREDICTED, categories=4)
    with pytest.raises(UsageError, match=r"expected 3 categories.*found 4"):
        evaluate(many, data, protocol="classes")
    assert evaluate(many, data)["clusters"] == 4


def test_protocols_differ_and_have_their_own_files(run, data):
    full, datus, nobg = (evaluate(run, data, protocol=p) for p in ("full", "datus", "full-nobg"))
    assert datus["pixel_accuracy"] > full["pixel_accuracy"]
    assert [entry["name"] for entry in nobg["per_class"]] == ["cat", "dog"]
    assert [entry["id"] for entry in nobg["per_class"]] == [1, 2]
    assert [entry["class"] for entry in nobg["matching"]] == [2, None, 1]
    assert nobg["classes"] == 2
    names = {path.name for path in run.glob("*.json")}
    assert names >= {"evaluation-full.json", "evaluation-datus.json", "evaluation-full-nobg.json"}


def test_classes_without_a_score_are_null(run, data):
    (data / "classes.txt").write_text("background\ncat\ndog\nunicorn\n")
    result = evaluate(run, data)
    assert result["per_class"][3]["iou"] is None
    assert "NaN" not in (run / "evaluation-full.json").read_text()


def test_missing_masks_are_listed_and_not_scored(run, data):
    (run / "masks/deep/b.png").unlink()
    result = evaluate(run, data)
    assert (result["images"], result["labelled_images"]) == (1, 2)
    assert result["missing"] == ["deep/b.jpg"]
    assert result["data_hash"] == hashlib.sha256(b"a.jpg").hexdigest()
    assert sum(entry["pixels"] for entry in result["per_class"]) == 12


def test_images_without_labels_are_not_asked_for(run, data):
    Image.new("RGB", (4, 3)).save(data / "images" / "new.jpg")
    assert evaluate(run, data)["labelled_images"] == 2


def test_a_run_without_any_mask_of_the_data_is_an_error(tmp_path, data):
    run = write_run(tmp_path / "other", {"x": [[0]], "y/a.jpg": [[0]]})
    with pytest.raises(DataError, match=r"Expected masks such as a\.png, found 2 PNGs"):
        evaluate(run, data)


def test_a_run_on_a_folder_above_gives_the_same(tmp_path, run, data):
    # the masks were segmented too, as they lay in the same folder
    above = {f"images/{name}": ids for name, ids in PREDICTED.items()}
    above |= {f"masks/{name}": np.zeros((3, 4)) for name in PREDICTED}
    assert evaluate(write_run(tmp_path / "above", above), data) == evaluate(run, data)


def test_a_run_far_above_gives_the_same_where_the_data_have_moved(tmp_path, run, data):
    moved = {f"elsewhere/{name}": ids for name, ids in PREDICTED.items()}
    assert evaluate(write_run(tmp_path / "moved", moved), data) == evaluate(run, data)


def test_a_run_on_a_folder_below_scores_that_part(tmp_path, data):
    result = evaluate(write_run(tmp_path / "below", {"b": PREDICTED["deep/b"]}), data)
    assert result["missing"] == ["a.jpg"]


def test_a_mask_of_another_folder_is_not_taken(tmp_path, data):
    run = write_run(tmp_path / "run", {"a": PREDICTED["a"], "flat/b": PREDICTED["deep/b"]})
    assert evaluate(run, data)["missing"] == ["deep/b.jpg"]


def test_two_masks_for_one_image_are_an_error(tmp_path, data):
    twice = {"x/a": PREDICTED["a"], "y/a": PREDICTED["a"]}
    with pytest.raises(DataError, match=r"a\.jpg could have the masks x/a\.png, y/a\.png"):
        evaluate(write_run(tmp_path / "run", twice), data)


def test_two_images_for_one_mask_are_an_error(tmp_path, data):
    (data / "images/a.jpg").rename(data / "images/deep/a.jpg")
    (data / "masks/a.png").rename(data / "masks/deep/a.png")
    (data / "images/flat").mkdir()
    Image.new("RGB", (4, 3)).save(data / "images/flat/a.jpg")
    save(data / "masks/flat/a.png", TRUTH["a"])
    with pytest.raises(DataError, match=r"deep/a\.jpg and flat/a\.jpg could both have the mask"):
        evaluate(write_run(tmp_path / "run", {"a": PREDICTED["a"]}), data)


def test_masks_of_another_size_are_named(run, data):
    save(run / "masks/deep/b.png", [[0, 1]])
    with pytest.raises(DataError, match=r"deep/b\.png has .*expected .*\(3, 4\), found \(1, 2\)"):
        evaluate(run, data)


def test_masks_with_ids_of_no_category_are_named(run, data):
    save(run / "masks/deep/b.png", [[1, 0, 0, 1], [2, 2, 2, 255], [0, 9, 1, 1]])
    with pytest.raises(DataError, match=r"deep/b\.png holds ids .*expected 0-2, .*found 9"):
        evaluate(run, data)


def test_unknown_protocols_are_named(run, data):
    with pytest.raises(UsageError, match="Did you mean 'full'"):
        evaluate(run, data, protocol="ful")


def test_the_background_must_be_there_to_be_ignored(run, data):
    (data / "classes.txt").write_text("sky\ncat\ndog\n")
    with pytest.raises(UsageError, match=r"found 'sky'\. Use the protocol full"):
        evaluate(run, data, protocol="full-nobg")


def test_folders_without_ground_truth_are_an_error(run, data):
    with pytest.raises(DataError, match="not a labelled data set"):
        evaluate(run, data / "images")


def test_a_benchmark_without_its_labels_is_an_error(run, tmp_path):
    Image.new("RGB", (4, 3)).save(_made(tmp_path / "CamVid/val") / "a.png")
    _made(tmp_path / "CamVid/valannot")
    with pytest.raises(DataError, match=r"None of the 1 images of camvid val .* has a label"):
        evaluate(run, tmp_path)


def test_regions_without_classes_are_an_error(run, tmp_path):
    plant("bsds500", tmp_path / "bsds", images=1)
    with pytest.raises(DataError, match="regions that have no classes.*--protocol bsds"):
        evaluate(run, tmp_path / "bsds")


def _made(folder):
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"categories": []}',
        '{"categories": [{"id": 1, "name": "x"}]}',
        '{"categories": 3}',
    ],
)
def test_odd_categories_are_an_error(run, data, text):
    (run / "categories.json").write_text(text)
    with pytest.raises(StoreError, match="does not list the categories"):
        evaluate(run, data)


def test_a_folder_that_is_no_run_is_an_error(tmp_path, data):
    with pytest.raises(StoreError, match=r"categories\.json is not there"):
        evaluate(tmp_path, data)


def test_a_published_label_space_of_a_data_set(tmp_path):
    plant("voc", tmp_path / "data", images=2)
    truth = open_dataset(tmp_path / "data", space="voc20")
    masks = {Path(sample.id).stem: sample.load_label() for sample in truth.samples}
    run = write_run(tmp_path / "run", masks, categories=20)
    result = evaluate(run, tmp_path / "data", space="voc20", protocol="reclip")
    assert (result["dataset"], result["space"], result["classes"]) == ("voc", "voc20", 20)
    assert result["pixel_accuracy"] == 1
    absent = sum(entry["pixels"] == 0 for entry in result["per_class"])
    assert result["miou"] == pytest.approx((20 - absent) / 20)  # absent classes count 0
    assert (run / "evaluation-reclip-voc20.json").exists()
    # and so with the default label space, where the background is left out: category k is class k
    assert evaluate(run, tmp_path / "data", protocol="reclip")["miou"] == result["miou"]
    assert (run / "evaluation-reclip.json").exists()


@pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")
def test_real_labels_as_masks_score_one(tmp_path):
    root = Path(DATA) / "camvid"
    # class c becomes category 11 - c, ignored pixels become category 0
    truth = {
        f"val/{Path(sample.id).stem}": np.maximum(11 - sample.load_label().astype(int), 0)
        for sample in open_dataset(root).samples[:20]
    }
    result = evaluate(write_run(tmp_path / "run", truth, categories=12), root)
    assert (result["images"], result["labelled_images"]) == (20, 101)
    assert result["miou"] == result["pixel_accuracy"] == 1
    assert [entry["class"] for entry in result["matching"]][1:] == list(range(10, -1, -1))
