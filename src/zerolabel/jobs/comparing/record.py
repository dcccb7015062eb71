"""A comparison as csv and JSON: every number with all that it must be read with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zerolabel.evaluation.published import Published
from zerolabel.jobs.comparing.table import METRICS, Column, Row, Table
from zerolabel.store import write_bytes, write_json


def write_record(
    folder: Path,
    table: Table,
    *,
    published: Mapping[Column, Sequence[Published]],
    notes: Sequence[str],
) -> list[Path]:
    """Write `compare.csv` and `compare.json`.

    Args:
        folder: made if missing.
        table: the comparison.
        published: printed numbers that fit a column.
        notes: what the reader should know.

    Returns:
        Paths of the two.

    Raises:
        StoreError: the disk refuses.
    """
    places = [(row, c) for c in table.columns for row in table.rows if c in row.cells]
    lines = [_line(table, row, column) for row, column in places]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    sheet, full = folder / "compare.csv", folder / "compare.json"
    write_bytes(sheet, text.getvalue().encode("utf-8", "backslashreplace"))
    more = [{"settings": dict(row.facts), "per_class": _classes(row, c)} for row, c in places]
    content = {
        "against": table.against,
        "scores": [line | rest for line, rest in zip(lines, more, strict=True)],
        "published": [asdict(entry) for entries in published.values() for entry in entries],
        "notes": list(notes),
    }
    write_json(full, content)
    return [sheet, full]


def _line(table: Table, row: Row, column: Column) -> dict[str, Any]:
    """One row in one column; shares are 0..1."""
    cell = row.cells[column]
    line: dict[str, Any] = {
        "row": row.label,
        "method": row.facts.get("method"),
        "backbone": row.facts.get("backbone"),
        "protocol": column.protocol,
        "dataset": column.dataset,
        "split": column.split,
        "space": column.space,
        "images": column.images,
        "data_hash": column.data_hash,
        "K": cell.clusters,
        "C": len(column.classes),
        "n": len(cell.scores),
        "seeds": cell.seeds,
    }
    for metric in METRICS:
        spread, difference = cell.spread(metric), table.difference(row, column, metric)
        line |= {
            metric: spread.mean,
            f"{metric}_std": spread.std,
            f"{metric}_difference": difference and difference.value,
            f"{metric}_differs": difference and difference.real,
        }
    return line | {"runs": [str(score.run) for score in cell.scores]}


def _classes(row: Row, column: Column) -> list[dict[str, Any]]:
    found = row.cells[column].classes()
    return [
        {"name": name, "iou": spread and spread.mean, "iou_std": spread and spread.std}
        for name, spread in zip(column.classes, found, strict=True)
    ]


def _cell(value: object) -> object:
    """Write a value for csv: lists with blanks, and nothing for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else value
