"""The label map of an export, and what formats can hold as names and colours."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.exports.items import Plan
from zerolabel.store import write_bytes
from zerolabel.types import Category

FILE = "labels.csv"
COLUMNS = ("id", "name", "colour", "value")
Fault = Callable[[str], str]  # what a format cannot hold in a name, in words; "" if nothing


def write_labels(
    folder: Path,
    categories: Sequence[Category],
    values: Iterable[Any],
    *,
    colours: NDArray[np.uint8] | None = None,
) -> None:
    """Write the label map: a table of id in the run, name, colour and value in the export.

    Args:
        folder: where to.
        categories: index = id.
        values: what stands for each category in the files of the format.
        colours: RGB, uint8 (K, 3), if not those of the categories.
    """
    shown = [c.colour for c in categories] if colours is None else colours.tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for category, colour, value in zip(categories, shown, values, strict=True):
        writer.writerow([category.id, category.name, hexadecimal(colour), value])
    write_bytes(folder / FILE, text.getvalue().encode("utf-8", "backslashreplace"))


def hexadecimal(colour: Sequence[int]) -> str:
    """Write a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def check_count(plan: Plan, most: int, *, what: str, others: str) -> None:
    """Refuse more categories than a format holds.

    Args:
        plan: of the export.
        most: how many it holds.
        what: the format, as the subject of a sentence with "holds".
        others: the formats that hold any number.
    """
    if len(plan.categories) > most:
        raise UsageError(
            f"{plan.run} has {len(plan.categories)} categories, and {what} holds {most}. Choose "
            f"--format {others}, which hold any number."
        )


def check_names(plan: Plan, *, what: str, fault: Fault = lambda name: "") -> None:
    """Refuse names that a format cannot tell apart or cannot hold.

    Args:
        plan: of the export.
        what: the format, as the subject of a sentence.
        fault: what it cannot hold in a name.

    Raises:
        UsageError: it says which category, what is wrong and how to rename it.
    """
    how = (
        f"Write the names with `zerolabel name {plan.run} --write-csv FILE`, change them, and give "
        "them back with --csv FILE."
    )
    owners: dict[str, int] = {}
    for category in plan.categories:
        k, name = category.id, category.name
        if name in owners:
            raise UsageError(
                f"Categories {owners[name]} and {k} are both called {name!r}, and {what} tells "
                f"categories apart by their names. {how}"
            )
        owners[name] = k
        wrong = fault(name) if name else "an empty name"
        if wrong:
            raise UsageError(
                f"Category {k} is called {name!r}, and {what} cannot hold {wrong}. {how}"
            )


def odd_character(name: str) -> str:
    """Find a character that is no text: a control character, a line break, half of a pair."""
    odd = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), "")
    return f"the character {odd!r}" if odd else ""


def distinct_colours(categories: Sequence[Category]) -> NDArray[np.uint8]:
    """Give every category a colour of its own, not black; those that can stay, stay.

    Args:
        categories: index = id.

    Returns:
        RGB, uint8 (K, 3).
    """
    taken: set[tuple[int, ...]] = {(0, 0, 0)}
    found: list[tuple[int, ...] | None] = []
    for category in categories:
        colour = tuple(category.colour)
        found.append(None if colour in taken else colour)
        taken.add(colour)
    spare = (c for c in map(tuple, palette(2 * len(found) + 1).tolist()) if c not in taken)
    return np.array([next(spare) if c is None else c for c in found], np.uint8).reshape(-1, 3)
