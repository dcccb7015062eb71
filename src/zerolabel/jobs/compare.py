"""Compare runs: one table over methods and data sets, a page with plots, and a figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zerolabel.errors import UsageError
from zerolabel.evaluation.published import Published, fitting, read_published
from zerolabel.jobs.comparing.page import exhibits
from zerolabel.jobs.comparing.pictures import Gallery, figure, ranked
from zerolabel.jobs.comparing.record import write_record
from zerolabel.jobs.comparing.rows import apart, tabulate, titles
from zerolabel.jobs.comparing.scores import Wanted, find_scores, label_space, lies_in
from zerolabel.jobs.comparing.table import Column, Table
from zerolabel.jobs.scoring.labelled import open_labelled
from zerolabel.outputs.report import write_exhibits
from zerolabel.outputs.views import png
from zerolabel.store import Progress, write_bytes

AGAINST = ("first", "best")


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        table: methods x data sets.
        notes: what the reader should know, e.g. what is not comparable.
        published: printed numbers that fit a column.
        files: what was written.
    """

    table: Table
    notes: tuple[str, ...]
    published: Mapping[Column, tuple[Published, ...]]
    files: tuple[Path, ...] = ()


def compare(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data: Sequence[str | Path] = (),
    protocol: str | None = None,
    split: str | None = None,
    space: str | None = None,
    against: str = "first",
    grid: int = 0,
    seed: int | None = None,
    published: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare runs by their scores; only equal data, protocol and label space share a column.

    Args:
        runs: run directories; those that differ in nothing but their seed make one row.
        out: folder for `compare.csv`, `compare.json` and `index.html`, made if missing; None writes
            nothing.
        data: roots of labelled data sets on which missing scores are computed, and whose photos are
            shown.
        protocol: show only scores of this protocol; missing ones are computed by it, or by the
            protocol full.
        split: show only scores on this split.
        space: show only scores in this label space.
        against: "first" or "best": the row that differences are taken to.
        grid: number of images in the figure `grid.png`; 0 draws none.
        seed: draws the figure's images by chance; None takes them at even distances.
        published: csv file of printed numbers; by default the one that comes with the package.
        progress: called with (work, items done, items in all).

    Returns:
        The comparison.

    Raises:
        UsageError: a figure without data or folder, a seed without a figure, or an unknown word.
        DataError: no run has a score.
        StoreError: a file cannot be read or written.
    """
    if against not in AGAINST:
        raise UsageError(f"Differences are taken to the {' or '.join(AGAINST)} row, not {against}.")
    if grid and (not data or out is None):
        raise UsageError("The figure needs photos and a place: give --data ROOT and --out FOLDER.")
    if seed is not None and not grid:
        raise UsageError("A seed chooses the images of a figure: give --grid N with --seed.")
    places = list({Path(run).resolve(): Path(run) for run in runs}.values())
    roots = [Path(root) for root in data]
    wanted = Wanted(protocol, split, space)
    found = find_scores(places, roots, wanted=wanted, progress=progress)
    table = tabulate(found.scores, against=against)
    notes = (*found.notes, *_unscored(table), *apart(table.columns))
    entries = read_published(published)
    quoted = {
        c: tuple(fitting(entries, dataset=c.dataset, space=c.space, protocol=c.protocol))
        for c in table.columns
    }
    result = Comparison(table, notes, quoted)
    if out is None:
        return result
    folder = Path(out)
    named = titles(table.columns)
    shown = exhibits(table, published=quoted, notes=notes)
    galleries = _galleries(table, roots)
    for gallery in galleries:
        shown += ranked(gallery, title=named[gallery.column], progress=progress)
    page = folder / "index.html"
    write_exhibits(page, title=_title(table), lead=_lead(table), exhibits=shown)
    files = [*write_record(folder, table, published=quoted, notes=notes), page]
    if grid:
        files += _figures(folder, galleries, grid, seed)
    return Comparison(table, notes, quoted, tuple(files))


def _unscored(table: Table) -> list[str]:
    """Name the runs that lack masks for some of the labelled images."""
    return [
        f"{score.run} has no mask for {len(score.result['missing'])} labelled images of "
        f"{column.dataset} {column.split}"
        for row in table.rows
        for column, cell in row.cells.items()
        for score in cell.scores
        if score.result["missing"]
    ]


def _galleries(table: Table, roots: Sequence[Path]) -> list[Gallery]:
    """Open the photos of every column that one of the roots holds."""
    galleries = []
    for column in table.columns:
        runs = table.pictured(column)
        root = next((r for r in roots if lies_in(runs[0][1].result, r)), None)
        if root is not None:
            dataset = open_labelled(root, column.split, space=label_space(column.space))
            galleries.append(Gallery(column, runs, dataset))
    return galleries


def _figures(
    folder: Path, galleries: Sequence[Gallery], count: int, seed: int | None
) -> list[Path]:
    """Draw the figure of every column, under a name of its own where there are several."""
    files = []
    named = titles([gallery.column for gallery in galleries])
    for gallery in galleries:
        own = "-".join(re.findall(r"\w+", named[gallery.column])) if len(galleries) > 1 else ""
        path = folder / f"{'-'.join(filter(None, ('grid', own)))}.png"
        write_bytes(path, png(figure(gallery, count, seed=seed)))
        files.append(path)
    return files


def _title(table: Table) -> str:
    runs = {score.run for row in table.rows for cell in row.cells.values() for score in cell.scores}
    return f"{len(runs)} runs compared"


def _lead(table: Table) -> str:
    """Say what the page is about."""
    rows, columns = len(table.rows), len(table.columns)
    return (
        f"{rows} {'row' if rows == 1 else 'rows'} of runs that differ in their seed only, in "
        f"{columns} {'column' if columns == 1 else 'columns'} of one data set, label space and "
        "protocol each."
    )
