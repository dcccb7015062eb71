"""What a page shows of a comparison: tables, bars by class, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zerolabel.evaluation.confusion import by_class
from zerolabel.evaluation.published import Published
from zerolabel.evaluation.spread import Spread
from zerolabel.jobs.comparing.rows import titles
from zerolabel.jobs.comparing.table import LEGEND, METRICS, Column, Row, Score, Table
from zerolabel.outputs.bars import Bars, bar_chart
from zerolabel.outputs.matrix import heat_map
from zerolabel.types import Exhibit

NO_CLASS = "no class"
QUOTED = "published, other data"


def exhibits(
    table: Table, *, published: Mapping[Column, Sequence[Published]], notes: Sequence[str]
) -> list[Exhibit]:
    """Lay a comparison out for a page.

    Args:
        table: the comparison.
        published: printed numbers that fit a column.
        notes: what the reader should know.

    Returns:
        Tables, notes, bars by class and confusions, in this order.
    """
    named = titles(table.columns)
    found = [_overview(table, named)] if len(table.columns) > 1 else []
    for column in table.columns:
        found.append(_scores(table, column, title=named[column]))
        found += _quoted(published.get(column, ()), title=named[column])
    if notes:
        listed = [[note] for note in notes]
        found.append(Exhibit("table", "Notes", {"columns": ["note"], "rows": listed, "wide": True}))
    found += [_bars(table, column, title=named[column]) for column in table.columns]
    for column in table.columns:
        found += [
            _confusions(score, name=name, title=named[column])
            for name, score in table.pictured(column)
        ]
    return found


def cells(table: Table, row: Row, column: Column, *, between: str = "±") -> list[str]:
    """Write the scores of a row: K, n, seeds, and mean and difference for every metric.

    Args:
        table: that holds the row.
        row: one that has scores in the column.
        column: of the table.
        between: what stands between mean and standard deviation.

    Returns:
        One text per column title of `headings`, without the first.
    """
    cell = row.cells[column]
    found = [_joined(cell.clusters), str(len(cell.scores)), _joined(cell.seeds)]
    for metric in METRICS:
        difference = table.difference(row, column, metric)
        found += [cell.spread(metric).words(between), difference.words if difference else "-"]
    return found


def headings() -> list[str]:
    """Title the columns of one data set's table."""
    found = ["runs", "K", "n", "seeds"]
    for name in METRICS.values():
        found += [name, "difference"]
    return found


def brief(table: Table, row: Row, column: Column, *, between: str = "±") -> str:
    """Write mIoU and difference of a row for the table over all columns; "-" where it has none."""
    if column not in row.cells:
        return "-"
    difference = table.difference(row, column, "miou")
    more = f" ({difference.words.strip()})" if difference else ""
    return f"{row.cells[column].spread('miou').words(between)}{more}"


def _overview(table: Table, named: Mapping[Column, str]) -> Exhibit:
    rows = [[row.label, *(brief(table, row, c) for c in table.columns)] for row in table.rows]
    data = {"columns": ["runs", *named.values()], "rows": rows, "wide": True}
    return Exhibit("table", "mIoU", data, LEGEND.format(against=table.against))


def _scores(table: Table, column: Column, *, title: str) -> Exhibit:
    rows = [[row.label, *cells(table, row, column)] for row in table.rows if column in row.cells]
    data = {"columns": headings(), "rows": rows, "right": range(1, len(headings())), "wide": True}
    caption = f"{column.words}; {table.floor(column)}."
    if len(table.columns) == 1:
        caption += f" {LEGEND.format(against=table.against)}"
    return Exhibit("table", title, data, caption)


def _quoted(entries: Sequence[Published], *, title: str) -> list[Exhibit]:
    if not entries:
        return []
    rows = [
        [e.method, e.backbone or None, METRICS.get(e.metric, e.metric), f"{e.value:g}"]
        + [e.paper, e.table or None, e.note]
        for e in entries
    ]
    columns = ["method", "backbone", "metric", "value", "paper", "table", "note"]
    caption = (
        "Quoted from papers, same data set, label space and protocol. They were measured on other "
        "files than the rows above, and no difference to them is claimed."
    )
    data = {"columns": columns, "rows": rows, "right": [3], "wide": True}
    return [Exhibit("table", f"{title}: {QUOTED}", data, caption)]


def _bars(table: Table, column: Column, *, title: str) -> Exhibit:
    def shares(found: Sequence[Spread | None], part: str) -> list[float | None]:
        return [None if spread is None else getattr(spread, part) for spread in found]

    groups = []
    for row in table.rows:
        if column in row.cells:
            found = row.cells[column].classes()
            groups.append(Bars(row.label, shares(found, "mean"), shares(found, "std")))
    svg = bar_chart(column.classes, groups, title=f"IoU of every class, {title}")
    caption = (
        f"IoU of every class in percent, mean over seeds, {column.words}. The thin line is one "
        "standard deviation to either side; – is a class without a score."
    )
    return Exhibit("svg", f"Classes: {title}", {"svg": svg}, caption)


def _confusions(score: Score, *, name: str, title: str) -> Exhibit:
    classes = score.column.classes
    svg = heat_map(
        confusions(score),
        rows=classes,
        columns=[*classes, NO_CLASS],
        title=f"What the pixels of every class were taken for, {name}, {title}",
    )
    caption = (
        f"Rows are true classes, columns what their pixels were taken for after matching, in "
        f"percent of the row; blue is right. K = {score.result['clusters']}, {score.column.words}."
    )
    heading = f"Confusions: {name}, {title}"
    return Exhibit("svg", heading, {"svg": svg, "wide": True}, caption)


def confusions(score: Score) -> NDArray[np.float64]:
    """Turn the counts of a run into shares of classes.

    Args:
        score: of the run.

    Returns:
        float64 (C, C + 1): of the true pixels of a class, the share that was taken for each class,
        and, last, for none; NaN where a class has no pixels.
    """
    first, C = score.result["per_class"][0]["id"], len(score.column.classes)
    counts = np.array(score.result["counts"], np.int64)[-C:]
    found = [entry["class"] for entry in score.result["matching"]]
    matching = np.array([-1 if label is None else label - first for label in found], np.int64)
    matched = by_class(counts, matching)
    total = matched.sum(axis=1, keepdims=True)
    shares = np.full(matched.shape, np.nan)
    np.divide(matched, total, out=shares, where=total > 0)
    return shares


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "-"
