"""What papers have printed: `published.csv`, one row per number, quoted and never reproduced here.

A number belongs beside one of ours only if data set, label space and protocol have the same names;
even then it was measured on other files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from zerolabel.errors import DataError

COLUMNS = "paper,table,method,backbone,dataset,space,protocol,metric,value,note".split(",")


@dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
        paper: who printed it.
        table: where; may be empty.
        method: what it belongs to.
        backbone: of the method; may be empty.
        dataset: a name of a data layout, or another where there is none.
        space: label space, or empty.
        protocol: a name in `PROTOCOLS`, or empty where the paper's is none of them.
        metric: e.g. "miou", "pixel_accuracy".
        value: as printed; shares in percent.
        note: what must be known to read it.
    """

    paper: str
    table: str
    method: str
    backbone: str
    dataset: str
    space: str
    protocol: str
    metric: str
    value: float
    note: str


def read_published(path: Path | None = None) -> tuple[Published, ...]:
    """Read printed numbers.

    Args:
        path: a csv file with the fields of `Published` as columns; the one that comes with the
            package by default.

    Returns:
        One entry per line, in the order of the file.

    Raises:
        DataError: a column is missing, or a value is no number.
    """
    return _read(path or Path(__file__).with_name("published.csv"))


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Published, ...]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError) as error:
        raise DataError(f"The published numbers in {path} cannot be read: {error}") from None
    if not lines or lines[0] != COLUMNS:
        raise DataError(
            f"{path} does not begin with its columns: expected {','.join(COLUMNS)}, found "
            f"{','.join(lines[0]) if lines else 'nothing'}."
        )
    return tuple(_entry(path, number, cells) for number, cells in enumerate(lines[1:], 2))


def fitting(
    entries: Iterable[Published], *, dataset: str, space: str, protocol: str
) -> list[Published]:
    """Choose the numbers that were measured by the same rules.

    Args:
        entries: to choose from.
        dataset: name of the data set.
        space: name of the label space.
        protocol: id of the protocol.

    Returns:
        Those that agree in all three, in their order.
    """
    asked = (dataset, space, protocol)
    return [entry for entry in entries if (entry.dataset, entry.space, entry.protocol) == asked]


def _entry(path: Path, number: int, cells: list[str]) -> Published:
    named = dict(zip(COLUMNS, cells, strict=False))
    try:
        value = float(named.pop("value", ""))
    except ValueError:
        value = math.nan
    if len(cells) != len(COLUMNS) or not math.isfinite(value):
        raise DataError(
            f"Line {number} of {path} is no published number: expected {len(COLUMNS)} cells, the "
            f"value being a number, found {cells}."
        )
    return Published(**named, value=value)
