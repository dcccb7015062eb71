"""The report: pages that show a person what came out, without a server or the network.

The first page carries its pictures inside itself and can be sent on its own; further pages link to
theirs. One photo is in memory at a time, however many there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from zerolabel.errors import UsageError
from zerolabel.outputs import views
from zerolabel.store import open_whole
from zerolabel.types import Category, Exhibit, Image

PER_PAGE = 60  # images on a page; only those of the first page are inline
INLINE_TILES = 360  # crops in the contact sheets that are inline; about 6 kB each
EXHIBITS = ("table", "facts", "svg", "images", "slider")


@dataclass(frozen=True)
class ReportImage:
    """One image of the run.

    Attributes:
        id: relative POSIX path inside the data set.
        load: returns the photo, uint8 (H, W, 3); a `ZerolabelError` is shown in its place.
        mask: path of the mask inside the run, e.g. "masks/a.png".
        overlay: path of the overlay inside the run, or None to have it drawn here.
        shares: from category id to the share of this image's pixels, 0..1.
    """

    id: str
    load: Callable[[], Image]
    mask: str
    overlay: str | None
    shares: Mapping[int, float]


@dataclass(frozen=True)
class Tile:
    """One region in the contact sheet of a category.

    Attributes:
        image: the crop, ready to be shown, uint8 (h, w, 3).
        caption: a few words, e.g. the distance to the centre; may be empty.
        image_id: the image it was cut from.
    """

    image: Image
    caption: str
    image_id: str


def write_report(
    run: Path,
    *,
    title: str,
    categories: Sequence[Category],
    images: Sequence[ReportImage],
    sheets: Mapping[int, Sequence[Tile]],
    exhibits: Sequence[Exhibit],
    failures: Sequence[Mapping[str, str]],
    facts: Mapping[str, str],
) -> Path:
    """Write `report/index.html`, further pages of 60 images each, and the pictures they link to.

    Args:
        run: the run directory; masks and overlays are in it already.
        title: heading of the report.
        categories: all categories, in the order in which they are listed.
        images: all images, in the order in which they are shown.
        sheets: category id to its best regions, best first; a category may be missing.
        exhibits: what a method or an evaluation adds, drawn by kind.
        failures: what could not be done, as "id" and "reason".
        facts: what it cost and with what it was made: times, memory, versions.

    Returns:
        Path of `index.html`.

    Raises:
        UsageError: an exhibit of an unknown kind.
        StoreError: the disk refuses.
    """
    _check(exhibits)
    folder = run / "report"
    pictures = views.Pictures(run, categories=categories)
    pages = max(1, math.ceil(len(images) / PER_PAGE))
    common = {
        "title": title,
        "categories": categories,
        "by_id": {category.id: category for category in categories},
        "total": len(images),
        "failures": failures,
        "pages": pages,
    }
    environment = make_environment()
    for page in range(1, pages + 1):
        first = (page - 1) * PER_PAGE
        context: dict[str, Any] = {
            **common,
            "page": page,
            "navigation": _navigation(images, page=page, pages=pages),
            "cards": _cards(images, pictures, first=first, inline=page == 1),
        }
        if page == 1:
            context |= {"sheets": _sheets(sheets, pictures), "exhibits": exhibits, "facts": facts}
        template = environment.get_template("index.html" if page == 1 else "page.html")
        _stream(folder / _page_name(page), template.stream(context))
    _tidy(folder, pages=pages, images=len(images))
    return folder / "index.html"


def write_exhibits(path: Path, *, title: str, lead: str, exhibits: Sequence[Exhibit]) -> None:
    """Write a page of exhibits alone, e.g. of a training run.

    Args:
        path: the page.
        title: its heading.
        lead: one sentence below it.
        exhibits: drawn by kind, in this order.

    Raises:
        UsageError: an exhibit of an unknown kind.
        StoreError: the disk refuses.
    """
    _check(exhibits)
    context = {"title": title, "lead": lead, "exhibits": exhibits, "page": 1}
    _stream(path, make_environment().get_template("exhibit_page.html").stream(context))


def _check(exhibits: Sequence[Exhibit]) -> None:
    """Refuse what no template draws."""
    for exhibit in exhibits:
        if exhibit.kind not in EXHIBITS:
            raise UsageError(
                f"Exhibit {exhibit.title!r} is of kind {exhibit.kind!r}; the report draws "
                f"{', '.join(EXHIBITS)}."
            )


def _cards(
    images: Sequence[ReportImage], pictures: views.Pictures, *, first: int, inline: bool
) -> Iterator[dict[str, Any]]:
    """Yield what the template shows of each image of one page, one at a time."""
    for number in range(first, min(first + PER_PAGE, len(images))):
        image = images[number]
        shares = sorted(image.shares.items(), key=lambda item: (-item[1], item[0]))
        present = [(category, share) for category, share in shares if share > 0]
        shown, problem = pictures.of_image(
            number, image.load, mask=image.mask, overlay=image.overlay, inline=inline
        )
        yield {
            "number": number + 1,
            "id": image.id,
            "views": shown,
            "problem": problem,
            "shares": present,
            "rest": 1 - sum(share for _, share in present),
        }


def _sheets(
    sheets: Mapping[int, Sequence[Tile]], pictures: views.Pictures
) -> dict[int, list[dict[str, Any]]]:
    """Turn the tiles of each category into pictures, inline as long as the budget lasts."""
    count = 0
    shown: dict[int, list[dict[str, Any]]] = {}
    for category in sorted(sheets):
        shown[category] = []
        for place, tile in enumerate(sheets[category]):
            view = pictures.of_tile(
                tile.image, name=f"{category:05d}-{place:02d}", inline=count < INLINE_TILES
            )
            shown[category].append(
                {"view": view, "caption": tile.caption, "image_id": tile.image_id}
            )
            count += 1
    return shown


def _navigation(
    images: Sequence[ReportImage], *, page: int, pages: int
) -> list[dict[str, Any] | None]:
    """List the pages to link to; None stands for a gap."""
    near = {1, pages, *range(page - 2, page + 3)} if pages > 20 else set(range(1, pages + 1))
    items: list[dict[str, Any] | None] = []
    last = 0
    for number in sorted(n for n in near if 1 <= n <= pages):
        if number > last + 1:
            items.append(None)
        last = number
        counts: Counter[int] = Counter()
        for image in images[(number - 1) * PER_PAGE : number * PER_PAGE]:
            counts.update(category for category, share in image.shares.items() if share > 0)
        items.append(
            {
                "number": number,
                "href": _page_name(number),
                # lets the filter say where else a category occurs
                "counts": " ".join(f"{c}:{n}" for c, n in sorted(counts.items())),
            }
        )
    return items


def _page_name(page: int) -> str:
    return "index.html" if page == 1 else f"page-{page:03d}.html"


def _tidy(folder: Path, *, pages: int, images: int) -> None:
    """Remove what an earlier report with more images left behind."""
    for path in folder.glob("page-*.html"):
        if int(path.stem.removeprefix("page-")) > pages:
            path.unlink(missing_ok=True)
    for path in folder.glob("photos/*"):
        number = path.stem.split("-")[0]
        if number.isdecimal() and int(number) > images:
            path.unlink(missing_ok=True)


def _stream(path: Path, stream: jinja2.environment.TemplateStream) -> None:
    """Write a page piece by piece, whole or not at all."""
    stream.enable_buffering(32)
    with open_whole(path) as file:
        for piece in stream:
            # names that are not valid Unicode get a question mark instead of stopping the report
            file.write(piece.encode("utf-8", "replace"))


def make_environment() -> jinja2.Environment:
    """The templates, and what they call."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "cell": _cell, "plural": _plural}
    environment.tests["numeric"] = _is_number
    return environment


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _percent(share: float) -> str:
    if share <= 0:
        return "0 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 else "< 0.1 %"


def _plural(count: int, word: str) -> str:
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count:,} {word if count == 1 else plural}"


def _cell(value: object, decimals: int | None = None) -> str:
    """Write a value: no false precision, no empty cells, as many decimals as its column has."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, (float, np.floating)):
        return "–" if value is None else str(value)
    number = float(value)
    if not math.isfinite(number):
        return "–"
    if decimals is not None and 10.0**-decimals <= abs(number) < 1e5:
        return f"{number:,.{decimals}f}"
    return f"{number:.4g}"
