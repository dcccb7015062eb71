import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.scores_by_sets import set_scores

from zerolabel.data.benchmarks import open_dataset
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.evaluate import evaluate

DATA = os.environ.get("ZEROLABEL_DATA")

TRUTH = {
    "a": [[0, 0, 0, 0], [0, 0, 0, 1], [2, 2, 1, 1]],
    "deep/b": [[0, 0, 255, 255], [1, 1, 1, 2], [2, 2, 2, 255]],
}
# categories 0, 1, 2 stand for classes 2, 0, 1; some pixels are wrong, some have none
PREDICTED = {
    "a": [[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 2, 255]],
    "deep/b": [[1, 0, 0, 1], [2, 2, 2, 0], [0, 0, 1, 1]],
}


def save(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(ids, np.uint8)).save(path)


def write_run(run, predicted, *, categories=3):
    for name, ids in predicted.items():
        save(run / "masks" / f"{name}.png", ids)
    listed = [{"id": k, "name": f"category {k}"} for k in range(categories)]
    (run / "categories.json").write_text(json.dumps({"categories": listed}))
    return run


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    for name, ids in TRUTH.items():
        save(root / "masks" / f"{name}.png", ids)
        path = root / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


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
    assert set(result["protocol"]) >= {"geometry", "matching", "absent", "unlabelled", "background"}
    assert (result["dataset"], result["split"]) == ("data", "all")
    assert (result["images"], result["labelled_images"], result["missing"]) == (2, 2, [])
    assert (result["clusters"], result["classes"], result["ignored_ids"]) == (3, 3, [255])
    assert result["data_hash"] == hashlib.sha256(b"a.jpg\ndeep/b.jpg").hexdigest()


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
    with pytest.raises(DataError, match=r"^deep/b\.jpg: .*expected .*\(3, 4\), found \(1, 2\)"):
        evaluate(run, data)


def test_unknown_protocols_are_named(run, data):
    with pytest.raises(UsageError, match="Did you mean 'full'"):
        evaluate(run, data, protocol="ful")


def test_the_background_must_be_there_to_be_ignored(run, data):
    (data / "classes.txt").write_text("sky\ncat\ndog\n")
    with pytest.raises(UsageError, match=r"found 'sky' in data\. Use the protocol full"):
        evaluate(run, data, protocol="full-nobg")


def test_folders_without_ground_truth_are_an_error(run, data):
    with pytest.raises(DataError, match="not a labelled data set"):
        evaluate(run, data / "images")


def test_a_benchmark_without_its_labels_is_an_error(run, tmp_path):
    Image.new("RGB", (4, 3)).save(_made(tmp_path / "CamVid/val") / "a.png")
    _made(tmp_path / "CamVid/valannot")
    with pytest.raises(DataError, match=r"None of the 1 images of camvid11 val .* has a label"):
        evaluate(run, tmp_path)


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
