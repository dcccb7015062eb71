"""Names by hand: a table to edit, and what came back of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from zerolabel.errors import StoreError, UsageError
from zerolabel.store import write_bytes
from zerolabel.types import Category

COLUMNS = ("id", "name", "share", "images")
NEEDED = COLUMNS[:2]
DELIMITERS = ",;\t"  # what spreadsheets write, depending on the country


def write_sheet(path: Path, categories: Sequence[Category]) -> None:
    """Write the names as a table to edit.

    Args:
        path: a new file: names that somebody typed must not be lost.
        categories: of the run.

    Raises:
        UsageError: the file is there.
        StoreError: the disk refuses.
    """
    if path.exists():
        raise UsageError(
            f"{path} is there, and names in it would be lost. Give another name, or delete it."
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for category in categories:
        share = f"{category.pixel_share:.4f}"
        writer.writerow([category.id, category.name, share, category.image_count])
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))


def read_sheet(path: Path, categories: Sequence[Category]) -> dict[int, str]:
    """Read the names that somebody typed.

    Args:
        path: CSV in UTF-8 with the columns id and name; others do not count.
        categories: of the run; those that the table does not mention keep their names.

    Returns:
        category -> name, for those that are mentioned.

    Raises:
        UsageError: a column is missing, or a line has an unknown id or an empty or second name; the
            message says which line.
        StoreError: the file cannot be read.
    """
    found: dict[int, tuple[str, int]] = {}  # category -> name and line
    for line, row in _rows(path):
        k = _id(row["id"], len(categories), f"{path}, line {line}")
        name = " ".join(row["name"].split())
        if not name:
            raise UsageError(
                f"{path}, line {line}: category {k} has an empty name. Give it one, or delete the "
                "line: categories that are not mentioned keep their names."
            )
        if k in found:
            raise UsageError(
                f"{path}, line {line}: category {k} has a name already, in line {found[k][1]}. "
                "Leave one of them."
            )
        found[k] = (name, line)
    _check_distinct(path, found, categories)
    return {k: name for k, (name, _) in found.items()}


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Number of the line and cells of every row that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}. Save it as CSV UTF-8.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from None
    head = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise UsageError(
                f"{path}, line 1: expected the columns {' and '.join(NEEDED)}, found "
                f"{', '.join(filter(None, header)) or 'nothing'}. Make such a table with "
                "`zerolabel name RUN --write-csv FILE`."
            )
        at = {name: header.index(name) for name in NEEDED}
        rows = []
        for row in reader:
            if any(cell.strip() for cell in row):
                row += [""] * (len(header) - len(row))
                rows.append((reader.line_num, {name: row[at[name]].strip() for name in NEEDED}))
        return rows
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num} is no CSV: {error}.") from None


def _id(text: str, count: int, where: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) < count:
        return int(text)
    raise UsageError(f"{where}: expected the id of a category, 0 to {count - 1}, found {text!r}.")


def _check_distinct(
    path: Path, found: Mapping[int, tuple[str, int]], categories: Sequence[Category]
) -> None:
    """Refuse a name that two categories would have, whichever of them the table mentions."""
    kept = {c.name: f"category {c.id} has" for c in categories if c.id not in found}
    for _, (name, line) in sorted(found.items(), key=lambda item: item[1][1]):
        if name in kept:
            raise UsageError(
                f"{path}, line {line}: the name {name!r} is that which {kept[name]}. Names must "
                f"differ; give {name!r} a number, or another word."
            )
        kept[name] = f"line {line} gives"
