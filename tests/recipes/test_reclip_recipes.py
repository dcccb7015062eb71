"""The recipes of MaskCLIP and ReCLIP: what they fit, published rows, and what each row changes."""

import inspect
from dataclasses import replace

import pytest

from zerolabel import recipes
from zerolabel.evaluation.published import read_published
from zerolabel.jobs.experiments.cells import Experiment, Outcome
from zerolabel.jobs.experiments.table import rows_of
from zerolabel.methods import WORDED, find
from zerolabel.methods.configs import configure
from zerolabel.recipes import maskclip, reclip
from zerolabel.recipes.scale import SPEAKING, rehearse, small

NAMES = [name for name in recipes.RECIPES if name.startswith(("maskclip", "reclip"))]
MADE = {name: recipes.find(name)() for name in NAMES}
BOTH = {  # rows of tables I and II: MaskCLIP twice, MaskCLIP+, ReCLIP and ReCLIP++ without and with
    "voc": [49.5, 49.5, 70.0, 58.5, 75.8, 73.5, 79.2],
    "context": [21.7, 21.7, 31.1, 25.8, 33.8, 34.0, 34.5],
    "ade20k": [9.5, 9.5, 12.2, 11.1, 14.3, 13.5, 14.5],
    "cityscapes": [19.8, 19.8, 25.2, 16.2, 19.9, 21.7, 26.9],
    "coco27": [13.6, 13.6, 19.5, 14.6, 20.3, 20.9, 23.2],
}
OTHERS = {
    "maskclip-voc": [49.5, 49.5, 70.0],
    "maskclip-context": [21.7, 21.7, 31.1],
    "maskclip-coco171": [12.5, 12.5, 18.0],
    "maskclip-refinements": [21.7, None, None, None, 12.5, None, None, None],
    "maskclip-bias": [49.5, 49.5, 21.7, 21.7],
    "reclip-probe": [76.1, 80.3, 49.3, 54.1, 26.2, 29.5],
    "reclip-refined": [85.4, 36.1, 16.4, 26.5, 23.8],
    "reclip-legacy": [49.5, 70.0, 58.5, 73.5, 21.7, 31.1, 25.8, 34.0],
    "reclip-parts": [58.5, 68.6, 70.4, 73.5, None, 25.8, 27.8, 33.1, 34.0, None],
    "reclip-changes": [73.5, 71.6, 72.4, 1.2, 34.0, 32.1, 32.9, 0.4],
    "reclip-bias": [21.7, 31.1, 25.8, 34.0, 49.5, 70.0, 58.5, 73.5],
    "reclip-losses": [77.7, 78.9, 79.2],
    "reclip-heads": [76.2, 48.3, 50.6, 79.2],
    "reclip-shares": [None] * 8,
    "reclip-windows": [None] * 7,
}
# What stands in a row for others to be compared with, although the preset has it.
SAME = {"least": 0.07, "window_share": 1 / 6, "head": "inherited", "window_side": 56, "most": 2}
EXPECTED = OTHERS | {f"reclip-{data}": values for data, values in BOTH.items()}


def shown(experiment):
    """What the table shows beside our mIoU."""
    found = [(cell, {"space": cell.space, "images": 7}) for cell in experiment.cells]
    rows = rows_of(experiment, Outcome(found, {}))
    assert len(rows) == len(experiment.cells)
    return [row.published.get("miou") for row in rows]


