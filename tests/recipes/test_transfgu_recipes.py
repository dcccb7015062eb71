"""The recipes of TransFGU and Segmenter: which images, which published rows, what rows change."""

import inspect
from dataclasses import replace

import pytest

from zerolabel import recipes
from zerolabel.data.geometry import GEOMETRIES
from zerolabel.data.spaces import space, spaces_of
from zerolabel.evaluation.published import read_published
from zerolabel.jobs.experiments.cells import Experiment, Outcome
from zerolabel.jobs.experiments.table import rows_of
from zerolabel.methods import find
from zerolabel.recipes import scale
from zerolabel.recipes.scale import rehearse, small

MADE = {n: recipes.find(n)() for n in recipes.RECIPES if n.startswith(("transfgu", "segmenter"))}
TRANSFGU = [name for name in MADE if name.startswith("transfgu")]
SEGMENTER = [name for name in MADE if name.startswith("segmenter")]


def rows(name):
    """What the table of a recipe shows beside our scores."""
    experiment = MADE[name]
    found = [(cell, {"space": cell.space, "images": 7}) for cell in experiment.cells]
    return rows_of(experiment, Outcome(found, {}))


def changes(name):
    return [dict(cell.settings) for cell in MADE[name].cells]


@pytest.mark.parametrize("name", MADE)
def test_every_recipe_fits_on_train_scores_val_and_says_that_it_was_not_run(name):
    for cell in MADE[name].cells:
        assert (cell.train, cell.split) in (("train", "val"), ("curated-train", "curated-val"))
        assert cell.preset in find(cell.method).PRESETS
    words = " ".join((inspect.getdoc(recipes.find(name)) or "").split())
    assert "not run with published weights" in words


@pytest.mark.parametrize("name", TRANSFGU)
def test_transfgu_is_scored_as_published_at_the_size_of_its_preset(name):
    for cell in MADE[name].cells:
        assert (cell.protocol, cell.geometry) == ("transfgu", "transfgu")
        preset = find("transfgu").PRESETS[cell.preset]
        assert preset.size == GEOMETRIES["transfgu"].size(cell.data)
        assert preset.k == len(space(cell.space).classes)
        assert (preset.background == "quiet") == (space(cell.space).classes[0] == "background")


@pytest.mark.parametrize("name", SEGMENTER)
def test_segmenter_learns_the_classes_that_are_scored(name):
    for cell in MADE[name].cells:
        assert cell.protocol == "classes"
        assert cell.space == spaces_of(cell.data)[0]  # labels are read in the default space


def test_the_numbers_of_table_1_stand_beside_ours():
    expected = {
        "coco27": {"miou": 16.19},
        "coco171": {"miou": 11.93, "pixel_accuracy": 34.32},
        "coco80": {"miou": 12.69, "pixel_accuracy": 64.31},
        "cityscapes": {"miou": 16.83, "pixel_accuracy": 77.92},
        "voc": {"miou": 37.15, "pixel_accuracy": 83.59},
        "lip5": {"miou": 25.16, "pixel_accuracy": 65.76},
        "lip16": {"miou": 15.49, "pixel_accuracy": 60.08},
        "lip19": {"miou": 12.24, "pixel_accuracy": 42.52},
        "coco27-curated": {},  # shares its name with another row of the table
    }
    for name, numbers in expected.items():
        [row] = rows(f"transfgu-{name}")
        assert row.published == numbers, name
        assert row.others == bool(numbers)  # 7 images are not the paper's


def test_no_quote_means_two_rows_at_once():
    entries = read_published()
    for name in MADE:
        for cell in MADE[name].cells:
            q = cell.quote
            if q is None:
                continue
            asked = (q.paper, q.table, q.method, q.backbone, cell.data, cell.space, cell.protocol)
            metrics = [
                e.metric
                for e in entries
                if asked == (e.paper, e.table, e.method, e.backbone, e.dataset, e.space, e.protocol)
            ]
            assert metrics, cell
            assert len(metrics) == len(set(metrics)), cell


def test_tables_quote_what_they_can():
    assert [row.published["miou"] for row in rows("transfgu-rounds")] == [
        *(8.95, 13.19, 16.19),
        *(5.05, 8.66, 11.93),
        *(4.23, 8.28, 12.69),
    ]
    losses = [row.published.get("miou") for row in rows("transfgu-losses")]
    assert losses == [10.49, 10.54, None, None, 11.93, 34.24, 35.08, None, None, 37.15]
    students = [row.published.get("miou") for row in rows("transfgu-students")]
    assert students == [5.05, None, 7.96, None, 11.93]
    weights = [row.published.get("miou") for row in rows("transfgu-weights")]
    assert [w for w in weights if w] == [11.93, 37.15]


def test_every_row_of_a_table_changes_something():
    losses = changes("transfgu-losses")[:5]
    start = find("transfgu").PRESETS["coco171"]
    made = [replace(start, **change) for change in losses]
    found = [(c.peer, c.uncertainty > 0, c.diversity > 0) for c in made]
    assert found == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, False, True),
        (True, True, True),
    ]
    kinds = [change.get("student", "-") for change in changes("transfgu-students")]
    assert kinds == ["-", "r50-fpn-segmenter", "conv", "r50-fpn-conv", "segmenter"]
    assert [change["select"] for change in changes("transfgu-selection")] == ["last", "labels"]
    assert [cell.space for cell in MADE["transfgu-granularity"].cells] == ["lip5", "lip16", "lip19"]


def test_the_small_version_keeps_rounds_and_fits_the_time(monkeypatch):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    for name in MADE:
        for cell in small(MADE[name]).cells:
            config = replace(find(cell.method).PRESETS[cell.preset], **cell.settings)
            assert config.batch == {"transfgu": 8, "segmenter": 2}[cell.method]
            if cell.method == "transfgu":
                assert (config.repeat, config.zoom, config.crop_size) == (1, 1.0, 96)
                assert config.size == (224, 224)
                begun = [e for e in range(config.epochs) if e >= config.start]
                assert any(e % config.intervals[0] == 0 for e in begun)
            else:
                assert (config.iterations, config.short, config.window) == (300, 224, 224)


def test_a_rehearsal_has_few_categories_and_a_residual_network_of_its_own(tmp_path):
    cells = (*MADE["transfgu-students"].cells, *MADE["transfgu-voc"].cells)
    made, places = rehearse(Experiment(title="t", cells=cells), tmp_path)
    assert set(places) == {"cocostuff", "voc"}
    for cell in made.cells:
        config = replace(find("transfgu").PRESETS[cell.preset], **cell.settings)
        assert (config.k, config.stuff) == (3, 1 if cell.data == "cocostuff" else 0)
        assert (config.epochs, config.start, config.intervals) == (2, 1, (1,))
        wanted = str(config.student).startswith("r50")
        assert bool(config.student_weights) == wanted


@pytest.mark.parametrize("name", ["kmeans", "acseg-voc"])
def test_other_recipes_are_made_small_as_before(name, monkeypatch):
    monkeypatch.setattr(scale, "find_weights", lambda entry: None)
    for cell in small(recipes.find(name)()).cells:
        assert set(cell.settings) <= {"k", "size", "iterations"}
