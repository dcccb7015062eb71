"""From results to a table: means over seeds, published values, csv, chart."""

import csv
import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from zerolabel.jobs.experiments.cells import Cell, Experiment, Outcome, Quote
from zerolabel.jobs.experiments.files import write_tables
from zerolabel.jobs.experiments.table import layout, measures, rows_of

CELL = Cell(data="voc", method="kmeans", backbone="embedded", settings={"k": 21})


def result(miou=0.25, *, images=5, clusters=21, **more):
    return {
        "protocol": {"id": "full"},
        "dataset": "voc",
        "space": "voc21",
        "split": "val",
        "images": images,
        "clusters": clusters,
        "classes": 21,
        "miou": miou,
        "pixel_accuracy": 0.5,
        **more,
    }


def test_cells_that_differ_in_their_seed_make_one_row():
    cells = [replace(CELL, seed=seed) for seed in range(3)]
    other = replace(CELL, settings={"k": 9})
    results = list(zip(cells, map(result, (0.1, 0.2, 0.3)), strict=True)) + [(other, result(0.4))]
    rows = rows_of(Experiment(title="t", cells=(*cells, other)), Outcome(results, {}))
    assert [row.scores["miou"].mean for row in rows] == pytest.approx([20, 40])
    assert rows[0].scores["miou"].std == pytest.approx(10)  # of a sample, n - 1
    assert rows[1].scores["miou"].std is None
    assert [row.facts["seeds"] for row in rows] == ["3", "1"]
    assert rows[0].facts["data"] == "voc21 val (5)"


def test_k_auto_shows_what_was_found():
    auto = replace(CELL, settings={"k": "auto"})
    cells = [replace(auto, seed=seed) for seed in range(2)]
    results = [(cell, result(clusters=3 + i)) for i, cell in enumerate(cells)]
    [row] = rows_of(Experiment(title="t", cells=tuple(cells)), Outcome(results, {}))
    assert row.facts["K"] == "auto: 3, 4"


def test_measures_of_every_kind_of_evaluation():
    assert measures(result(mean_f1=0.5)) == {"miou": [25], "pixel_accuracy": [50], "mf1": [50]}
    jaccard = {"protocol": {"id": "jaccard"}, "scores": {"jaccard": 0.4, "everything": 0.2}}
    assert measures(jaccard) == {"jaccard": [40]}
    probe = {"miou": {"mean": 0.2, "std": 0.1, "per_seed": [0.1, 0.3]}}
    assert measures(probe) == {"miou": [10, 30]}
    entries = [
        {"feature": feature, "k": k, "top1": score}
        for feature, k, score in (("cls", 10, 0.1), ("cls", 20, 0.5), ("mean_patch", 20, 0.9))
    ]
    assert measures({"scores": entries}) == {"top1": [50]}
    assert measures({"scores": entries[:1]}) == {"top1": [10]}
    assert measures({"covering": {"ods": 0.5}, "vi": {"ods": 1.5}}) == {
        "covering": [50],
        "vi": [1.5],
    }


@pytest.mark.parametrize(("images", "words"), [(50_000, "74.5"), (5, "74.5 (other data)")])
def test_a_published_value_stands_beside_ours(images, words):
    quote = Quote("dino", "README", "DINO", "ViT-S/16", 50_000)
    cell = Cell(data="imagenet", protocol="knn", backbone="dino-vits16", quote=quote)
    scores = [{"feature": "cls", "k": 20, "top1": 0.4}]
    found = {"protocol": {"id": "knn"}, "images": images, "scores": scores}
    experiment = Experiment(title="t", cells=(cell,), metrics=("top1",))
    rows = rows_of(experiment, Outcome([(cell, found)], {}))
    _, header, lines = layout(experiment, rows)
    assert header[-2:] == ["top-1", "published"]
    assert lines[0][-2:] == ["40.0", words]
    noted = replace(experiment, note="small")
    assert rows_of(noted, Outcome([(cell, found)], {}))[0].others


