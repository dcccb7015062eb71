"""Label spaces: which class every raw value of a mask stands for, one table per space.

`tables/<name>.csv` has one row per raw value: `raw`, `id` (empty: not scored), `name` of the class,
and where known `kind` (thing or stuff), `prompt` (the word for it that MaskCLIP and ReCLIP give to
CLIP) and `r,g,b`. Merges are rows that share an id; no mapping is code.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import unknown_name
from zerolabel.types import IGNORE

SPACES = {  # label space -> its data set; the first of a data set is its default
    "voc21": "voc",
    "voc20": "voc",
    "context60": "context",
    "context59": "context",
    "ade150": "ade20k",
    "cityscapes27": "cityscapes",
    "cityscapes19": "cityscapes",
    "cityscapes7": "cityscapes",
    "cocostuff171": "cocostuff",
    "coco27": "cocostuff",
    "coco80": "cocostuff",
    "coco15": "cocostuff",
    "lip19": "lip",
    "lip16": "lip",
    "lip5": "lip",
    "suim8": "suim",
    "suim6": "suim",
    "suim5": "suim",
    "stanford8": "stanford",
    "camvid11": "camvid",
}


@dataclass(frozen=True, eq=False)
class Space:
    """The classes of a data set, and how its files write them.

    Attributes:
        name: a key of `SPACES`, or the name of a folder.
        dataset: the data set it belongs to.
        classes: class names, index = id.
        lut: uint8 (256,), from raw value to id; 255 = not scored. -1 is its last entry.
        known: raw values that masks may hold, any other is an error; with -1 also 255, which is
            what a byte makes of it.
        kinds: "thing", "stuff" or "", one per class.
        prompts: what to call each class when asking CLIP; its name where nothing else is known.
        colours: uint8 (C, 3) RGB of the classes; None where the data set has none.
    """

    name: str
    dataset: str
    classes: tuple[str, ...]
    lut: NDArray[np.uint8]
    known: frozenset[int]
    kinds: tuple[str, ...]
    prompts: tuple[str, ...]
    colours: NDArray[np.uint8] | None

    @property
    def ignore(self) -> tuple[int, ...]:
        """Raw values that are known and not scored."""
        return tuple(raw for raw in sorted(self.known) if self.lut[raw] == IGNORE)

    @cached_property
    def translation(self) -> tuple[bytes, bytes]:
        """The table for `bytes.translate`, and the bytes that are known."""
        return self.lut.tobytes(), bytes(raw % 256 for raw in self.known)

    @property
    def expected(self) -> str:
        """The known raw values in words, e.g. "0-20, 255"."""
        spans = []
        for _, group in groupby(enumerate(sorted(self.known)), lambda pair: pair[1] - pair[0]):
            run = [raw for _, raw in group]
            spans.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
        return ", ".join(spans)


@cache
def space(name: str) -> Space:
    """Read a label space.

    Args:
        name: a key of `SPACES`.

    Returns:
        The space.

    Raises:
        UsageError: there is no such label space.
    """
    if name not in SPACES:
        raise unknown_name("label space", name, SPACES)
    table = resources.files("zerolabel.data").joinpath(f"tables/{name}.csv")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    lut = np.full(256, IGNORE, np.uint8)
    first: dict[int, dict[str, str]] = {}  # id -> the first row that has it
    for row in rows:
        if row["id"]:
            lut[int(row["raw"])] = int(row["id"])
            first.setdefault(int(row["id"]), row)
    known = {int(row["raw"]) for row in rows}
    classes = [first[index] for index in range(len(first))]
    coloured = all("r" in row for row in classes)
    return Space(
        name=name,
        dataset=SPACES[name],
        classes=tuple(row["name"] for row in classes),
        lut=lut,
        known=frozenset(known | {raw % 256 for raw in known}),
        kinds=tuple(row.get("kind", "") for row in classes),
        prompts=tuple(row.get("prompt") or row["name"] for row in classes),
        colours=np.array([[row[c] for c in "rgb"] for row in classes], np.uint8)
        if coloured
        else None,
    )


def spaces_of(dataset: str) -> tuple[str, ...]:
    """Name the label spaces of a data set, its default first."""
    return tuple(name for name, owner in SPACES.items() if owner == dataset)


def plain_space(name: str, classes: tuple[str, ...]) -> Space:
    """Make the label space of masks that hold ids 0..C-1, and 255 for not scored.

    Args:
        name: what to call it.
        classes: C class names, at most 255, index = id.
    """
    C = len(classes)
    lut = np.full(256, IGNORE, np.uint8)
    lut[:C] = np.arange(C)
    known = frozenset([*range(C), IGNORE])
    return Space(name, name, classes, lut, known, ("",) * C, classes, None)
