"""The files of an experiment: its table as CSV and JSON, and a chart along a swept setting."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from zerolabel.jobs.experiments.cells import Experiment, Outcome
from zerolabel.jobs.experiments.table import TITLES, Row, rows_of, typed
from zerolabel.outputs.curves import curves
from zerolabel.store import write_bytes, write_json

XMLNS = "http://www.w3.org/2000/svg"  # what an SVG needs to be a file of its own


def write_tables(experiment: Experiment, outcome: Outcome, out: Path) -> list[Row]:
    """Write `table.csv`, `table.json` and, along a swept setting, `chart.svg`.

    Args:
        experiment: what was run.
        outcome: what came out.
        out: the folder of the experiment.

    Returns:
        The rows of the table.

    Raises:
        StoreError: a file cannot be written.
    """
    rows = rows_of(experiment, outcome)
    entries = [
        {
            **row.facts,
            **{
                f"{name}{end}": value
                for name, score in row.scores.items()
                for end, value in (("", score.mean), ("_std", score.std))
            },
            **{f"published_{name}": value for name, value in row.published.items()},
            "published_on_other_data": row.others if row.published else None,
        }
        for row in rows
    ]
    columns = list(dict.fromkeys(key for entry in entries for key in entry))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    write_bytes(out / "table.csv", text.getvalue().encode())
    facts = {"title": experiment.title, "note": experiment.note, "unit": "percent"}
    write_json(out / "table.json", {**facts, "rows": entries, "failures": outcome.failures})
    if experiment.x is not None and rows:
        chart = _chart(experiment, rows).replace("<svg ", f'<svg xmlns="{XMLNS}" ', 1)
        write_bytes(out / "chart.svg", chart.encode())
    return rows


def _chart(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Draw the first metric along the swept setting, one curve for all else that differs."""
    x, metric = experiment.x or "", experiment.metrics[0]
    where = [row.cell.settings.get(x, row.facts.get(x)) for row in rows]
    numbers = [float(value) for value in where if isinstance(value, int | float)]
    names = None if len(numbers) == len(rows) else list(dict.fromkeys(map(typed, where)))
    at = numbers if names is None else [float(names.index(typed(value))) for value in where]
    facts = [row.facts | {"K": str(row.cell.settings.get("k"))} for row in rows]
    differing = [
        column
        for column in facts[0]
        if column not in (x, x.upper()) and len({own[column] for own in facts}) > 1
    ]
    series: dict[str, list[tuple[float, float, float]]] = {}
    for row, own, place in zip(rows, facts, at, strict=True):
        name, score = ", ".join(f"{c} {own[c]}" for c in differing), row.scores[metric]
        series.setdefault(name, []).append((place, score.mean, score.std or 0.0))
    return curves(
        {name: sorted(points) for name, points in series.items()},
        title=f"{experiment.title}: {TITLES.get(metric, metric)} along {x}",
        x_label=x,
        y_label=f"{TITLES.get(metric, metric)} in percent",
        names=names,
    )
