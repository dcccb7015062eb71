"""The names of categories in the pages of a finished report, replaced without its photos.

Drawing a report again needs every photo, the model and the weights of its backbone; names are a few
hundred places in pages that are there. The result is the page that `write_report` would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zerolabel.errors import StoreError
from zerolabel.outputs.report import make_environment
from zerolabel.store import write_bytes
from zerolabel.types import Category

# Names are escaped, so that none holds < or ", which end them here.
PLACES = tuple(  # what is before a name, the id in it; the name; what follows
    re.compile(pattern)
    for pattern in (
        r'(#category-(\d+)"><i class="swatch" style="[^"]*"></i>)[^<]*?( <b>|</a>)',
        r'(<option value="(\d+)">)[^<]*(</option>)',
        r'(<i data-category="(\d+)" style="[^"]*" title=")[^"]*(, [^",]*")',
    )
)
SECTION = re.compile(r'<article class="category" id="category-(\d+)".*?</article>', re.DOTALL)
HEADING = re.compile(r"<h3>([^<]*)</h3>")
PARTS = ("link", "table")  # macros of names.html, each with its marks
MARKS = {"link": "names-link", "table": "names"}


def rewrite_names(run: Path, categories: Sequence[Category]) -> Path | None:
    """Give the categories in a report their names, and list how they came by them.

    Args:
        run: the run directory.
        categories: all of the run, with the names that they shall have.

    Returns:
        Path of `report/index.html`; None where the run has no report.

    Raises:
        StoreError: a page cannot be read or written.
    """
    first = run / "report" / "index.html"
    if not first.exists():
        return None
    environment = make_environment()
    written = environment.from_string("{{ name }}")
    names = {str(category.id): written.render(name=category.name) for category in categories}
    macros = environment.get_template("names.html").module
    parts = {part: str(getattr(macros, part)(categories)) for part in PARTS}
    for path in [first, *sorted(first.parent.glob("page-*.html"))]:
        try:
            page = path.read_bytes().decode("utf-8")
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from None
        changed = _rename(page, names, parts)
        if changed != page:
            write_bytes(path, changed.encode("utf-8", "replace"))
    return first


def _rename(page: str, names: Mapping[str, str], parts: Mapping[str, str]) -> str:
    def known(change: Callable[[Any], str]) -> Callable[[Any], str]:
        """Leave ids alone that the run does not have."""
        return lambda found: change(found) if found[_id(found)] in names else str(found[0])

    for place in PLACES:
        page = place.sub(known(lambda found: found[1] + names[found[2]] + found[3]), page)
    page = SECTION.sub(known(lambda found: _section(found[0], names[found[1]])), page)
    for part, text in parts.items():
        mark = MARKS[part]
        marked = re.compile(f"<!--{mark}-->.*?<!--/{mark}-->", re.DOTALL)
        page = marked.sub(lambda _, text=text: text.strip("\n"), page)  # type: ignore[misc]
    return page


def _id(found: re.Match[str]) -> int:
    """The group that holds the id: the second of a place, the first of a section."""
    return 2 if found.re in PLACES else 1


def _section(text: str, name: str) -> str:
    """Name one category's heading, its link and its contact sheet."""
    heading = HEADING.search(text)
    if heading is None:
        return text
    before = heading[1]
    for around in (
        "<h3>{}</h3>",
        '<span class="hidden"> with {}</span>',
        '<div class="sheet" data-group="{}">',
        'alt="Region of {} in ',
    ):
        text = text.replace(around.format(before), around.format(name))
    return text
