"""Errors that a user can cause: what was expected, what was found, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZerolabelError(Exception):
    """Base of every error that reaches a user; the message stands alone, without a traceback."""


class UsageError(ZerolabelError):
    """A wrong argument, option or configuration value."""


class DataError(ZerolabelError):
    """A folder, image, label or data set that cannot be used as it is."""


class ImageError(DataError):
    """One image that cannot be read; jobs list it in `failures.json` and go on."""


class StoreError(ZerolabelError):
    """A run directory that is locked, full, foreign or damaged."""


class WeightsError(ZerolabelError):
    """Backbone weights that are missing, unreadable or of another shape."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that is not in a registry, with the nearest known ones.

    Args:
        kind: what the name stands for, e.g. "method".
        name: what the user wrote.
        known: all valid names.

    Returns:
        A `UsageError` to raise.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UsageError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
