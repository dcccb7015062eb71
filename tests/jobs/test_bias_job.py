import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.preferences import space_curve
from scored_runs import PREDICTED, TRUTH, save, write_data, write_run

from zerolabel.errors import UsageError
from zerolabel.evaluation.bias import class_preference, distances
from zerolabel.jobs.scoring.bias import bias

MATCHED = {0: 2, 1: 0, 2: 1, 255: 255}  # of PREDICTED


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", PREDICTED)


def arrays():
    for name, truth in TRUTH.items():
        yield np.array(truth), np.vectorize(MATCHED.get)(np.array(PREDICTED[name]))


def test_clusters_are_matched_and_both_preferences_measured(run, data):
    result = bias(run, data, bins=3)
    counts = np.zeros((3, 4), np.int64)
    for truth, prediction in arrays():
        for c, p in zip(truth.ravel(), prediction.ravel(), strict=True):
            if c < 3:
                counts[c, min(p, 3)] += 1
    assert result["confusion"] == counts.tolist()
    expected = class_preference(counts)
    assert result["class_preference"]["score"] == pytest.approx(expected.score)
    per_class = result["class_preference"]["per_class"]
    assert [entry["name"] for entry in per_class] == ["background", "cat", "dog"]
    reach = max(np.nanmax(distances(truth, 3)) for truth, _ in arrays())
    space = result["space_preference"]
    assert space["reach"] == pytest.approx(reach)
    miou, objects = space_curve(list(arrays()), 3, bins=3, reach=reach)
    assert [entry["miou"] for entry in space["curve"]] == pytest.approx(miou)
    assert [entry["objects"] for entry in space["curve"]] == objects


def test_result_and_page_are_kept(run, data):
    result = bias(run, data)
    assert json.loads((run / "bias-full.json").read_text()) == result
    assert result["protocol"]["id"] == "full"
    assert (result["clusters"], result["classes"], result["images"]) == (3, 3, 2)
    page = (run / "bias-full.html").read_text()
    assert page.count("<svg") >= 2
    assert "half diagonals" in page
    assert "background" in page


def test_classes_that_are_known_by_name_are_not_matched(data, tmp_path):
    """Category k is the k-th class after the background, which is not scored."""
    named = {name: np.array(ids) - 1 for name, ids in TRUTH.items()}
    masks = {name: np.where((ids < 0) | (ids > 1), 255, ids) for name, ids in named.items()}
    run = write_run(tmp_path / "named", masks, categories=2)
    result = bias(run, data, protocol="reclip")
    assert result["class_preference"]["score"] == 1
    assert [entry["id"] for entry in result["class_preference"]["per_class"]] == [1, 2]
    assert result["space_preference"]["score"] == 0
    assert (run / "bias-reclip.json").is_file()


def test_one_object_in_the_middle_has_no_slope(tmp_path):
    data, run = tmp_path / "one", tmp_path / "run"
    save(data / "masks" / "a.png", [[255, 1, 255]])
    (data / "images").mkdir()
    Image.new("RGB", (3, 1)).save(data / "images" / "a.jpg")
    (data / "classes.txt").write_text("sky\ncat\n")
    write_run(run, {"a": [[0, 0, 0]]}, categories=1)
    result = bias(run, data)
    assert result["space_preference"]["score"] is None
    assert result["space_preference"]["trend"] is None
    assert result["class_preference"]["per_class"][0]["score"] is None
    assert (run / "bias-full.html").is_file()


def test_bad_input(run, data):
    with pytest.raises(UsageError, match="2 bins"):
        bias(run, data, bins=1)
    with pytest.raises(UsageError, match="Did you mean"):
        bias(run, data, protocol="fulll")
    with pytest.raises(UsageError, match="not the masks"):
        bias(run, data, protocol="bsds")


@pytest.mark.skipif("ZEROLABEL_DATA" not in os.environ, reason="needs real data")
def test_true_labels_have_no_bias(tmp_path):
    root = Path(os.environ["ZEROLABEL_DATA"]) / "voc"
    source = root / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    names = (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").read_text().split()[:20]
    run = write_run(
        tmp_path / "run",
        {n: np.array(Image.open(source / f"{n}.png")) for n in names},
        categories=21,
    )
    result = bias(run, root, split="val")
    assert result["class_preference"]["score"] == 1
    assert result["space_preference"]["score"] == pytest.approx(0, abs=1e-12)
