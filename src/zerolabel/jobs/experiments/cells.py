"""An experiment: a list of cells, each ending in one score, run one after another.

A cell is a data set, a method with its settings, and a protocol. Its run directory is named after
all that decides it, its result is kept in `cells/`, and what is there is not done again: a killed
experiment goes on. Where a method is fitted on one split and scored on others, its fit has a folder
of its own. Recipes and sweeps are nothing but lists of cells.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zerolabel import backbones
from zerolabel.data.geometry import FULL

LONGEST = 80  # characters of a name before its hash
READABLE = ("data", "split", "space", "method", "preset", "backbone", "protocol")


@dataclass(frozen=True)
class Quote:
    """Which rows of `evaluation/published.csv` a cell stands for.

    Attributes:
        paper, table, method, backbone: as the file has them.
        images: how many images the paper scored; None if that is not known.
    """

    paper: str
    table: str
    method: str
    backbone: str = ""
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All that decides one score.

    Attributes:
        data: name of the data set; the caller says where it lies.
        split: of the data set, which is scored; None for its default.
        train: split on which the method is fitted; None for the one that is scored.
        space: label space; None for the data set's default.
        geometry: through which the method looks at images, a key of GEOMETRIES.
        method: a key of METHODS or of the experiment's makers; empty where the protocol judges a
            backbone.
        preset: of the method.
        backbone: its name.
        settings: fields of the method's Config, or arguments of the protocol's job.
        seed: of the method.
        protocol: a key of PROTOCOLS.
        probe: arguments of the protocol's job, where it judges the student that the method has
            taught, and not its masks; else None.
        student: a key of STUDENTS that refines the masks of the method, see `jobs.refine`; its
            masks are then those that are scored. None for none.
        student_settings: fields of the Config of the student's method.
        quote: the published number to show beside it; decides nothing.
    """

    data: str
    split: str | None = None
    train: str | None = None
    space: str | None = None
    geometry: str = FULL
    method: str = ""
    preset: str = "default"
    backbone: str = backbones.AUTO
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    protocol: str = "full"
    probe: Mapping[str, Any] | None = None
    student: str | None = None
    student_settings: Mapping[str, Any] = field(default_factory=dict)
    quote: Quote | None = None

    def facts(self, *without: str) -> dict[str, Any]:
        """All that decides it, by name; what it may do without only where there is such a thing."""
        none = [name for name in ("train", "probe", "student") if getattr(self, name) is None]
        none += ["student_settings"] if self.student is None else []
        left = {"quote", *none, *without}
        return {k: v for k, v in asdict(self).items() if k not in left}

    @property
    def name(self) -> str:
        """Name of the result."""
        return _name(self.facts())

    @property
    def run(self) -> str:
        """Name of the run directory; cells that differ only in how they are scored share it."""
        masks = self.method and self.probe is None
        return _name(self.facts("space", "protocol")) if masks else self.name

    @property
    def fit(self) -> str:
        """Name of the model; cells that differ only in what is predicted and scored share it."""
        return _name(self.unrefined.facts("split", "space", "protocol", "probe"))

    @property
    def unrefined(self) -> Cell:
        """The cell without its student."""
        return replace(self, student=None, student_settings={})

    @property
    def row(self) -> str:
        """What cells that differ only in their seed share."""
        return _name(self.facts("seed"))


Maker = Callable[[Cell, Path, Path], object]  # cell, root of its data, run directory


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Cells, and what is shown of them.

    Attributes:
        title: one line above the table.
        cells: in the order of the table; those that differ only in their seed make one row.
        metrics: what the table shows, see `table.MEASURES`; preferences are measured only if named.
        x: the setting along a chart, or None.
        note: what every row is marked with, e.g. that its settings are not the published ones.
        makers: other ways than METHODS to fill a run directory with `masks/` and
            `categories.json`.
    """

    title: str
    cells: tuple[Cell, ...]
    metrics: tuple[str, ...] = ("miou", "pixel_accuracy")
    x: str | None = None
    note: str = ""
    makers: Mapping[str, Maker] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came out of an experiment.

    Attributes:
        results: cell and the content of its evaluation, in the order of the experiment.
        failures: name of a cell -> why it has no result.
    """

    results: list[tuple[Cell, dict[str, Any]]]
    failures: dict[str, str]


def _name(facts: Mapping[str, Any]) -> str:
    """Name a file: what can be read of the facts, and a hash of all of them."""
    text = json.dumps(facts, sort_keys=True)
    words = [str(facts[key]) for key in READABLE if facts.get(key)]
    words += [f"from-{facts['train']}"] if "train" in facts else []
    words += [f"by-{facts['student']}"] if "student" in facts else []
    words += [f"{key}{value}" for key, value in facts["settings"].items()]
    words += [f"seed{facts['seed']}"] if "seed" in facts else []
    readable = re.sub(r"[^\w.]+", "-", "-".join(words))[:LONGEST]
    return f"{readable}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
