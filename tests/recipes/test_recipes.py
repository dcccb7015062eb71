"""Every recipe runs from planted folders to its table, and says what it stands for."""

import inspect

import pytest

from zerolabel import recipes
from zerolabel.data.layouts import LAYOUTS
from zerolabel.data.spaces import SPACES
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.evaluation.published import read_published
from zerolabel.jobs.experiments.files import write_tables
from zerolabel.jobs.experiments.run import run
from zerolabel.jobs.experiments.table import layout
from zerolabel.methods import METHODS, WORDED
from zerolabel.recipes import results
from zerolabel.recipes.places import CLASSIFIED
from zerolabel.recipes.scale import rehearse

ALL = {name: recipes.find(name) for name in recipes.RECIPES}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_recipe_can_be_rehearsed(name, tmp_path):
    experiment, places = rehearse(ALL[name](), tmp_path / "data")
    found = run(experiment, places, tmp_path / "out")
    assert not found.failures
    rows = write_tables(experiment, found, tmp_path / "out")
    assert {row.cell.name for row in rows} == {cell.name for cell in experiment.cells}
    assert all(set(experiment.metrics) <= set(row.scores) for row in rows)
    assert len(layout(experiment, rows)[2]) == len(rows)


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_says_how_it_is_run_what_to_expect_and_how_long_it_takes(name):
    text = inspect.getdoc(ALL[name]) or ""
    assert text.splitlines()[0].endswith(".")
    assert f"zerolabel reproduce {name} DATA" in text
    assert "Time: " in text
    assert "Expected: " in text


@pytest.mark.parametrize("name", ALL)
def test_the_cells_of_a_recipe_name_what_there_is(name):
    experiment = ALL[name]()
    assert len({cell.name for cell in experiment.cells}) == len(experiment.cells)
    for cell in experiment.cells:
        assert cell.data == CLASSIFIED or cell.data in LAYOUTS
        assert cell.space is None or SPACES[cell.space] == cell.data
        assert cell.protocol in PROTOCOLS
        assert cell.method in ("", *METHODS, *experiment.makers)
        for split in (cell.split, cell.train):
            if cell.data in LAYOUTS and split is not None:
                whole = split.partition(":")[0]  # "train:50" are 50 images of it
                assert any(whole in form.splits for form in LAYOUTS[cell.data].forms)


@pytest.mark.parametrize("name", ALL)
def test_a_quote_is_in_the_list_of_published_numbers(name):
    experiment = ALL[name]()
    for cell in experiment.cells:
        if cell.quote is not None:
            q = cell.quote
            asked = (q.paper, q.table, q.method, q.backbone, cell.data, cell.protocol)
            metrics = {
                e.metric
                for e in read_published()
                if (e.paper, e.table, e.method, e.backbone, e.dataset, e.protocol) == asked
            }
            assert metrics & set(experiment.metrics), cell


def test_every_method_has_results_or_the_page_says_why_not():
    own = {method for _, method, _ in results.OWN} | {results.TOLD[2]}
    missing = WORDED | set(results.LATER)
    assert set(results.METHODS) | own == set(METHODS) - missing
    assert all(f"`{name}`" in results.page([]) for name in missing)
