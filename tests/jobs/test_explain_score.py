"""The same masks under each rule."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scored_runs import PREDICTED, write_data, write_run

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.evaluation.explain import RULES
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.scoring.explain import explain_score

FIVE = {  # clusters 0..4 in the images of PREDICTED; 3 and 4 are parts of 1 and 2
    "a": [[1, 1, 3, 3], [1, 1, 2, 4], [0, 0, 4, 255]],
    "deep/b": [[1, 0, 0, 3], [2, 2, 4, 0], [0, 0, 1, 1]],
}
SAME = {  # (rule, value) -> the protocol that differs from full in that rule alone
    ("matching", "majority"): "over-clustering",
    ("matching", "majority-iou"): "over-clustering-iou",
    ("background", "ignored"): "full-nobg",
    ("protocol", "full"): "full",
}


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", FIVE, categories=5)


def test_rows_are_what_the_protocols_say(run, data):
    result = explain_score(run, data)
    rows = {(row["rule"], row["value"]): row for row in result["rows"]}
    for key, protocol in SAME.items():
        single = evaluate(run, data, protocol=protocol)
        for score in ("miou", "pixel_accuracy", "classes", "floor"):
            assert rows[key][score] == single[score], (key, score)
    own = evaluate(run, data)["miou"]
    assert all(row["miou_difference"] == row["miou"] - own for row in result["rows"])
    assert rows["matching", "hungarian-extra"]["miou_difference"] == 0
    assert rows["matching", "drop-unmatched"]["miou_difference"] > 0
    assert json.loads((run / "explain-full.json").read_text()) == result


def test_every_rule_that_can_be_changed_is_shown(run, data):
    save_file({"centroids": np.arange(5, dtype=np.float32)[:, None]}, run / "model.safetensors")
    rows = [(row["rule"], row["value"]) for row in explain_score(run, data)["rows"]]
    assert rows == [
        ("protocol", "full"),
        *(
            ("matching", name)
            for name in (
                "hungarian-iou",
                "majority",
                "majority-iou",
                "hungarian-extra",
                "drop-unmatched",
                "nearest",
            )
        ),
        ("absent", "zero"),
        ("absent", "gt-only"),
        ("ignore", "void-and-unlabelled"),
        ("background", "ignored"),
        ("geometry", "picie-320"),
        ("geometry", "stego-320"),
        ("geometry", "transfgu"),
    ]
    assert {rule for rule, _ in rows} - {"protocol"} == set(RULES) - {"match_on"}


def test_what_does_not_suit_is_left_out(tmp_path, data):
    (data / "classes.txt").write_text("sky\ncat\ndog\n")  # no background
    run = write_run(tmp_path / "run", PREDICTED)  # as many categories as classes, and no model
    rows = [(row["rule"], row["value"]) for row in explain_score(run, data)["rows"]]
    assert ("matching", "identity") in rows
    assert ("matching", "nearest") not in rows
    [named] = [r for r in explain_score(run, data)["rows"] if r["value"] == "identity"]
    assert named["miou"] == evaluate(run, data, protocol="classes")["miou"]
    assert not {rule for rule, _ in rows} & {"background", "match_on"}


def test_masks_of_a_geometry_are_only_looked_at_through_it(tmp_path, data):
    square = {name: np.zeros((320, 320)) for name in PREDICTED}
    run = write_run(tmp_path / "run", square, categories=5)
    rows = explain_score(run, data, protocol="picie-320")["rows"]
    assert "geometry" not in [row["rule"] for row in rows]


def test_the_first_row_is_the_protocol_whichever_it_is(run, data):
    for name in ("datus", "picie-320", "over-clustering"):
        result = explain_score(run, data, protocol=name)
        assert result["rows"][0]["miou"] == evaluate(run, data, protocol=name)["miou"]
        assert result["rows"][0]["miou_difference"] == 0
        assert result["protocol"] == dataclasses.asdict(PROTOCOLS[name])


def test_matching_on_train_is_shown_where_there_is_a_run_of_it(tmp_path, data, run):
    root = tmp_path / "camvid"
    plant("camvid", root, images=2)
    here, there = (
        write_run(tmp_path / split, _masks(root, split, best), categories=11)
        for split, best in (("val", 2), ("train", 5))
    )
    rows = explain_score(here, root, matching_run=there)["rows"]
    [row] = [row for row in rows if row["rule"] == "match_on"]
    expected = evaluate(here, root, protocol="full-train", matching_run=there)
    assert (row["value"], row["miou"]) == ("train", expected["miou"])


def _masks(root, split, turn):
    """The labels of a split with their ids turned round."""
    return {
        sample.id.rpartition(".")[0]: (sample.load_label() % 11 + turn) % 11
        for sample in open_dataset(root, split=split).samples
    }
