"""Cells that are fitted on one split and scored on another."""

import dataclasses
import json

import pytest

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.experiments import run as experiment_run
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.jobs.experiments.run import run
from zerolabel.jobs.fit import Options, fit
from zerolabel.jobs.predict import predict

ALONE = Cell(
    data="camvid",
    split="val",
    method="kmeans",
    preset="protocol",
    backbone="random-vitt16",
    settings={"size": (64, 64), "k": 3, "restarts": 1},
)
APART = dataclasses.replace(ALONE, train="train")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return {"camvid": plant("camvid", tmp_path_factory.mktemp("data"), images=2, size=(64, 64))}


def experiment(*cells, **rest):
    return Experiment(title="a test", cells=cells, **rest)


def test_names_of_cells_without_a_split_to_fit_on_are_those_of_before_there_was_one():
    assert "train" not in ALONE.facts()
    start = "camvid-val-kmeans-protocol-random-vitt16"
    settings = "size-64-64-k3-restarts1"
    assert ALONE.name == f"{start}-full-{settings}-seed0-0f7461f4"
    assert ALONE.run == f"{start}-{settings}-seed0-88d3cff2"
    assert ALONE.row == f"{start}-full-{settings}-aa8e1cad"


def test_the_split_to_fit_on_decides_a_cell():
    cells = [ALONE, APART, dataclasses.replace(ALONE, train="train:24")]
    for name in ("name", "run", "row"):
        assert len({getattr(cell, name) for cell in cells}) == 3
    assert APART.facts()["train"] == "train"
    assert "from-train" in APART.name


def test_cells_share_a_fit_where_they_differ_in_what_is_predicted_and_scored():
    same = {"split": "test", "space": "camvid11", "protocol": "datus"}
    other = {
        "train": "train:24",
        "geometry": "picie-320",
        "method": "datus",
        "preset": "default",
        "backbone": "embedded",
        "settings": {},
        "seed": 1,
        "data": "voc",
    }
    assert {dataclasses.replace(APART, **{k: v}).fit for k, v in same.items()} == {APART.fit}
    changed = [dataclasses.replace(APART, **{k: v}).fit for k, v in other.items()]
    assert len({APART.fit, *changed}) == 1 + len(other)


def test_what_is_scored_was_predicted_by_a_model_of_the_other_split(places, tmp_path):
    [(_, found)] = run(experiment(APART), places, tmp_path / "out").results
    root, settings = places["camvid"], {**APART.settings, "seed": 0}
    options = Options(
        method="kmeans",
        preset="protocol",
        backbone="random-vitt16",
        split="train",
        settings=settings,
    )
    fit(root, tmp_path / "model", options=options)
    predict(tmp_path / "model", root, tmp_path / "run", split="val")
    assert found["counts"] == evaluate(tmp_path / "run", root, split="val")["counts"]
    assert found["split"] == "val"
    model, apart = (
        tmp_path / "out" / part for part in (f"models/{APART.fit}", f"runs/{APART.run}")
    )
    assert sorted(json.loads((model / "cache" / "data.json").read_text())) == [
        sample.id for sample in open_dataset(root, split="train").samples
    ]
    assert not (model / "masks").exists()
    tensors = [
        json.loads((place / "model.json").read_text())["tensors"] for place in (model, apart)
    ]
    assert tensors[0] == tensors[1]


def test_one_fit_serves_all_that_is_predicted_and_scored(places, tmp_path, monkeypatch):
    changes = ({}, {"split": "test"}, {"protocol": "datus"}, {"seed": 1})
    cells = [dataclasses.replace(APART, **change) for change in changes]
    found = run(experiment(*cells), places, tmp_path)
    assert not found.failures
    assert {p.name for p in (tmp_path / "models").iterdir()} == {APART.fit, cells[3].fit}
    assert len(list((tmp_path / "runs").iterdir())) == 3

    def never(*args, **options):
        raise AssertionError("it is done")

    monkeypatch.setattr(experiment_run, "fit", never)
    monkeypatch.setattr(experiment_run, "predict", never)
    assert run(experiment(*cells), places, tmp_path).results == found.results


def test_features_of_both_splits_are_computed_once_for_all_cells(places, tmp_path):
    cells = [
        dataclasses.replace(APART, settings={**APART.settings, "k": k}, split=split)
        for k in (2, 3)
        for split in ("val", "train")
    ]
    run(experiment(*cells[:1]), places, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}
    run(experiment(*cells), places, tmp_path)
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}
    assert before
    assert now == before
    assert not any(tmp_path.glob("*/*/cache/tokens"))


def test_it_goes_on_after_an_interruption_between_fit_and_masks(places, tmp_path, monkeypatch):
    whole = run(experiment(APART), places, tmp_path / "whole").results

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment_run, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(experiment(APART), places, tmp_path / "cut")
    model = tmp_path / "cut" / "models" / APART.fit / "model.safetensors"
    before = model.read_bytes()
    [(_, found)] = run(experiment(APART), places, tmp_path / "cut").results
    assert model.read_bytes() == before
    assert found["counts"] == whole[0][1]["counts"]


def test_a_split_that_is_not_there_fails_its_cell_only(places, tmp_path):
    wrong = dataclasses.replace(APART, train="trian")
    found = run(experiment(wrong, ALONE), places, tmp_path)
    assert "trian" in found.failures[wrong.name]
    assert [cell for cell, _ in found.results] == [ALONE]


@pytest.mark.parametrize("change", [{"method": "", "protocol": "jaccard"}, {"method": "mine"}])
def test_what_is_not_fitted_has_no_split_to_fit_on(change, places, tmp_path):
    cell = dataclasses.replace(APART, **change)
    with pytest.raises(UsageError, match="not fitted"):
        run(experiment(cell, makers={"mine": print}), places, tmp_path / "out")
    assert not (tmp_path / "out").exists()
