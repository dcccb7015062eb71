"""A sweep: one method with every combination of some settings, as an experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zerolabel.errors import UsageError, unknown_name
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.jobs.fit import Options
from zerolabel.methods import find

MOST = 1000  # cells; more is a slip of the keyboard
PARTS = ("backbone", "preset")  # what can be swept besides the fields of a Config


def sweep(
    data: str,
    options: Options,
    *,
    over: Sequence[str],
    seeds: int,
    protocol: str,
    space: str | None = None,
    train: str | None = None,
) -> Experiment:
    """Turn "k=27:63:4" and the like into cells; settings are checked when they are run.

    Args:
        data: name of the data set.
        options: what all cells share.
        over: NAME=VALUES texts; VALUES is START:STOP[:STEP], both ends included, or a list with
            commas.
        seeds: how many seeds each setting gets, from the one in the options up.
        protocol: how cells are scored.
        space: label space.
        train: split on which the method is fitted; None for the one that is scored.

    Returns:
        The experiment, with a chart along the first name.

    Raises:
        UsageError: a text that cannot be read, an unknown name, or too many cells.
    """
    if seeds < 1 or not over:
        raise UsageError(f"A sweep needs one seed and one --over, found {seeds} and {len(over)}.")
    known = [field.name for field in dataclasses.fields(find(options.method).PRESETS["default"])]
    swept: dict[str, list[int | float | str]] = {}
    for text in over:
        name, values = parse(text)
        if name == "seed":
            raise UsageError("Seeds are not swept, they are averaged over: give --seeds.")
        if name not in (*known, *PARTS):
            raise unknown_name("setting", name, [*known, *PARTS])
        if name in swept:
            raise UsageError(f"{name} is given by --over twice. Put all its values in one.")
        swept[name] = values
    combinations = seeds * math.prod(map(len, swept.values()))
    if combinations > MOST:
        raise UsageError(f"The sweep has {combinations} runs; at most {MOST} are done in one go.")
    first = int(options.settings.get("seed") or 0)
    start = Cell(data=data, train=train, space=space, protocol=protocol)
    cells = [
        _cell(dataclasses.replace(start, seed=seed), options, chosen)
        for chosen in (
            dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())
        )
        for seed in range(first, first + seeds)
    ]
    title = f"{options.method} on {data}, over {' and '.join(swept)}"
    return Experiment(title=title, cells=tuple(cells), x=next(iter(swept)))


def parse(text: str) -> tuple[str, list[int | float | str]]:
    """Read one NAME=VALUES.

    Args:
        text: e.g. "k=27:63:4", "sharpness=5:20:2.5", "size=128,224", "refine=guided,bilinear".

    Returns:
        The name, with underscores, and the values, each once: numbers of a range, else as typed.

    Raises:
        UsageError: the text cannot be read, or a range is empty or endless.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    words = [word.strip() for word in values.split(",")]
    if not (name and equals and all(words)):
        raise UsageError(
            f"--over takes NAME=START:STOP:STEP or NAME=A,B,C, e.g. k=27:63:4; found {text!r}."
        )
    found = _range(text, values) if ":" in values else _list(words)
    return name.replace("-", "_"), list(dict.fromkeys(found))


def _list(words: Sequence[str]) -> list[int | float | str]:
    """Numbers where all are, else the words; the Config they are for has the last word."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return [kind(word) for word in words]
    return list(words)


def _range(text: str, values: str) -> list[int | float | str]:
    """Count from the start to the stop, which is included where a step meets it."""
    try:
        numbers = [float(part) for part in values.split(":")]
        start, stop, step = numbers if len(numbers) == 3 else (*numbers, 1.0)
        count = math.floor((stop - start) / step + 1e-9) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        count = 0
    if not 0 < count <= MOST:
        raise UsageError(
            f"{text!r} is no range of 1 to {MOST} values. Expected START:STOP:STEP in numbers that "
            "lead from the start to the stop, e.g. k=27:63:4."
        )
    found = [round(start + i * step, 12) for i in range(count)]
    whole = all(value == int(value) for value in found)
    return [int(value) if whole else value for value in found]


def _cell(cell: Cell, options: Options, chosen: Mapping[str, Any]) -> Cell:
    """Give a cell what all share, and what is its own."""
    settings = {k: v for k, v in options.settings.items() if v is not None and k != "seed"}
    own = {name: value for name, value in chosen.items() if name in PARTS}
    return dataclasses.replace(
        cell,
        split=options.split,
        geometry=options.geometry,
        method=options.method,
        preset=own.get("preset", options.preset),
        backbone=own.get("backbone", options.backbone),
        settings=settings | {k: v for k, v in chosen.items() if k not in PARTS},
    )
