"""Names replaced in a written report: the page is the one that would be drawn with them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.errors import StoreError
from zerolabel.outputs import report
from zerolabel.outputs.masks import write_mask
from zerolabel.outputs.renaming import rewrite_names
from zerolabel.outputs.report import ReportImage, Tile, write_report
from zerolabel.types import Category, Exhibit, Naming

PHOTO = np.full((6, 8, 3), 120, np.uint8)
K = 12  # "category 1" begins the name of "category 10"
pytestmark = pytest.mark.usefixtures("small_worlds")
NASTY = [
    "<b> & \"x\" 'y'",
    "a, b, 12 %",
    "category 1",
    "Training",
    "{0} \\1 {{ x }}",
    "日本 <!--names-->",
]


def categories(names=(), naming=None):
    found = []
    for k in range(K):
        share = 0 if k == 5 else 0.02 * (1 + k % 4)
        known = Category(k, f"category {k}", (k, 0, 9), share, k)
        found.append(replace(known, name=names[k], naming=naming) if k < len(names) else known)
    return found


def write(run, listed):
    images = [
        ReportImage(name, PHOTO.copy, "masks/a.png", None, {0: 0.5, 1: 0.2, 10: 0.1, 11: 0.1})
        for name in ("category 3.jpg", "category 1 in a.jpg", '<h3>"&')
    ]
    table = Exhibit("table", "category 3", {"columns": ["category 3"], "rows": [["category 3"]]})
    write_report(
        run,
        title="category 3",
        categories=listed,
        images=images,
        sheets={k: [Tile(PHOTO, "category 1", "category 1 in b.jpg")] * 2 for k in (1, 10)},
        exhibits=[table],
        failures=[{"id": "category 3", "reason": "category 3"}],
        facts={"category 3": "category 3"},
    )


def pages(run):
    return {path.name: path.read_bytes() for path in sorted((run / "report").glob("*.html"))}


@pytest.fixture(scope="module", autouse=True)
def _two_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "PER_PAGE", 2)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("renaming")
    for name in ("changed", "drawn"):
        mask = np.zeros((6, 8), np.uint8)
        write_mask(root / name / "masks" / "a.png", mask, colours=np.zeros((K, 3), np.uint8))
    return root


@pytest.mark.parametrize("before", [[], ["x"] * 3 + NASTY])
@pytest.mark.parametrize("after", [[], NASTY, ["category 10", "category 3", "category 0"]])
def test_the_report_is_the_one_that_would_be_drawn(place, before, after):
    ways = [
        Naming("vocabulary", "category 0", 0.25, -0.01, (("<i>", 0.2), ("cat", 0.1))),
        Naming("csv", "category 0"),
        Naming("truth", "category 0", 1.0, None),
    ]
    write(place / "changed", categories(before, ways[0] if before else None))
    for way in ways:
        listed = categories(after, way if after else None)
        assert rewrite_names(place / "changed", listed) == place / "changed/report/index.html"
        write(place / "drawn", listed)
        assert len(pages(place / "drawn")) == 2
        assert pages(place / "changed") == pages(place / "drawn")
        assert (b'<a href="#names">' in pages(place / "changed")["index.html"]) == bool(after)


# what XML and UTF-8 cannot hold, and what splits lines, is no part of a name
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20)


@settings(max_examples=8, deadline=None)
@given(st.lists(TEXT, min_size=K, max_size=K), st.lists(TEXT, min_size=K, max_size=K))
def test_any_names(place, before, after):
    naming = Naming("csv", "category 0")
    write(place / "changed", categories(before, naming))
    rewrite_names(place / "changed", categories(after, naming))
    write(place / "drawn", categories(after, naming))
    assert pages(place / "changed") == pages(place / "drawn")


def test_without_a_report_nothing_is_written_and_a_damaged_one_is_named(tmp_path):
    assert rewrite_names(tmp_path, categories()) is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_bytes(b"\xff")
    with pytest.raises(StoreError, match=r"index\.html cannot be read"):
        rewrite_names(tmp_path, categories())
