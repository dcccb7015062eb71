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

from zerolabel.backbones import NONE, SHIPPED
from zerolabel.backbones.registry import BACKBONES
from zerolabel.backbones.weights import find as find_weights
from zerolabel.data.planted import plant
from zerolabel.data.synthetic import world
from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.jobs.experiments.table import PREFERENCES
from zerolabel.methods import METHODS, WORDED, find
from zerolabel.networks.resnet import ResNetConfig, random_resnet
from zerolabel.networks.students import IMAGES
from zerolabel.recipes.places import CLASSIFIED

FEW = 24  # images of a split
LEARN = 48  # images of a split on which a method is fitted before it is scored elsewhere
SIDE = 224  # pixels at which the small version encodes
SMALL = "small: not the published setting"
DRY = "dry run: planted images, random weights"
RANDOM = "random-vitt16"
SPEAKING = "random-clipt16"  # for methods with words
ITERATIONS = 300  # of what the small version trains
TINY = (64, 64)  # pixels at which a rehearsal encodes: 16 patches
PLANTED, MORE = 2, 6  # images of a planted split; and where the places of objects are judged
STEPS = 2  # iterations of a rehearsal
STUDENT = "small"  # in the place of the published one, which takes the most time
_SQUARES = {"short": SIDE, "crop": SIDE, "views": 2, "batch": 4}
_LENGTHS = {"epochs": 0, "steps": ITERATIONS, "student_epochs": 0, "student_steps": ITERATIONS}
_FEWER = {"short": 32, "crop": 32, "views": 1, "batch": PLANTED, "templates": "plain"}
_SHORTEST = {"epochs": 0, "steps": STEPS, "student_epochs": 0, "student_steps": STEPS}
PUPIL = "light"  # the student of masks in the place of one that learns for hours
LEAST_PUPIL: dict[str, dict[str, Any]] = {  # what a rehearsal changes of a student of masks
    name: {"arch": arch, "start": "random", "size": TINY, "batch": PLANTED, "iterations": STEPS}
    for name, arch in (("deeplabv3", "small"), ("light", "vit-nano"))
}
LESS: dict[str, dict[str, Any]] = {  # what else the small version changes, by method
    "segmenter": {"short": SIDE, "window": SIDE, "stride": 192, "crop": 160, "batch": 2},
    "transfgu": {"zoom": 1.0, "crop_size": 96, "epochs": 12, "repeat": 1, "batch": 8},
    **dict.fromkeys(("unet", "wnet"), {"base": 16, "batch": 8}),
    **dict.fromkeys(WORDED, {**_SQUARES, **_LENGTHS, "student_batch": 4}),
}
LEAST: dict[str, dict[str, Any]] = {  # and a rehearsal
    **dict.fromkeys(("unet", "wnet"), {"base": 4, "batch": PLANTED}),
    "segmenter": {"short": 64, "window": 64, "stride": 64, "crop": 64, "batch": PLANTED},
    "transfgu": {"zoom": 2.0, "crop_size": 16, "epochs": 2, "repeat": 1, "batch": PLANTED}
    | {"start": 1, "intervals": (1,)},
    **dict.fromkeys(WORDED, {**_FEWER, **_SHORTEST, "student_batch": PLANTED, "crop_size": 32}),
}


def small(experiment: Experiment) -> Experiment:
    """Take few images of every split, one seed, and the backbone that comes along.

    Args:
        experiment: as published.

    Returns:
        The small one; a backbone whose weights are here stays, and so does one that reads words,
        which nothing that comes along can replace.
    """

    def shrink(cell: Cell) -> Cell:
        entry = BACKBONES.get(cell.backbone)
        here = entry is None or not entry.repo or find_weights(entry) is not None
        less = LESS.get(cell.method, {}) | _pupil(cell)
        return replace(
            cell,
            backbone=cell.backbone if here or cell.method in WORDED else SHIPPED,
            split=None if cell.data == CLASSIFIED else f"{cell.split or ''}:{FEW}",
            train=cell.train and _fewer(cell.train),
            settings=_changed(cell, size=(SIDE, SIDE), iterations=ITERATIONS, **less),
            probe=_probe(cell, (SIDE, SIDE)),
            student=cell.student and PUPIL,
            student_settings=_shorter(cell),
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
        own |= {name.partition(":")[0] for name in (cell.split, cell.train) if name}
        own |= {"train"} if not cell.method or cell.probe is not None else set()  # probes learn
    images = MORE if set(PREFERENCES) & set(experiment.metrics) else PLANTED
    places = {
        name: _classified(root / name)
        if name == CLASSIFIED
        else plant(name, root / name, images=images, size=(96, 96), splits=sorted(own) or None)
        for name, own in splits.items()
    }

    def shrink(cell: Cell) -> Cell:
        least = LEAST.get(cell.method, {}) | _pupil(cell)
        settings = _changed(cell, size=TINY, iterations=STEPS, **least)
        if cell.method and "k" in settings:
            settings["k"] = 1 if settings["k"] == 1 else 2
        if cell.method == "transfgu":
            settings |= _fewest(cell)
        if settings.get("classify") == "text":
            settings |= {"clip": SPEAKING, "clip_short": TINY[0], "templates": "plain"}
        if settings.get("student") in IMAGES:
            settings["student_weights"] = _body(root / "body.safetensors")
        if settings.get("crop_encoder") == "resnet":
            settings["crop_weights"] = _body(root / "body.safetensors")
        name = SPEAKING if cell.method in WORDED else RANDOM
        backbone = name if cell.backbone not in ("", NONE) else cell.backbone
        pupil = LEAST_PUPIL.get(cell.student or "", {})
        return replace(
            cell,
            backbone=backbone,
            settings=settings,
            probe=_probe(cell, TINY),
            student_settings={**cell.student_settings, **pupil},
        )

    return _scaled(experiment, shrink, DRY), places


def _fewer(split: str) -> str:
    """A split, or the part of it that is asked for, with `LEARN` images at most."""
    name, _, count = split.partition(":")
    return f"{name}:{min(LEARN, int(count or LEARN))}"


def _fewest(cell: Cell) -> dict[str, int]:
    """How many categories a rehearsal has: two of objects, one of stuff where there is any."""
    preset = find(cell.method).PRESETS[cell.preset]
    stuff = min(1, preset.stuff)
    return {"k": 2 + stuff + (preset.background == "quiet"), "stuff": stuff}


def _probe(cell: Cell, size: tuple[int, int]) -> dict[str, Any] | None:
    """One epoch of small images, where a student is probed."""
    return None if cell.probe is None else {**cell.probe, "size": size, "epochs": 1}


def _pupil(cell: Cell) -> dict[str, str]:
    """A small student where a method with words has a published one."""
    if cell.method not in WORDED:
        return {}
    asked = vars(find(cell.method).PRESETS[cell.preset]) | dict(cell.settings)
    wanted = asked.get("student", "none") != "none"
    return {"student": STUDENT, "student_weights": ""} if wanted else {}


def _shorter(cell: Cell) -> dict[str, Any]:
    """Settings of the light student, which another one's would not suit."""
    own = cell.student_settings if cell.student == PUPIL else {}
    return {**own, "iterations": ITERATIONS} if cell.student else {}


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
