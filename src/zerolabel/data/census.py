"""What the labels of a data set hold, counted before anything is learned from them.

A training on wrong ids fails silently: the loss falls, and the score does not move. So every label
is read once first. Shapes: `C` classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zerolabel.data import census_words
from zerolabel.data.labels import UnknownValuesError, tally
from zerolabel.errors import DataError, UsageError
from zerolabel.store import Store
from zerolabel.types import IGNORE, Exhibit, Sample

BATCH = 64  # labels that are read before progress is told
FEW = 5  # images that are kept for each odd value


@dataclass(frozen=True, eq=False)
class Census:
    """What labels hold.

    Attributes:
        names: C class names, index = id.
        expected: the values that labels may hold, in words.
        pixels: int64 (C,), pixels of every class.
        images: int64 (C,), images in which it occurs.
        ignored: pixels that do not count, 255 in the labels.
        counted: images whose label was read and fits the label space.
        void: ids of images whose labels are all ignored.
        unlabelled: ids of images without a label.
        strange: value that is no class -> ids of the first images that hold it.
        unreadable: id -> reason for labels that cannot be read.
    """

    names: tuple[str, ...]
    expected: str
    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    ignored: int = 0
    counted: int = 0
    void: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    strange: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Ids of the classes that never occur."""
        return tuple(np.flatnonzero(self.images == 0).tolist())

    def problems(self) -> list[str]:
        """Say what is wrong and what to do about it, in a few sentences each; empty if nothing is.

        What makes labels useless comes first; classes that never occur, which a small split may
        well lack, come last.
        """
        return census_words.problems(self)

    def exhibit(self) -> Exhibit:
        """Show the classes as a table for the report."""
        total = int(self.pixels.sum())
        rows = [
            (i, name, f"{100 * int(self.pixels[i]) / max(1, total):.2f} %", int(self.images[i]))
            for i, name in enumerate(self.names)
        ]
        ignored = 100 * self.ignored / max(1, self.ignored + total)
        images = f"{self.counted} image{'' if self.counted == 1 else 's'}"
        caption = (
            f"Shares are of the pixels that count, in {images}; {ignored:.1f} % of all pixels do "
            "not count."
        )
        data = {"columns": ["id", "class", "pixels", "images"], "rows": rows, "right": [2]}
        return Exhibit("table", "What the labels hold", data, caption)


def census(
    samples: Sequence[Sample], *, classes: int | None = None, store: Store | None = None
) -> Census:
    """Count what labels hold; each is read once, none is kept, and no image is decoded.

    Args:
        samples: with labels, or some without.
        classes: C, how many there should be, 1..255; None takes the highest id found below 255.
        store: is told the progress and takes the time; nothing is kept in it.

    Returns:
        The counts, and whatever does not fit.

    Raises:
        UsageError: there cannot be so many classes.
    """
    if classes is not None and not 1 <= classes <= IGNORE:
        raise UsageError(f"Expected 1 to {IGNORE} classes, found {classes}.")
    counter = _Counter(classes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, batch in (store or Store()).track("labels", samples, BATCH):
            for sample, found in zip(batch, pool.map(_look, batch), strict=True):
                counter.add(sample.id, found)
    names = next((sample.classes for sample in samples if sample.classes), ())
    return counter.census(names)


def _look(sample: Sample) -> dict[int, int] | DataError | None:
    """Count the values of one label; None without a label."""
    try:
        return None if sample.load_label is None else tally(sample.load_label())
    except DataError as error:
        return error


class _Counter:
    """A census that is being taken."""

    def __init__(self, classes: int | None) -> None:
        self.classes, self.limit = classes, classes or IGNORE
        self.expected = f"0-{self.limit - 1}, {IGNORE}"
        self.pixels = np.zeros(IGNORE + 1, np.int64)
        self.images = np.zeros(IGNORE + 1, np.int64)
        self.counted = 0
        self.void: list[str] = []
        self.unlabelled: list[str] = []
        self.strange: dict[int, list[str]] = {}
        self.unreadable: dict[str, str] = {}

    def add(self, name: str, found: dict[int, int] | DataError | None) -> None:
        """Count an image with what `_look` found in its label."""
        if found is None:
            self.unlabelled.append(name)
        elif isinstance(found, UnknownValuesError):
            self.expected = found.expected
            self._note(name, found.values)
        elif isinstance(found, DataError):
            self.unreadable[name] = str(found)
        else:
            self._count(name, found)

    def census(self, names: Sequence[str]) -> Census:
        """Close the census; classes without a name have numbers."""
        C = self.classes or int(np.flatnonzero(self.images[:IGNORE]).max(initial=-1)) + 1
        return Census(
            names=(*names[:C], *(f"class {i}" for i in range(len(names), C))),
            expected=self.expected,
            pixels=self.pixels[:C],
            images=self.images[:C],
            ignored=int(self.pixels[IGNORE]),
            counted=self.counted,
            void=tuple(self.void),
            unlabelled=tuple(self.unlabelled),
            strange={value: tuple(self.strange[value]) for value in sorted(self.strange)},
            unreadable=self.unreadable,
        )

    def _count(self, name: str, found: Mapping[int, int]) -> None:
        classes = {value for value in found if 0 <= value < self.limit}
        strange = found.keys() - classes - {IGNORE}
        self.counted += not strange
        self._note(name, sorted(strange))
        for value in found.keys() - strange:
            self.pixels[value] += found[value]
            self.images[value] += 1
        if not classes and not strange:
            self.void.append(name)

    def _note(self, name: str, values: Iterable[int]) -> None:
        """Remember the first images with a value that is no class."""
        for value in values:
            where = self.strange.setdefault(value, [])
            if len(where) < FEW:
                where.append(name)
