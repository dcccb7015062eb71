"""A recipe made smaller: few images and the weights that are here, or a rehearsal on planted data.

Both keep what a recipe is made of (folders, settings, protocol, table) and mark every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from zerolabel.backbones import SHIPPED
from zerolabel.backbones.registry import BACKBONES
from zerolabel.backbones.weights import find as find_weights
from zerolabel.data.planted import plant
from zerolabel.data.synthetic import world
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.methods import METHODS, find
from zerolabel.recipes.places import CLASSIFIED

FEW = 24  # images of a split
LEARN = 48  # images of a split on which a method is fitted before it is scored elsewhere
SIDE = 224  # pixels at which the small version encodes
SMALL = "small: not the published setting"
DRY = "dry run: planted images, random weights"
RANDOM = "random-vitt16"
ITERATIONS = 300  # of what the small version trains
TINY = (64, 64)  # pixels at which a rehearsal encodes: 16 patches
PLANTED = 2  # images of a planted split
STEPS = 2  # iterations of a rehearsal


def small(experiment: Experiment) -> Experiment:
    """Take few images of every split, one seed, and the backbone that comes along.

    Args:
        experiment: as published.

    Returns:
        The small one; a backbone whose weights are here stays.
    """

    def shrink(cell: Cell) -> Cell:
        entry = BACKBONES.get(cell.backbone)
        here = entry is None or not entry.repo or find_weights(entry) is not None
        return replace(
            cell,
            backbone=cell.backbone if here else SHIPPED,
            split=None if cell.data == CLASSIFIED else f"{cell.split or ''}:{FEW}",
            train=cell.train and f"{cell.train}:{LEARN}",
            settings=_changed(cell, size=(SIDE, SIDE), iterations=ITERATIONS),
        )

    return _scaled(experiment, shrink, SMALL)


def rehearse(experiment: Experiment, root: Path) -> tuple[Experiment, dict[str, Path]]:
    """Plant the data sets of a recipe in their published folders, and make its cells tiny.

    Args:
        experiment: as published.
        root: folder that takes the data sets.

    Returns:
        The rehearsal, and the places of its data.
    """
    splits: dict[str, set[str]] = {}
    for cell in experiment.cells:
        own = splits.setdefault(cell.data, set())
        own |= {name for name in (cell.split, cell.train) if name}
        own |= set() if cell.method else {"train"}  # a probe learns from it
    places = {
        name: _classified(root / name)
        if name == CLASSIFIED
        else plant(name, root / name, images=PLANTED, size=(96, 96), splits=sorted(own) or None)
        for name, own in splits.items()
    }

    def shrink(cell: Cell) -> Cell:
        settings = _changed(cell, size=TINY, iterations=STEPS)
        if cell.method and "k" in settings:
            settings["k"] = 1 if settings["k"] == 1 else 2
        return replace(cell, backbone=cell.backbone and RANDOM, settings=settings)

    return _scaled(experiment, shrink, DRY), places


def _changed(cell: Cell, **changes: Any) -> dict[str, Any]:
    """The settings of a cell with those changed that what it runs has; every judge has a size."""
    presets = find(cell.method).PRESETS if cell.method in METHODS else {}
    start = presets.get(cell.preset)
    own = {name for name in changes if hasattr(start, name)} if cell.method else {"size"}
    return {**cell.settings, **{name: changes[name] for name in sorted(own)}}


def _scaled(experiment: Experiment, shrink: Callable[[Cell], Cell], note: str) -> Experiment:
    """Change every cell, with the first seed of each, and drop those that became equal."""
    first = min((cell.seed for cell in experiment.cells), default=0)
    cells = _distinct(shrink(cell) for cell in experiment.cells if cell.seed == first)
    return replace(experiment, cells=cells, note=note)


def _distinct(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple({cell.name: cell for cell in cells}.values())


def _classified(root: Path) -> Path:
    """Plant images of two classes, a folder each."""
    for s, split in enumerate(("train", "val")):
        for c, name in enumerate(("a", "b")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i, sample in enumerate(world(2, images=2, size=(64, 64), seed=2 * s + c)):
                Pillow.fromarray(np.asarray(sample.load())).save(folder / f"{i}.png")
    return root
