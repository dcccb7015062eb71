"""The mean and deviation of runs that differ in their seed."""

import json
from statistics import mean, stdev

import numpy as np
import pytest
from scored_runs import PREDICTED, says, write_data, write_run

from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.scoring.seeds import SCORES, evaluate_seeds

OTHER = PREDICTED | {"a": np.zeros((3, 4), int)}


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def runs(tmp_path):
    made = [write_run(tmp_path / f"run{i}", p) for i, p in enumerate((PREDICTED, OTHER, OTHER))]
    return [says(run, k=3, seed=seed) for seed, run in enumerate(made)]


def test_mean_and_deviation_of_every_score(runs, data, tmp_path):
    result = evaluate_seeds(runs, data, out=tmp_path / "means")
    single = [evaluate(run, data) for run in runs]
    for key in SCORES:
        values = [one[key] for one in single]
        expected = {"mean": mean(values), "std": stdev(values), "per_seed": values}
        assert result[key] == expected
    assert result["seeds"] == [0, 1, 2]
    assert (result["clusters"], result["classes"], result["images"]) == ([3, 3, 3], 3, 2)
    assert result["data_hash"] == single[0]["data_hash"]
    assert [run["run"] for run in result["runs"]] == [str(run) for run in runs]
    assert json.loads((tmp_path / "means/evaluation-full.json").read_text()) == result
    assert (runs[2] / "evaluation-full.json").exists()


def test_runs_that_do_not_tell_their_seed(data, tmp_path):
    runs = [write_run(tmp_path / name, PREDICTED) for name in "ab"]
    result = evaluate_seeds(runs, data)
    assert result["seeds"] == [None, None]
    assert result["miou"]["std"] == 0


def test_runs_that_differ_in_more_than_the_seed(runs, data):
    says(runs[1], k=5, seed=1, refine="guided")
    with pytest.raises(UsageError, match=r"run0 and .*run1 differ in k, refine\."):
        evaluate_seeds(runs, data)


def test_runs_of_one_seed(runs, data):
    with pytest.raises(UsageError, match="seeds 0, 1, 1"):
        evaluate_seeds([*runs[:2], says(runs[2], k=3, seed=1)], data)


def test_runs_of_different_images(runs, data):
    (runs[1] / "masks/a.png").unlink()
    with pytest.raises(DataError, match="expected one list, found 2 and 1 of 2"):
        evaluate_seeds(runs, data)
