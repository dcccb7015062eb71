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
from safetensors.torch import save_file

from zerolabel.backbones import SHIPPED
from zerolabel.backbones.registry import BACKBONES
from zerolabel.backbones.weights import find as find_weights
from zerolabel.data.planted import plant
from zerolabel.data.synthetic import world
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.methods import METHODS, find
from zerolabel.networks.resnet import ResNetConfig, random_resnet
from zerolabel.networks.students import IMAGES
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
LESS: dict[str, dict[str, Any]] = {  # what else the small version changes, by method
    "segmenter": {"short": SIDE, "window": SIDE, "stride": 192, "crop": 160, "batch": 2},
    "transfgu": {"zoom": 1.0, "crop_size": 96, "epochs": 12, "repeat": 1, "batch": 8},
}
LEAST: dict[str, dict[str, Any]] = {  # and a rehearsal
    "segmenter": {"short": 64, "window": 64, "stride": 64, "crop": 64, "batch": PLANTED},
    "transfgu": {"zoom": 2.0, "crop_size": 16, "epochs": 2, "repeat": 1, "batch": PLANTED}
    | {"start": 1, "intervals": (1,)},
}


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
            settings=_changed(
                cell, size=(SIDE, SIDE), iterations=ITERATIONS, **LESS.get(cell.method, {})
            ),
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
        settings = _changed(cell, size=TINY, iterations=STEPS, **LEAST.get(cell.method, {}))
        if cell.method and "k" in settings:
            settings["k"] = 1 if settings["k"] == 1 else 2
        if cell.method == "transfgu":
            settings |= _fewest(cell)
        if settings.get("student") in IMAGES:
            settings["student_weights"] = _body(root / "body.safetensors")
        return replace(cell, backbone=cell.backbone and RANDOM, settings=settings)

    return _scaled(experiment, shrink, DRY), places


def _fewest(cell: Cell) -> dict[str, int]:
    """How many categories a rehearsal has: two of objects, one of stuff where there is any."""
    preset = find(cell.method).PRESETS[cell.preset]
    stuff = min(1, preset.stuff)
    return {"k": 2 + stuff + (preset.background == "quiet"), "stuff": stuff}


def _body(path: Path) -> str:
    """Write the weights of a small residual network."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            random_resnet(ResNetConfig("basic", (1, 1, 1, 1), width=4), seed=0).state_dict(), path
        )
    return str(path)


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
