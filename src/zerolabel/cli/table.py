"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = re.compile(r"-|[-+]?[\d.,]+%?")


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: numbers and "-" to the right, words to the left.

    Args:
        header: one title per column.
        rows: cells, as many in each row as there are titles.

    Returns:
        Lines without trailing blanks or a final newline.
    """
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for title, *cells in columns:
        width = max(map(len, (title, *cells)))
        right = cells and all(NUMBER.fullmatch(cell) for cell in cells)
        padded.append([c.rjust(width) if right else c.ljust(width) for c in (title, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))
