"""Settings: from a preset and what a user typed, and from those of a method for its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zerolabel.errors import UsageError, unknown_name

C = TypeVar("C")


def configure(presets: Mapping[str, C], preset: str, changes: Mapping[str, Any]) -> C:
    """Build a method's settings from a preset and what the user changed.

    Args:
        presets: the method's presets by name.
        preset: which one to start from.
        changes: field -> value; strings are parsed to the field's type, None is left out.

    Returns:
        The settings.

    Raises:
        UsageError: an unknown preset or field, or a value of another type.
    """
    if preset not in presets:
        raise unknown_name("preset", preset, presets)
    start = presets[preset]
    known = {field.name: field.type for field in dataclasses.fields(start)}  # type: ignore[arg-type]
    values = {}
    for name, value in changes.items():
        if value is None:
            continue
        if name not in known:
            raise unknown_name("setting", name, known)
        values[name] = _parse(name, value, str(known[name]))
    return dataclasses.replace(start, **values)  # type: ignore[type-var]


def pick(kind: Any, config: Any, **more: Any) -> Any:
    """Make the settings of a part: some by name, the others as they are in those of the method.

    Args:
        kind: a dataclass; fields that neither has keep their defaults.
        config: settings of the method.
        more: what differs.

    Returns:
        An instance of `kind`.
    """
    names = {field.name for field in dataclasses.fields(kind)} - more.keys()
    return kind(**{name: getattr(config, name) for name in names if hasattr(config, name)}, **more)


def _parse(name: str, value: Any, kind: str) -> Any:
    """Turn a value as typed by a user into the type of its field."""
    word = kind == "int | str" and not str(value).isdigit()
    try:
        return PARSERS["str" if word else kind](value)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{name} must be of type {kind}, got {value!r}.") from None


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _whole(value: Any) -> int:
    """A whole number; True is none, and 2.5 is not rounded."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _pair(value: Any) -> tuple[int, int]:
    """One number for a square, or "rowsxcols"."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, int) else list(parts)
    rows, cols = parts * 2 if len(parts) == 1 else parts
    if min(_whole(rows), _whole(cols)) < 1:
        raise ValueError
    return _whole(rows), _whole(cols)


def _ends(value: Any) -> tuple[float, float]:
    """One number for both, or "start,end"."""
    parts = _several(value)
    first, last = parts * 2 if len(parts) == 1 else parts
    return _real(first), _real(last)


def _several(value: Any) -> list[Any]:
    """Numbers with commas between them, or one number."""
    parts = value.split(",") if isinstance(value, str) else value
    return [parts] if isinstance(parts, int | float) else list(parts)


PARSERS: dict[str, Callable[[Any], Any]] = {
    "bool": _truth,
    "int": _whole,
    "int | str": _whole,
    "float": _real,
    "str": _text,
    "tuple[int, int]": _pair,
    "tuple[float, float]": _ends,
    "tuple[int, ...]": lambda value: tuple(_whole(part) for part in _several(value)),
    "tuple[float, ...]": lambda value: tuple(_real(part) for part in _several(value)),
}
