"""The page of results: every number from a row."""

import re

import pytest

from zerolabel.jobs.experiments.cells import Outcome
from zerolabel.jobs.experiments.table import rows_of
from zerolabel.recipes.results import COLOUR, DATA, METHODS, ONE, OWN, page, results


def made(score):
    """The recipe's rows, with a mIoU for every cell from a function."""
    experiment = results()
    found = [
        (
            cell,
            {
                "protocol": {"id": "full"},
                "dataset": cell.data,
                "space": cell.space,
                "split": cell.split,
                "images": 7,
                "clusters": 5 if cell.settings.get("k", "auto") == "auto" else cell.settings["k"],
                "classes": 11,
                "miou": score(cell),
                "pixel_accuracy": 0.5,
            },
        )
        for cell in experiment.cells
    ]
    return rows_of(experiment, Outcome(found, {}))


def lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_row_is_on_the_page_once():
    rows = made(lambda cell: 0.1)
    text = page(rows)
    runs, _, _ = text.partition("## Regions")  # which have a benchmark of their own
    body = [line for line in lines(runs, "|") if not re.match(r"\| data|\|---", line)]
    assert len(body) == len(rows)
    per_data = 1 + 3 + 2 * sum(map(len, METHODS.values()))
    assert len(rows) == len(DATA) * per_data + len(OWN) + 1  # and what labels bring
    assert "`acseg`, `background = attention`" in text
    assert "auto: 5" in text


def test_the_best_of_a_table_is_bold():
    text = page(made(lambda cell: 0.9 if cell.method == "kmeans" else 0.1 + cell.seed / 100))
    bold = [line for line in lines(text, "|") if "**90.0 ± 0.0**" in line]
    assert len(bold) == 4 * len(DATA)  # two backbones, k given or not
    assert all("`kmeans`" in line for line in bold)


@pytest.mark.parametrize(
    ("floor", "words"),
    [(0.2, "10.0 points above"), (0.5, "20.0 points below"), (0.305, "within the deviations")],
)
def test_remarks_follow_the_numbers(floor, words):
    def score(cell):
        if cell.method == ONE:
            return 0.01
        return floor if cell.method == COLOUR else 0.3 + (cell.seed - 1) / 100

    text = page(made(score))
    said = [line for line in text.splitlines() if line.startswith("  `kmeans` with")]
    assert len(said) == 2 * len(DATA)
    assert all(words in line for line in said)