def settings(cell):
    """All settings of a cell's method, checked."""
    return configure(find(cell.method).PRESETS, cell.preset, dict(cell.settings))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_what_it_needs_and_scores_val(name):
    words = " ".join((inspect.getdoc(recipes.find(name)) or "").split())
    assert "not run with published weights" in words
    for cell in MADE[name].cells:
        assert cell.backbone == "clip-vitb16"
        assert cell.split == "val"
        learns = {"maskclip": (None,), "maskclip+": ("train", "trainaug")}
        assert cell.train in learns.get(cell.method, ("train",))
        own = "maskclip" if cell.method.startswith("maskclip") else "reclip"
        assert cell.protocol == (own if cell.probe is None else "maskcontrast-linear")
    for module in (maskclip, reclip):
        assert "MIT, 598 MB" in (module.__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_classes_that_are_scored(name):
    for cell in MADE[name].cells:
        asked = settings(cell).classes
        assert (cell.space, asked) in {(asked, asked), ("voc21", "voc20")}
        assert cell.space == asked or cell.probe is not None


@pytest.mark.parametrize("name", NAMES)
def test_published_numbers_stand_beside_ours(name, monkeypatch):
    """With the weights that students started from, and not without."""
    assert set(EXPECTED) == set(NAMES)
    taught = [settings(cell) for cell in MADE[name].cells]
    pupils = [getattr(config, "student", "none") != "none" for config in taught]
    alone = [None if pupil else value for value, pupil in zip(EXPECTED[name], pupils, strict=True)]
    monkeypatch.delenv(maskclip.STUDENT, raising=False)
    assert shown(recipes.find(name)()) == alone
    monkeypatch.setenv(maskclip.STUDENT, "resnet50.pth")
    made = recipes.find(name)()
    assert shown(made) == EXPECTED[name]
    files = [cell.settings.get("student_weights", "") for cell in made.cells]
    assert files == ["resnet50.pth" if pupil else "" for pupil in pupils]


def test_every_number_of_the_paper_about_these_methods_is_quoted_somewhere(monkeypatch):
    monkeypatch.setenv(maskclip.STUDENT, "resnet50.pth")
    quotes = {
        (cell.quote.table, cell.quote.method, cell.data)
        for name in NAMES
        for cell in recipes.find(name)().cells
        if cell.quote is not None and cell.quote.paper == "reclip++"
    }
    ours = ("MaskCLIP", "ReCLIP")
    printed = {
        (entry.table, entry.method, entry.dataset)
        for entry in read_published()
        if entry.paper == "reclip++" and entry.method.startswith(ours)
    }
    missing = {
        entry
        for entry in printed - quotes
        # The same number as in another table, or one whose curve is not known.
        if entry[0] not in ("Table VII",)
        and entry[1] not in ("ReCLIP++ (rec.), subtraction", "ReCLIP++ (rec.), frozen CLIP")
        and not (entry[0] == "Table I" and "(LP)" not in entry[1])
    }
    assert missing == {("README of July 2025", "ReCLIP", "voc")}  # 75.4, in the paper 75.8


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_row_is_a_change(name):
    for cell in MADE[name].cells:
        preset = find(cell.method).PRESETS[cell.preset]
        for key, value in cell.settings.items():
            assert getattr(preset, key) != value or SAME.get(key) == value, (cell.preset, key)


def test_the_path_from_reclip_to_its_successor_changes_one_part_at_a_time():
    rows = [settings(cell) for cell in MADE["reclip-parts"].cells][:4]
    parts = [(c.decoder, c.hypothesis, c.bias) for c in rows]
    assert parts == [
        (False, "whole", "joint"),
        (True, "whole", "joint"),
        (True, "crops", "joint"),
        (True, "crops", "independent"),
    ]


def test_figure_3_has_a_chart_along_what_it_varies():
    for name, x in (("reclip-shares", "least"), ("reclip-windows", "window_share")):
        made = MADE[name]
        values = [cell.settings[x] for cell in made.cells]
        assert made.x == x
        assert values == sorted(values)
        assert getattr(find("reclip++").PRESETS["voc"], x) in values


def test_a_probe_shares_its_model_with_the_rows_of_its_data_set():
    fits = {
        cell.fit
        for name in ("voc", "cityscapes", "coco27")
        for cell in MADE[f"reclip-{name}"].cells
    }
    assert {cell.fit for cell in MADE["reclip-probe"].cells} <= fits


def test_refinements_stop_before_the_learning_rate_is_zero():
    for cell in MADE["reclip-refined"].cells:
        made = settings(cell)
        assert made.horizon > made.epochs > 0
        assert made.windows == "code"
        assert made.window_side == made.crop // 6
        assert not made.legacy


def test_a_rehearsal_takes_a_random_clip_and_small_students(monkeypatch, tmp_path):
    monkeypatch.setenv(maskclip.STUDENT, "resnet50.pth")
    cells = (
        *recipes.find("reclip-voc")().cells,
        *recipes.find("reclip-probe")().cells[:1],
        *recipes.find("reclip-refined")().cells[3:4],
    )
    experiment = Experiment(title="t", cells=cells)
    made, _ = rehearse(experiment, tmp_path)
    assert len(made.cells) == len(cells)
    for cell, before in zip(made.cells, cells, strict=True):
        config, asked = settings(cell), settings(before)
        assert cell.backbone == SPEAKING
        assert max(config.short, getattr(config, "crop", 0)) <= 64
        assert getattr(config, "epochs", 0) == getattr(config, "student_epochs", 0) == 0
        assert max(getattr(config, "steps", 0), getattr(config, "student_steps", 0)) <= 4
        taught = getattr(asked, "student", "none") != "none"
        assert getattr(config, "student", "none") == ("small" if taught else "none")
        assert getattr(config, "student_weights", "") == ""
        assert (cell.probe is None) == (before.probe is None)
    assert made.cells[-2].probe == {"size": (64, 64), "epochs": 1}


def test_small_keeps_the_clip_that_nothing_here_replaces():
    for name in NAMES:
        for cell in small(replace(MADE[name], metrics=("miou",))).cells:
            config = settings(cell)
            assert cell.method in WORDED
            assert cell.backbone == "clip-vitb16"
            assert cell.split == "val:24"
            assert config.short <= 224
            assert getattr(config, "student", "none") in ("none", "small")
            assert max(getattr(config, "steps", 0), getattr(config, "student_steps", 0)) <= 300
            assert getattr(config, "epochs", 0) == 0
