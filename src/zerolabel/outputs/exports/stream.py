"""JSON written entry by entry: no list of all images is ever in memory."""

from __future__ import annotations

import json
from typing import IO, Any


def text(value: Any) -> bytes:
    """Write a value on one line, as `store.json_bytes` would."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


class Entries:
    """The entries of a JSON list, one per line, without its brackets."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin a list.

        Args:
            file: open for writing, where the first entry goes.
        """
        self.file = file
        self.count = 0

    def add(self, value: Any) -> None:
        """Append an entry."""
        self.file.write((b",\n" if self.count else b"\n") + text(value))
        self.count += 1
