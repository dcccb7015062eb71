"""ACSeg's recipes: what they fit on, what they compare, and that each row changes something."""

import inspect

import pytest

from zerolabel import recipes
from zerolabel.data.spaces import space
from zerolabel.jobs.experiments.cells import Outcome
from zerolabel.jobs.experiments.table import rows_of
from zerolabel.methods import find
from zerolabel.recipes import acseg

NAMES = [name for name in recipes.RECIPES if name.startswith("acseg")]
MADE = {name: recipes.find(name)() for name in NAMES}


def changes(name):
    """The settings of every row of a recipe."""
    return [dict(items) for items in {tuple(c.settings.items()): 0 for c in MADE[name].cells}]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_fits_on_train_scores_val_and_says_that_it_was_not_run(name):
    for cell in MADE[name].cells:
        words = {"voc": ("train", "val"), "cocostuff": ("curated-train", "curated-val")}
        assert (cell.train, cell.split) == words[cell.data]
        assert cell.preset in ("voc", "coco")
    words = " ".join((inspect.getdoc(recipes.find(name)) or "").split())
    assert "not run with published weights" in words


def test_the_headline_numbers_stand_beside_five_seeds():
    for name, value in (("acseg-voc", 47.1), ("acseg-coco", 16.4)):
        experiment = MADE[name]
        assert [cell.seed for cell in experiment.cells] == [0, 1, 2, 3, 4]
        found = [(cell, {"space": cell.space, "images": 7}) for cell in experiment.cells]
        [row] = rows_of(experiment, Outcome(found, {}))
        assert row.published == {"miou": value}
        assert row.others  # 7 images are not the paper's


def test_retrieval_names_classes_for_three_ways_to_find_regions():
    rows = changes("acseg-voc-retrieval")
    pairs = {(row["discover"], row["neighbours"]) for row in rows}
    assert pairs == {(d, k) for d in ("concepts", "kmeans", "spectral") for k in (1, 5)}
    assert {cell.protocol for cell in MADE["acseg-voc-retrieval"].cells} == {"classes"}
    assert all("k" not in row for row in rows)  # the classes are the categories


def test_text_names_classes_beside_the_published_numbers():
    experiment = MADE["acseg-text"]
    found = [(cell, {"space": cell.space, "images": 7}) for cell in experiment.cells]
    rows = rows_of(experiment, Outcome(found, {}))
    assert [row.published for row in rows] == [{"miou": 53.9}, {"miou": 28.1}]
    assert {cell.protocol for cell in experiment.cells} == {"classes"}
    for cell, background in zip(experiment.cells[::3], (1, 0), strict=True):
        classes = space(cell.settings["classes"]).classes  # in the order of what is scored
        assert classes == space(cell.space).classes[background:]
        assert (find("acseg").PRESETS[cell.preset].background != "none") == background


def test_ablations_change_one_thing_at_a_time():
    assert [row["concepts"] for row in changes("acseg-prototypes")] == list(range(2, 9))
    first, *rest = changes("acseg-classifiers")
    assert first == {"k": 21}
    assert all(len(row) == 2 for row in rest)
    found = [row["discover"] for row in changes("acseg-baselines")]
    assert found == ["concepts", "kmeans", "spectral", "affinity-propagation", "agglomerative"]


def test_every_change_is_one():
    preset = find("acseg").PRESETS["voc"]
    for row in changes("acseg-classifiers")[1:]:
        [(name, value)] = [(k, v) for k, v in row.items() if k != "k"]
        assert getattr(preset, name) != value
    assert preset.discover == "concepts"
    assert preset.concepts == acseg.GROUPS
    assert preset.iterations > 2
