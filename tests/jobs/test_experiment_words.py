"""Cells of methods with words: their own backbone, what they prefer, what they have taught."""

from dataclasses import replace

import pytest

from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.evaluation.spread import spread
from zerolabel.jobs.experiments import run as experiment_run
from zerolabel.jobs.experiments.cells import Cell, Experiment, Outcome
from zerolabel.jobs.experiments.run import check, run
from zerolabel.jobs.experiments.table import PREFERENCES, layout, measures, rows_of, written
from zerolabel.jobs.scoring.bias import bias

WORDS = Cell(
    data="camvid",
    split="val",
    method="maskclip",
    preset="protocol",
    backbone="random-clipt16",
    settings={"classes": "camvid11", "short": 32, "templates": "plain"},
    protocol="reclip",
)
TAUGHT = replace(
    WORDS,
    train="train",
    method="maskclip+",
    settings=WORDS.settings
    | {"student": "small", "student_steps": 2, "crop": 32, "views": 1, "batch": 2},
)
PROBED = replace(
    TAUGHT, protocol="maskcontrast-linear", probe={"size": (64, 64), "epochs": 1, "batch": 2}
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return {"camvid": plant("camvid", tmp_path_factory.mktemp("data"), images=4, size=(64, 64))}


def experiment(*cells, **rest):
    return Experiment(title="a test", cells=cells, **rest)


def test_auto_is_the_backbone_of_the_method(monkeypatch):
    asked = []

    def load(name, weights, device):
        asked.append(name)

    monkeypatch.setattr(experiment_run, "_load", load)
    words = replace(WORDS, backbone="auto")
    others = replace(words, method="kmeans", settings={"k": 3}, protocol="full")
    check(experiment(words, others, TAUGHT), weights=None, device="cpu")
    assert asked == ["clip-vitb16", "auto", "random-clipt16"]
    asked.clear()
    check(experiment(words), weights="some.safetensors", device="cpu")
    assert asked == ["auto"]  # the file decides
    with pytest.raises(UsageError, match="Unknown setting"):
        check(experiment(replace(words, settings={"k": 3})), weights=None, device="cpu")


def test_preferences_are_measured_where_the_table_has_them(places, tmp_path):
    alone = run(experiment(WORDS), places, tmp_path)
    assert not set(PREFERENCES) & set(alone.results[0][1])
    wanted = experiment(WORDS, metrics=("miou", *PREFERENCES))
    found = run(wanted, places, tmp_path)  # done before, but without them
    [(cell, result)] = found.results
    again = bias(tmp_path / "runs" / cell.run, places["camvid"], protocol="reclip", split="val")
    assert {name: result[name] for name in PREFERENCES} == {n: again[n] for n in PREFERENCES}
    assert result["miou"] == alone.results[0][1]["miou"]
    [row] = rows_of(wanted, found)
    for name in PREFERENCES:
        assert row.scores[name].mean == pytest.approx(again[name]["score"])
    assert run(wanted, places, tmp_path).results == found.results


def test_preferences_are_no_percent_and_have_two_digits():
    result = {"images": 3, "miou": 0.5, "class_preference": {"score": 0.294}}
    result |= {"space_preference": {"score": None}}  # where only one bin holds objects
    assert measures(result) == {"miou": [50], "class_preference": [0.294]}
    assert written(spread([0.294]), "class_preference") == "0.29"
    made = experiment(WORDS, metrics=("miou", *PREFERENCES))
    _, header, [line] = layout(made, rows_of(made, Outcome([(WORDS, result)], {})))
    assert header[1:] == [
        "mIoU",
        "class preference (-1..1)",
        "space preference (mIoU per half diagonal)",
    ]
    assert line[1:] == ["50.0", "0.29", "-"]


def test_settings_are_written_with_the_digits_that_matter():
    cells = [replace(WORDS, settings={"none": value}) for value in (1 / 6, 0.99992, 1.0)]
    made = experiment(*cells)
    rows = rows_of(made, Outcome([(cell, {"images": 1, "miou": 0.0}) for cell in cells], {}))
    assert [row.facts["none"] for row in rows] == ["0.166667", "0.99992", "1"]


def test_a_probe_decides_a_cell_and_not_its_model():
    assert "probe" not in TAUGHT.facts()
    assert PROBED.fit == TAUGHT.fit
    other = replace(PROBED, probe={"epochs": 2})
    assert len({TAUGHT.name, PROBED.name, other.name}) == 3
    assert len({TAUGHT.run, PROBED.run, other.run}) == 3


def test_what_was_taught_is_probed_once_it_is_fitted(places, tmp_path, monkeypatch):
    fitted = []
    job = experiment_run.fit

    def counted(*args, **options):
        fitted.append(args[1])
        return job(*args, **options)

    monkeypatch.setattr(experiment_run, "fit", counted)
    found = run(experiment(TAUGHT, PROBED), places, tmp_path)
    assert not found.failures
    result = found.results[1][1]
    assert result["protocol"]["id"] == "maskcontrast-linear"
    assert result["space"] == "camvid11"
    assert len(set(fitted)) == 1
    assert (tmp_path / "runs" / PROBED.run / "evaluation-maskcontrast-linear.json").exists()
    [_, row] = rows_of(experiment(TAUGHT, PROBED), found)
    assert row.scores["miou"].mean == 100 * result["miou"]["mean"]


def test_a_probe_judges_features_and_nothing_else(places, tmp_path):
    for wrong in (replace(PROBED, protocol="reclip"), replace(PROBED, probe=None)):
        with pytest.raises(UsageError, match="judges"):
            run(experiment(wrong), places, tmp_path)


def test_a_method_without_a_student_cannot_be_probed(places, tmp_path):
    plain = replace(PROBED, method="maskclip", settings=WORDS.settings)
    found = run(experiment(plain), places, tmp_path)
    assert "holds no student" in found.failures[plain.name]
