"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: heading it belongs to.
        name: what was looked at.
        state: "ok", "missing" or "problem".
        found: what was found, one line.
        advice: what to do, if there is something to do.
        needed: without it nothing works.
    """

    group: str
    name: str
    state: str
    found: str
    advice: str = ""
    needed: bool = False


def words(error: Exception) -> str:
    """Say the first line of an error, and its kind, which often says more."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