def test_a_quote_of_another_space_is_not_taken():
    quote = Quote("datus2", "", "DatUS2")
    cell = Cell(data="cocostuff", space="coco27", method="datus", protocol="datus", quote=quote)
    ours = result() | {"dataset": "cocostuff", "space": "coco27"}
    for space, count in (("coco27", 2), ("coco15", 0)):
        outcome = Outcome([(cell, ours | {"space": space})], {})
        [row] = rows_of(Experiment(title="t", cells=(cell,)), outcome)
        assert len(row.published) == count


def test_what_all_rows_share_stands_above_the_table():
    cells = tuple(replace(CELL, backbone=name) for name in ("embedded", "filterbank"))
    experiment = Experiment(title="t", cells=cells)
    rows = rows_of(experiment, Outcome([(cell, result()) for cell in cells], {}))
    shared, header, lines = layout(experiment, rows)
    assert header == ["backbone", "mIoU", "pixel accuracy"]
    assert lines == [["embedded", "25.0", "50.0"], ["filterbank", "25.0", "50.0"]]
    for word in ("voc21 val (5)", "kmeans", "protocol full", "K 21", "C 21", "seeds 1"):
        assert word in shared


def test_what_a_method_was_fitted_on_stands_in_the_table():
    cells = tuple(replace(CELL, train=train) for train in ("train:48", None))
    experiment = Experiment(title="t", cells=cells)
    rows = rows_of(experiment, Outcome([(cell, result()) for cell in cells], {}))
    _, header, lines = layout(experiment, rows)
    assert header[0] == "fitted on"
    assert [line[0] for line in lines] == ["train:48", "-"]
    assert "fitted on train:48" in layout(experiment, rows[:1])[0]
    assert "fitted" not in layout(experiment, rows[1:])[0]


def sweep(*, x, settings):
    cells = tuple(replace(CELL, settings=own, seed=s) for own in settings for s in (0, 1))
    found = [(cell, result(0.1 + 0.1 * i)) for i, cell in enumerate(cells)]
    return Experiment(title="t", cells=cells, x=x), Outcome(found, {"a": "broken"})


def test_files_hold_the_same_numbers(tmp_path):
    experiment, outcome = sweep(x="k", settings=[{"k": 5}, {"k": 7}])
    rows = write_tables(experiment, outcome, tmp_path)
    with open(tmp_path / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    kept = json.loads((tmp_path / "table.json").read_text())
    assert kept["failures"] == {"a": "broken"}
    for row, line, entry in zip(rows, lines, kept["rows"], strict=True):
        assert float(line["miou"]) == entry["miou"] == row.scores["miou"].mean
        assert float(line["miou_std"]) == entry["miou_std"] == row.scores["miou"].std
        assert line["data"] == "voc21 val (5)"
    ElementTree.parse(tmp_path / "chart.svg")


@pytest.mark.parametrize(
    ("x", "settings", "curves", "below"),
    [
        ("k", [{"k": k} for k in (5, 7, 9)], [], "9"),
        ("k", [{"k": k, "refine": r} for k in (5, 7) for r in ("crf", "nearest")], ["crf"], "7"),
        ("size", [{"k": 5, "size": (64, 96)}, {"k": 5, "size": (64, 64)}], [], "64x96"),
        ("refine", [{"k": k, "refine": r} for k in (5, 7) for r in ("a", "b")], ["K 5"], "b"),
    ],
)
def test_a_chart_has_a_curve_for_all_that_is_not_swept_along(x, settings, curves, below, tmp_path):
    write_tables(*sweep(x=x, settings=settings), tmp_path)
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    words = [element.text or "" for element in root.iter(f"{space}text")]
    assert below in words
    assert len(list(root.iter(f"{space}polyline"))) == (2 if curves else 1)
    assert all(any(name in word for word in words) for name in curves)


def test_nothing_to_show_is_no_chart(tmp_path):
    experiment, _ = sweep(x="k", settings=[{"k": 5}])
    assert write_tables(experiment, Outcome([], {"a": "broken"}), tmp_path) == []
    assert not (tmp_path / "chart.svg").exists()
    assert (tmp_path / "table.csv").exists()
