"""Cells: each is run once, failures are listed, and features are shared."""

import dataclasses
import json

import pytest

from zerolabel.data.planted import plant
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.experiments import run as experiment_run
from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote
from zerolabel.jobs.experiments.run import run

TINY = Cell(
    data="camvid",
    split="val",
    method="kmeans",
    preset="protocol",
    backbone="random-vitt16",
    settings={"size": (64, 64), "k": 3, "restarts": 1},
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return {"camvid": plant("camvid", tmp_path_factory.mktemp("data"), images=2, size=(64, 64))}


def with_settings(cell, **settings):
    return dataclasses.replace(cell, settings={**cell.settings, **settings})


def experiment(*cells, **rest):
    return Experiment(title="a test", cells=cells, **rest)


@pytest.fixture
def calls(monkeypatch):
    """How often each job was called."""
    counts = {"segment": 0, "evaluate": 0}

    def counted(name, job):
        def call(*args, **options):
            counts[name] += 1
            return job(*args, **options)

        return call

    for name in counts:
        monkeypatch.setattr(experiment_run, name, counted(name, getattr(experiment_run, name)))
    return counts


def test_names_follow_all_that_decides_a_cell_and_nothing_else():
    changes = {
        "split": "test",
        "space": "camvid11",
        "geometry": "picie-320",
        "preset": "default",
        "backbone": "embedded",
        "settings": {},
        "seed": 1,
        "protocol": "datus",
    }
    cells = [TINY, *(dataclasses.replace(TINY, **{key: value}) for key, value in changes.items())]
    assert len({cell.name for cell in cells}) == len(cells)
    assert dataclasses.replace(TINY, quote=Quote("a", "b", "c")).name == TINY.name
    scoring = [dataclasses.replace(TINY, **{key: changes[key]}) for key in ("space", "protocol")]
    assert {cell.run for cell in scoring} == {TINY.run}
    assert dataclasses.replace(TINY, seed=1).row == TINY.row


def test_a_name_is_a_file_name_however_long_the_settings():
    cell = with_settings(TINY, path="a/b:c", **{f"option{i}": i for i in range(99)})
    assert len(cell.name) < 100
    assert not set(cell.name) & set('/\\:*?"<>|')


def test_what_is_done_is_not_done_again(places, calls, tmp_path):
    both = experiment(TINY, dataclasses.replace(TINY, protocol="datus"))
    first = run(both, places, tmp_path)
    assert not first.failures
    assert calls == {"segment": 2, "evaluate": 2}
    runs = list((tmp_path / "runs").iterdir())
    assert [path.name for path in runs] == [TINY.run]
    again = run(both, places, tmp_path)
    assert calls == {"segment": 2, "evaluate": 2}
    assert again.results == first.results


def test_an_interrupted_experiment_goes_on(places, calls, tmp_path, monkeypatch):
    job = experiment_run.segment

    def interrupted(data, out, **options):
        if "seed1" in str(out):
            raise KeyboardInterrupt
        return job(data, out, **options)

    monkeypatch.setattr(experiment_run, "segment", interrupted)
    cells = experiment(TINY, dataclasses.replace(TINY, seed=1))
    with pytest.raises(KeyboardInterrupt):
        run(cells, places, tmp_path)
    monkeypatch.setattr(experiment_run, "segment", job)
    before = calls["segment"]
    assert len(run(cells, places, tmp_path).results) == 2
    assert calls["segment"] == before + 1


def test_features_are_computed_once_for_all_cells(places, tmp_path):
    cells = [with_settings(TINY, k=k) for k in (2, 3)]
    first = run(experiment(cells[0]), places, tmp_path)
    features = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}
    assert features
    both = run(experiment(*cells), places, tmp_path)
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}
    assert now == features
    assert not any((tmp_path / "runs").rglob("cache/tokens"))
    alone = run(experiment(cells[1]), places, tmp_path / "alone")
    scores = [found["counts"] for _, found in both.results]
    assert scores == [first.results[0][1]["counts"], alone.results[0][1]["counts"]]


def test_a_cell_that_fails_is_listed_and_the_rest_goes_on(places, tmp_path):
    many = with_settings(TINY, k=1000)
    elsewhere = dataclasses.replace(TINY, data="voc")
    found = run(experiment(many, elsewhere, TINY), places, tmp_path)
    assert [cell for cell, _ in found.results] == [TINY]
    assert "1000 categories" in found.failures[many.name]
    assert "voc is not there" in found.failures[elsewhere.name]


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "kmeens"},
        {"preset": "papr"},
        {"protocol": "half"},
        {"geometry": "round"},
        {"settings": {"kk": 3}},
        {"protocol": "jaccard"},
        {"method": ""},
        {"settings": {"restarts": -1}},
        {"method": "dino-attention", "backbone": "filterbank", "settings": {}},
    ],
)
def test_names_and_settings_are_checked_before_any_work(wrong, places, calls, tmp_path):
    cells = experiment(TINY, dataclasses.replace(TINY, **wrong))
    with pytest.raises(UsageError):
        run(cells, places, tmp_path / "out")
    assert calls == {"segment": 0, "evaluate": 0}
    assert not (tmp_path / "out").exists()


def test_settings_are_checked_without_the_weights_too(places, tmp_path):
    missing = dataclasses.replace(TINY, backbone="dino-vitb8")
    with pytest.raises(UsageError, match="Unknown setting"):
        run(experiment(with_settings(missing, kk=3)), places, tmp_path)
    assert "dino-vitb8" in next(iter(run(experiment(missing), places, tmp_path).failures.values()))


def test_one_weights_file_is_for_one_backbone(places, tmp_path):
    two = experiment(TINY, dataclasses.replace(TINY, backbone="dino-vits8"))
    with pytest.raises(UsageError, match="One weights file"):
        run(two, places, tmp_path, weights="file.pth")


def test_results_of_another_version_or_other_data_are_not_taken(places, calls, tmp_path):
    run(experiment(TINY), places, tmp_path)
    other = {"camvid": plant("camvid", tmp_path / "other", images=2, size=(64, 64), seed=1)}
    assert "other images" in run(experiment(TINY), other, tmp_path).failures[TINY.name]
    (tmp_path / "experiment.json").write_text(json.dumps({"zerolabel": "0.0.1"}))
    with pytest.raises(StoreError, match=r"zerolabel 0\.0\.1"):
        run(experiment(TINY), places, tmp_path)


def test_a_backbone_is_judged_without_a_run(places, tmp_path):
    cell = Cell(
        data="camvid",
        split="val",
        backbone="random-vitt16",
        settings={"size": (64, 64)},
        protocol="jaccard",
    )
    [(_, found)] = run(experiment(cell), places, tmp_path).results
    assert found["protocol"]["id"] == "jaccard"
    assert (tmp_path / "runs" / cell.run / "evaluation-jaccard.json").exists()


def test_a_maker_fills_the_run(places, tmp_path):
    made = []

    def maker(cell, root, out):
        made.append((cell, root, out))
        raise DataError("made nothing")

    cell = dataclasses.replace(TINY, method="mine", backbone="")
    found = run(experiment(cell, makers={"mine": maker}), places, tmp_path)
    assert found.failures == {cell.name: "made nothing"}
    assert made == [(cell, places["camvid"], tmp_path / "runs" / cell.run)]


def test_progress_says_which_cell_it_belongs_to(places, tmp_path):
    said = []
    run(experiment(TINY), places, tmp_path, progress=lambda *report: said.append(report))
    assert {work for work, _, _ in said} >= {"1/1 kmeans on camvid: masks"}
