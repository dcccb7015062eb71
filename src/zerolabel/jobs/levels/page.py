"""What a page shows of several granularities: the levels side by side, and how they overlap.

Shapes: `Ka`, `Kb` categories of two levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import ZerolabelError
from zerolabel.jobs.run.finish import Run
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.masks import mask_names, read_mask
from zerolabel.outputs.overlay import overlay, thumbnail
from zerolabel.outputs.plots import rect, text
from zerolabel.outputs.views import SMALL, inline_view
from zerolabel.store import Progress
from zerolabel.types import Exhibit, LabelMap, Sample

SHOWN = 8  # images that are drawn, at even distances
ROWS = 40  # categories in a table of overlaps
WIDTH, NAMES, BAR, PITCH = 640, 130, 22, 34  # of the chart, room for names, a bar, one level
ALPHA = 0.65  # of the colours over a photo


@dataclass(frozen=True)
class Level:
    """One granularity.

    Attributes:
        title: a few words, e.g. "k = 5".
        run: its run, in a folder beside those of the others.
    """

    title: str
    run: Run

    @property
    def colours(self) -> NDArray[np.uint8]:
        """RGB of its categories, uint8 (K, 3)."""
        return np.array([category.colour for category in self.run.categories], np.uint8)


def lead(method: str, levels: Sequence[Level]) -> str:
    """Say in one sentence what the page is about."""
    run = levels[0].run
    return (
        f"{method} on {run.data}: every level was found on its own, from the same features. A "
        "category of one level is not a union of categories of the next, and colours and numbers "
        "hold within a level only."
    )


def exhibits(
    levels: Sequence[Level],
    samples: Sequence[Sample],
    *,
    every: Sequence[str],
    progress: Progress | None = None,
) -> list[Exhibit]:
    """Lay the levels out for a page.

    Args:
        levels: the fewest categories first.
        samples: images that have a mask in every level, sorted by id.
        every: ids of all images of the runs, which decide the names of masks.
        progress: called with (work, items done, items in all).

    Returns:
        A chart with links to the reports, images, and a table for each pair of neighbours.
    """
    names = mask_names(every)
    files = {s.id: [level.run.path / "masks" / names[s.id] for level in levels] for s in samples}
    caption = (
        "Share of all pixels by category, the largest first; what is missing has no category. A "
        "name leads to the report of its level."
    )
    count = min(SHOWN, len(samples))
    chosen = [samples[(2 * i + 1) * len(samples) // (2 * count)] for i in range(count)]
    rows = [row for sample in chosen for row in _strip(sample, levels, files[sample.id])]
    overlaps = _overlaps(levels, list(files.values()), progress)
    return [
        Exhibit("svg", "Levels", {"svg": _chart(levels)}, caption),
        Exhibit("images", "Side by side", {"rows": rows, "legend": []}),
        *(
            _table(fine, coarse, counts)
            for (coarse, fine), counts in zip(pairwise(levels), overlaps, strict=True)
        ),
    ]


def overlap(fine: LabelMap, coarse: LabelMap, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Count the pixels that two label maps of an image have in common.

    Args:
        fine: integer (H, W); ids from Ka on are no category.
        coarse: integer (H, W); ids from Kb on are no category.
        shape: (Ka, Kb).

    Returns:
        int64 (Ka, Kb).
    """
    Ka, Kb = shape
    known = (fine < Ka) & (coarse < Kb)
    pairs = fine[known].astype(np.int64) * Kb + coarse[known]
    return np.bincount(pairs, minlength=Ka * Kb).reshape(Ka, Kb)


def _overlaps(
    levels: Sequence[Level], files: Sequence[Sequence[Path]], progress: Progress | None
) -> list[NDArray[np.int64]]:
    """Add up the overlap of every pair of neighbours (finer x coarser) over all images."""
    K = [len(level.run.categories) for level in levels]
    totals = [np.zeros((b, a), np.int64) for a, b in pairwise(K)]
    for i, paths in enumerate(files, 1):
        for total, (coarse, fine) in zip(totals, pairwise(map(read_mask, paths)), strict=True):
            total += overlap(fine, coarse, total.shape)
        if progress:
            progress("levels", i, len(files))
    return totals


def _strip(
    sample: Sample, levels: Sequence[Level], files: Sequence[Path]
) -> Iterator[dict[str, object]]:
    """Lay one image out for the page; nothing if it has gone since it was segmented."""
    try:
        photo = thumbnail(sample.load(), side=SMALL)
        views = [(inline_view("photo", photo), "photo")]
        for level, path in zip(levels, files, strict=True):
            labels = resize_labels(read_mask(path), photo.shape[:2])
            drawn = overlay(photo, labels, colours=level.colours, alpha=ALPHA, outline=False)
            views.append((inline_view("overlay", drawn), level.title))
    except ZerolabelError:
        return
    yield {"name": sample.id, "views": views}


def _chart(levels: Sequence[Level]) -> str:
    """Draw the shares of the categories of every level as one bar, its name a link."""
    height = PITCH * len(levels)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="group" '
        'aria-label="Share of all pixels by category, one bar for every level" '
        'font-family="system-ui, sans-serif" font-size="14" fill="currentColor">'
    ]
    for i, level in enumerate(levels):
        top, x = PITCH * i + (PITCH - BAR) / 2, float(NAMES)
        name = text(0, top + BAR - 6, level.title, "start")
        page = level.run.report
        href = "" if page is None else f"../{level.run.path.name}/report/{page.name}"
        parts.append(f'<a href="{href}" text-decoration="underline">{name}</a>' if href else name)
        for category in sorted(level.run.categories, key=lambda c: -c.pixel_share):
            width = category.pixel_share * (WIDTH - NAMES)
            red, green, blue = category.colour
            words = escape(f"{category.name}: {category.pixel_share:.1%}")
            bar = rect(x, top, width, BAR, f'fill="rgb({red} {green} {blue})"')
            parts.append(f"<g><title>{words}</title>{bar}</g>")
            x += width
    return "".join([*parts, "</svg>"])


def _table(fine: Level, coarse: Level, counts: NDArray[np.int64]) -> Exhibit:
    """Say in which coarser categories the pixels of every finer one lie."""
    total = max(1, int(counts.sum()))
    sizes, within = counts.sum(1), counts.max(1).sum() / total
    order = [k for k in np.argsort(-sizes, kind="stable")[:ROWS] if sizes[k]]
    rows = []
    for k in order:
        first, *others = np.argsort(-counts[k], kind="stable")
        row = [fine.run.categories[k].name, _percent(sizes[k] / total)]
        for other in [first, *others[:1]]:
            share = counts[k, other] / sizes[k]
            row += [coarse.run.categories[other].name, _percent(share)] if share else ["–", ""]
        rows.append(row + [""] * (6 - len(row)))
    columns = [
        fine.title,
        "of all pixels",
        f"mostly in, {coarse.title}",
        "share",
        "then in",
        "share",
    ]
    cut = f" The {len(order)} largest of {(sizes > 0).sum()}." if len(order) == ROWS else ""
    caption = (
        f"{_percent(within)} of all pixels lie in the coarser category that holds most of their "
        f"finer one; it would be 100 % if {coarse.title} only joined categories of {fine.title}."
        f"{cut}"
    )
    data = {"columns": columns, "rows": rows, "right": [1, 3, 5]}
    return Exhibit("table", f"{fine.title} within {coarse.title}", data, caption)


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")
