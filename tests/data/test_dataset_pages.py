"""The pages on data sets say what the tables and layouts say."""

import re
from pathlib import Path

import pytest

from zerolabel.data.layouts import LAYOUTS
from zerolabel.data.spaces import space, spaces_of
from zerolabel.jobs.check_data import KINDS

PAGES = Path(__file__).parents[2] / "docs" / "datasets"


def text(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def splits(name):
    return list(dict.fromkeys(split for form in LAYOUTS[name].forms for split in form.splits))


def test_every_data_set_has_a_page():
    assert {path.stem for path in PAGES.glob("*.md")} == {*LAYOUTS, "folder", "README"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_page_lists_the_label_spaces_and_the_folders(name):
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", text(name), re.MULTILINE)
    assert rows == [(one, str(len(space(one).classes))) for one in spaces_of(name)]
    assert all(home.split("/")[-1] in text(name) for home in LAYOUTS[name].homes)
    assert re.search("[Tt]ested (here )?on", text(name))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_index_lists_label_spaces_and_splits(name):
    (row,) = [line for line in text("README").splitlines() if f"({name}.md)" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    listed = ", ".join(f"{one} ({len(space(one).classes)})" for one in spaces_of(name))
    assert cells[1] == (listed or "regions, no classes")
    assert cells[2].split(", ") == splits(name)


def test_the_index_lists_every_kind_of_finding():
    assert re.findall(r"^\| `(\w+)` \|", text("README"), re.MULTILINE) == list(KINDS)
