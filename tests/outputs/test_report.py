import os
import re
import weakref
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from zerolabel.errors import ImageError, UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import mask_names, write_mask
from zerolabel.outputs.overlay import jpeg
from zerolabel.outputs.plots import line_chart
from zerolabel.outputs.report import ReportImage, Tile, write_report
from zerolabel.store import write_bytes
from zerolabel.types import Category, Exhibit

PHOTO = np.full((30, 40, 3), 120, dtype=np.uint8)
NASTY = "<script>alert(\"1\")</script> & 'x' 100% #1?.jpg"
if os.name == "nt":  # Windows has no such file names
    NASTY = "&amp; 'x' 100% #1.jpg"


class Page(HTMLParser):
    """What a browser would read: links, pictures, ids and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.html = path, path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and css_class in a.get("class", "").split(" ")]

    @property
    def links(self) -> list[str]:
        keys = ("src", "href", "data-full", "srcset", "poster", "action", "data")
        return [a[key] for _, a in self.tags for key in keys if a.get(key)]


def _run(
    run: Path,
    count: int,
    *,
    k: int = 3,
    ids: Mapping[int, str] | None = None,
    overlays: bool = True,
    load: Callable[[], Any] = PHOTO.copy,
    **changes: Any,
) -> Page:
    colours = palette(k)
    names = [(ids or {}).get(i, f"set {i % 2}/{i:04d}.jpg") for i in range(count)]
    masks = mask_names(names)
    label_map = np.tile(np.arange(40) // 20, (30, 1)).astype(np.uint16)
    images = []
    for i, name in enumerate(names):
        mask = f"masks/{masks[name]}"
        write_mask(run / mask, label_map, colours=colours)
        overlay = f"overlays/{masks[name]}.jpg" if overlays else None
        if overlay:
            write_bytes(run / overlay, jpeg(PHOTO))
        images.append(ReportImage(name, load, mask, overlay, {0: 0.5, 1: 0.5 if i else 0.4}))
    options: dict[str, Any] = {
        "title": "Eine <Reise> & mehr",
        "categories": [
            Category(i, f"category <{i}>", tuple(int(v) for v in colours[i]), 0.4, count)
            for i in range(k)
        ],
        "images": images,
        "sheets": {0: [Tile(PHOTO[:10, :20], "0.9", names[0])] * 3} if count else {},
        "exhibits": [],
        "failures": [],
        "facts": {"images per second": "3.4"},
        **changes,
    }
    return Page(write_report(run, **options))


def _pages(run: Path) -> list[Page]:
    return [Page(path) for path in sorted((run / "report").glob("*.html"))]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("large")
    _run(run, 130, ids={0: NASTY, 70: NASTY + "x.jpg", 71: "日本語/ü.jpg"})
    return run


def test_pages_hold_sixty_images_each_and_all_of_them(large: Path) -> None:
    pages = _pages(large)
    assert [page.path.name for page in pages] == ["index.html", "page-002.html", "page-003.html"]
    assert [len(page.all("article", "card")) for page in pages] == [60, 60, 10]
    numbers = [a["id"] for page in pages for a in page.all("article", "card")]
    assert numbers == [f"image-{i}" for i in range(1, 131)]
    for page in pages:
        others = {href.split("#")[0] for href in page.links if href.endswith(".html")}
        assert {other.path.name for other in pages} <= others


def test_nothing_is_asked_from_outside(large: Path) -> None:
    for page in _pages(large):
        assert not re.search(r"https?:|//cdn|url\(|@import|fetch\(|XMLHttp", page.html)
        for link in page.links:
            assert re.match(r"data:image/|data:,|[^:]*$", link)
            assert not link.startswith("//")


def test_every_relative_link_leads_to_a_file_or_a_place(large: Path) -> None:
    pages = {page.path.name: page for page in _pages(large)}
    for page in pages.values():
        for link in page.links:
            if link.startswith("data:"):
                continue
            target, _, place = link.partition("#")
            assert not target or (page.path.parent / unquote(target)).is_file(), link
            if place and not place.startswith("show-"):
                other = pages[target] if target else page
                assert place in {a.get("id") for _, a in other.tags}, link


def test_only_the_first_sixty_images_are_inline(large: Path) -> None:
    first, second, _ = _pages(large)
    for kind in ("photo", "overlay", "mask"):
        assert sum(a["src"].startswith("data:") for a in first.all("img", kind)) == 60
        assert len(second.all("img", kind)) == 60
        assert all(not a["src"].startswith("data:") for a in second.all("img", kind))
        assert all(a["loading"] == "lazy" and a["alt"] for a in second.all("img", kind))


def test_names_cannot_break_the_page(large: Path) -> None:
    first, second, _ = _pages(large)
    assert [len(page.all("script")) for page in (first, second)] == [1, 1]
    assert first.all("article", "card")[0]["data-group"] == NASTY
    assert "Eine <Reise> & mehr" in first.text
    assert "category <2>" in first.text
    assert "日本語/" in second.text


def test_a_smaller_report_leaves_no_old_pages(tmp_path: Path) -> None:
    _run(tmp_path, 61)
    _run(tmp_path, 2)
    files = {str(p.relative_to(tmp_path / "report")) for p in (tmp_path / "report").rglob("*.*")}
    assert {name.replace("\\", "/") for name in files} == {
        "index.html",
        "photos/000001.jpg",
        "photos/000002.jpg",
    }


def test_one_photo_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def load() -> np.ndarray:
        nonlocal most
        photo = np.zeros((30, 40, 3), dtype=np.uint8)
        alive.append(weakref.ref(photo))
        most = max(most, sum(reference() is not None for reference in alive))
        return photo

    _run(tmp_path, 65, load=load)
    assert len(alive) == 65
    assert most <= 2


def test_failures_and_facts_are_shown(tmp_path: Path) -> None:
    page = _run(tmp_path, 1, failures=[{"id": "bad <b>.jpg", "reason": "cut & short"}])
    assert "bad <b>.jpg" in page.text
    assert "cut & short" in page.text
    assert "1 failure" in page.text
    assert "images per second 3.4" in page.text
    assert "Nothing failed." in _run(tmp_path, 1).text


def test_a_photo_that_vanished_is_explained(tmp_path: Path) -> None:
    def load() -> np.ndarray:
        raise ImageError("set 0/0000.jpg is gone.")

    page = _run(tmp_path, 2, load=load)
    assert len(page.all("article", "card")) == 2
    assert "set 0/0000.jpg is gone." in page.text


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    page = _run(tmp_path, 0, k=0, facts={})
    assert "No images." in page.text
    assert "No categories." in page.text


@pytest.mark.parametrize("k", [3, 300])
def test_pictures_are_drawn_where_the_run_has_none(tmp_path: Path, k: int) -> None:
    _run(tmp_path, 61, k=k, overlays=False)
    page = _pages(tmp_path)[1]
    sources = [a["src"] for a in page.all("img", "overlay") + page.all("img", "mask")]
    # a mask of 16 bits shows no colours, so that it is drawn as well
    mask = "photos/000061-mask.png" if k > 255 else "../masks/set%200/0060.png"
    assert sources == ["photos/000061-overlay.jpg", mask]
    assert all((page.path.parent / unquote(source)).is_file() for source in sources)


def test_many_tiles_move_out_of_the_page(tmp_path: Path) -> None:
    tile = Tile(PHOTO, "near", "a.jpg")
    page = _run(tmp_path, 1, k=40, sheets={i: [tile] * 10 for i in range(40)})
    sources = [a["src"] for a in page.all("img", "region")]
    linked = [source for source in sources if not source.startswith("data:")]
    assert len(sources) == 400
    assert len(linked) == 40
    assert all((page.path.parent / source).is_file() for source in linked)


def test_exhibits_are_drawn_by_kind(tmp_path: Path) -> None:
    chart = line_chart([1, 2], [3, 4], title="t", x_label="k", y_label="score")
    page = _run(
        tmp_path,
        1,
        exhibits=[
            Exhibit(
                "table",
                "Scores <1>",
                {"columns": ["a&b", "n"], "rows": [["x<y", 0.12345], [None, 12345]]},
                "A caption.",
            ),
            Exhibit("facts", "Settings", {"temperature": 0.07}),
            Exhibit("svg", "Curve", {"svg": chart}),
        ],
    )
    words = ("Scores <1>", "a&b", "x<y", "0.123", "12,345", "A caption.", "temperature 0.07")
    assert all(word in page.text for word in words)
    assert chart in page.html
    with pytest.raises(UsageError, match="'film'.*table, facts, svg"):
        _run(tmp_path, 1, exhibits=[Exhibit("film", "Film")])


def test_the_rest_of_an_image_is_accounted_for(tmp_path: Path) -> None:
    page = _run(tmp_path, 2)
    cards = page.html.split('class="card"')[1:]
    assert "no category <b>10.0 %" in cards[0]
    assert "no category" not in cards[1].split("</article>")[0]


def test_names_that_are_not_unicode_do_not_stop_the_report(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    tile = Tile(PHOTO, "", name)
    write_mask(tmp_path / "m.png", np.zeros((30, 40), dtype=np.uint8), colours=palette(1))
    image = ReportImage(name, PHOTO.copy, "m.png", f"overlays/{name}", {0: 1.0})
    page = _run(tmp_path, 1, images=[image], sheets={0: [tile]})
    assert "caf?.jpg" in page.text
    assert "../overlays/caf%E9.jpg" in page.links
