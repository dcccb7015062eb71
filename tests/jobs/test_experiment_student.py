"""Cells whose masks are refined by a student before they are scored."""

import dataclasses
import json

import pytest

from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.experiments import run as experiment_run
from zerolabel.jobs.experiments import students
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.jobs.experiments.run import run
from zerolabel.jobs.experiments.table import layout, rows_of
from zerolabel.jobs.fit import Options
from zerolabel.jobs.refine import refine
from zerolabel.jobs.segment import segment

pytestmark = pytest.mark.usefixtures("small_worlds")
TINY = {"iterations": 2, "base": 4, "depth": 2, "size": (32, 32)}
ALONE = Cell(
    data="camvid",
    split="val",
    method="kmeans",
    preset="protocol",
    backbone="random-vitt16",
    settings={"size": (64, 64), "k": 3, "restarts": 1},
)
TAUGHT = dataclasses.replace(ALONE, student="unet", student_settings=TINY)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return {"camvid": plant("camvid", tmp_path_factory.mktemp("data"), images=2, size=(64, 64))}


def experiment(*cells, **rest):
    return Experiment(title="a test", cells=cells, **rest)


def test_names_of_cells_without_a_student_are_those_of_before_there_was_one():
    assert not {"student", "student_settings"} & set(ALONE.facts())
    start = "camvid-val-kmeans-protocol-random-vitt16"
    settings = "size-64-64-k3-restarts1"
    assert ALONE.name == f"{start}-full-{settings}-seed0-0f7461f4"
    assert ALONE.run == f"{start}-{settings}-seed0-88d3cff2"
    assert ALONE.row == f"{start}-full-{settings}-aa8e1cad"


def test_the_student_and_its_settings_decide_a_cell():
    other = dataclasses.replace(TAUGHT, student_settings=TINY | {"iterations": 3})
    cells = [ALONE, TAUGHT, other, dataclasses.replace(TAUGHT, student="light")]
    for name in ("name", "run", "row"):
        assert len({getattr(cell, name) for cell in cells}) == 4
    assert "by-unet" in TAUGHT.run
    assert {cell.unrefined.run for cell in cells} == {ALONE.run}
    fitted = [dataclasses.replace(cell, train="train") for cell in cells]
    assert len({cell.fit for cell in fitted}) == 1


def test_what_is_scored_are_the_masks_of_the_student(places, tmp_path):
    [(_, found)] = run(experiment(TAUGHT), places, tmp_path / "out").results
    root = places["camvid"]
    options = Options(
        method="kmeans",
        preset="protocol",
        backbone="random-vitt16",
        split="val",
        settings={**ALONE.settings, "seed": 0},
    )
    segment(root, tmp_path / "run", options=options, report=False)
    refine(tmp_path / "run", tmp_path / "refined", student="unet", settings=TINY, report=False)
    alone = evaluate(tmp_path / "run", root, split="val")
    right = evaluate(tmp_path / "refined", root, split="val")
    assert found["counts"] == right["counts"] != alone["counts"]
    made = json.loads((tmp_path / "out/runs" / TAUGHT.run / "run.json").read_text())
    assert made["job"]["method"] == "unet"
    assert made["data_split"] == "val"


def test_the_run_is_shared_with_the_cell_without_a_student(places, tmp_path, monkeypatch):
    cells = [ALONE, TAUGHT, dataclasses.replace(TAUGHT, protocol="datus")]
    found = run(experiment(*cells), places, tmp_path)
    assert not found.failures
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {ALONE.run, TAUGHT.run}

    def never(*args, **options):
        raise AssertionError("it is done")

    monkeypatch.setattr(experiment_run, "segment", never)
    monkeypatch.setattr(students, "refine", never)
    assert run(experiment(*cells), places, tmp_path).results == found.results


def test_seeds_and_other_masks_are_not_confused_in_what_runs_share(places, tmp_path):
    cells = [dataclasses.replace(TAUGHT, seed=seed) for seed in (0, 1)]
    both = run(experiment(*cells), places, tmp_path / "both").results
    for cell, result in both:
        [(_, alone)] = run(experiment(cell), places, tmp_path / f"{cell.seed}").results
        assert result["counts"] == alone["counts"]


def test_what_predict_wrote_is_refined_too(places, tmp_path):
    cell = dataclasses.replace(TAUGHT, train="train")
    [(_, found)] = run(experiment(cell), places, tmp_path).results
    assert found["split"] == "val"
    facts = json.loads((tmp_path / "runs" / cell.run / "run.json").read_text())["refined"]
    assert facts["run"] == str(tmp_path / "runs" / cell.unrefined.run)


def test_the_student_stands_in_the_table(places, tmp_path):
    both = experiment(ALONE, TAUGHT)
    rows = rows_of(both, run(both, places, tmp_path))
    _, header, lines = layout(both, rows)
    assert header[:2] == ["student", "student iterations"]
    assert [line[:2] for line in lines] == [["-", "-"], ["unet", "2"]]
    assert not any("student" in name for row in rows_of_alone(places, tmp_path) for name in row)


def rows_of_alone(places, out):
    alone = experiment(ALONE)
    return [row.facts for row in rows_of(alone, run(alone, places, out))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student": "unit"}, "Unknown student 'unit'. Did you mean 'unet'"),
        ({"student_settings": {"iteration": 3}}, "Did you mean 'iterations'"),
        ({"student": None}, "and no student"),
        ({"method": "", "protocol": "jaccard"}, "refines masks, and protocol jaccard judges"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(change, said, places, tmp_path):
    cell = dataclasses.replace(TAUGHT, **change)
    with pytest.raises(UsageError, match=said):
        run(experiment(cell), places, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_of_another_k_fails_its_cell_only(places, tmp_path):
    wrong = dataclasses.replace(TAUGHT, student_settings=TINY | {"k": 5})
    found = run(experiment(wrong, TAUGHT), places, tmp_path)
    assert "expected k=3" in found.failures[wrong.name]
    assert [cell for cell, _ in found.results] == [TAUGHT]
