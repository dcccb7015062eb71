"""Run an experiment: one cell after another, what is done not again, features once for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolabel import __version__, backbones
from zerolabel.backbones import Backbone
from zerolabel.data.geometry import GEOMETRIES
from zerolabel.errors import (
    DataError,
    StoreError,
    UsageError,
    WeightsError,
    ZerolabelError,
    unknown_name,
)
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.experiments.cells import Cell, Experiment, Maker, Outcome
from zerolabel.jobs.experiments.students import check_student, refine_cell
from zerolabel.jobs.experiments.table import PREFERENCES
from zerolabel.jobs.fit import Options, fit
from zerolabel.jobs.predict import predict
from zerolabel.jobs.run.settings import build
from zerolabel.jobs.scoring.bias import bias
from zerolabel.jobs.scoring.judges import job_of
from zerolabel.jobs.segment import segment
from zerolabel.methods import auto_backbone, find
from zerolabel.methods.configs import configure
from zerolabel.store import Progress, Store, prefixed, read_json, write_json


def run(
    experiment: Experiment,
    places: Mapping[str, Path],
    out: str | Path,
    *,
    weights: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Outcome:
    """Run all cells that are not done yet; one that fails is listed, and the rest goes on.

    Args:
        experiment: what to run.
        places: root of every data set that is here, by the name that cells give it.
        out: takes `runs/`, `cells/`, `models/` and `features/`, made if missing.
        weights: weights file of the backbones that need one.
        device: "auto", "cpu", "cuda" or "mps".
        progress: called with (work, items done, items in all).

    Returns:
        Results and failures.

    Raises:
        UsageError: a name or a setting that cannot be, found before any work is done.
        StoreError: `out` is in use, cannot be written, or is of another version.
    """
    check(experiment, weights=weights, device=device)
    store = Store(out)
    results, failures = [], {}
    with store.lock():
        _claim(store.directory)
        for number, cell in enumerate(experiment.cells, 1):
            where = (
                f"{number}/{len(experiment.cells)} {cell.method or cell.protocol} on {cell.data}"
            )
            report = prefixed(progress, f"{where}: ")
            try:
                if cell.data not in places:
                    raise DataError(f"The data set {cell.data} is not there.")
                more = tuple(name for name in PREFERENCES if name in experiment.metrics)
                place = places[cell.data]
                job = _Job(cell, place, store.directory, weights, device, report, more)
                results.append((cell, job.result(experiment.makers)))
            except ZerolabelError as error:
                failures[cell.name] = str(error)
    return Outcome(results, failures)


def check(experiment: Experiment, *, weights: str | None, device: str) -> None:
    """Refuse names and settings that cannot be, before any work is done.

    Weights that are missing are no reason: only the cells that need them fail.

    Raises:
        UsageError: the first one that is found.
    """
    names = {cell.backbone for cell in experiment.cells if cell.method not in experiment.makers}
    if weights is not None and len(names) > 1:
        raise UsageError(
            f"One weights file was given for {len(names)} backbones: {', '.join(sorted(names))}. "
            "Leave --weights out; published weights come by `zerolabel models get`."
        )
    loaded: dict[str, Backbone | None] = {}
    for cell in experiment.cells:
        if cell.protocol not in PROTOCOLS:
            raise unknown_name("protocol", cell.protocol, PROTOCOLS)
        if cell.geometry not in GEOMETRIES:
            raise unknown_name("geometry", cell.geometry, GEOMETRIES)
        judges = PROTOCOLS[cell.protocol].judges
        if (bool(cell.method) and cell.probe is None) != (judges in ("masks", "regions")):
            raise UsageError(
                f"Protocol {cell.protocol} judges {judges}, and {cell.method or 'no method'} was "
                "given. Give a method for masks and regions, and none for what a backbone computes."
            )
        _check_train(cell, fitted=bool(cell.method) and cell.method not in experiment.makers)
        check_student(cell)
        if not cell.method or cell.method in experiment.makers:
            continue
        kind = find(cell.method)
        name = auto_backbone(cell.method, cell.backbone, weights=weights)
        if name not in loaded:
            loaded[name] = _load(name, weights, device)
        backbone = loaded[name]
        if backbone is None:
            configure(kind.PRESETS, cell.preset, cell.settings)
        else:
            build(cell.method, backbone, preset=cell.preset, settings=cell.settings)


def _check_train(cell: Cell, *, fitted: bool) -> None:
    if cell.train is not None and not fitted:
        raise UsageError(
            f"{cell.method or cell.protocol} is not fitted, and the split {cell.train} was given "
            "to fit on. Leave it out."
        )


def _load(name: str, weights: str | None, device: str) -> Backbone | None:
    """Load a backbone; None if its weights are not here."""
    name, _ = backbones.choose(name, weights=weights)
    try:
        return backbones.load(name, weights=weights, device=device)
    except WeightsError:
        return None


@dataclass(frozen=True)
class _Job:
    """One cell on its data."""

    cell: Cell
    root: Path
    out: Path
    weights: str | None
    device: str
    report: Progress
    preferences: tuple[str, ...] = ()  # those that are wanted besides the scores

    def result(self, makers: Mapping[str, Maker]) -> dict[str, Any]:
        """Return the evaluation of the cell, doing what is not done yet."""
        kept = self.out / "cells" / f"{self.cell.name}.json"
        root = str(self.root.resolve())
        if kept.exists():
            before = read_json(kept)
            if before["data_root"] == root and set(self.preferences) <= set(before["result"]):
                return dict(before["result"])
        folder = self.out / "runs" / self.cell.run
        if not self.cell.method:
            made = self._judge(folder, self.cell.settings)
        elif self.cell.probe is None:
            made = self._masks(folder, makers)
        else:
            made = self._student(folder, self.cell.probe)
        write_json(kept, {"cell": self.cell.facts(), "data_root": root, "result": made})
        return made

    def _masks(self, folder: Path, makers: Mapping[str, Maker]) -> dict[str, Any]:
        """Segment, unless another cell has, and score."""
        cell = self.cell
        if cell.student is None:
            self._segment(folder, makers)
        else:
            before = self.out / "runs" / cell.unrefined.run
            self._segment(before, makers)
            refine_cell(
                cell,
                before,
                folder,
                data=self.root,
                shared=self.out / "features",
                device=self.device,
                progress=self.report,
            )
        given: dict[str, Any] = {"split": cell.split, "progress": self.report}
        if PROTOCOLS[cell.protocol].judges == "regions":
            return job_of(cell.protocol)([folder], self.root, **given)
        given |= {"protocol": cell.protocol, "space": cell.space}
        found = evaluate(folder, self.root, **given)
        if self.preferences:
            measured = bias(folder, self.root, **given)
            found |= {name: measured[name] for name in self.preferences}
        return found

    def _segment(self, folder: Path, makers: Mapping[str, Maker]) -> None:
        """Fill a run directory by the method alone."""
        cell = self.cell
        if cell.method in makers:
            makers[cell.method](cell, self.root, folder)
        elif cell.train is None:
            segment(
                self.root,
                folder,
                options=self._options(cell.split),
                overlays=False,
                report=False,
                shared=self.out / "features",
                progress=self.report,
            )
        else:
            self._predict(folder)

    def _fit(self) -> Path:
        """Fit on one split, unless another cell has; returns the folder of the model."""
        model, shared = self.out / "models" / self.cell.fit, self.out / "features"
        options = self._options(self.cell.train)
        fit(self.root, model, options=options, shared=shared, progress=self.report)
        return model

    def _predict(self, folder: Path) -> None:
        """Fit on one split, and segment the one that is scored."""
        cell = self.cell
        predict(
            self._fit(),
            self.root,
            folder,
            split=cell.split,
            geometry=cell.geometry,
            weights=self.weights,
            device=self.device,
            overlays=False,
            report=False,
            shared=self.out / "features",
            progress=self.report,
        )

    def _student(self, folder: Path, probe: Mapping[str, Any]) -> dict[str, Any]:
        """Fit on one split, and score the student as a backbone."""
        taught = {"backbone": backbones.STUDENT, "weights": self._fit() / "model.safetensors"}
        return self._judge(folder, {**probe, "space": self.cell.space, **taught})

    def _options(self, split: str | None) -> Options:
        """What the cell asks of a job on a split."""
        cell = self.cell
        return Options(
            method=cell.method,
            preset=cell.preset,
            backbone=cell.backbone,
            weights=self.weights,
            device=self.device,
            split=split,
            geometry=cell.geometry,
            settings={**cell.settings, "seed": cell.seed},
        )

    def _judge(self, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Score a backbone: that of the cell, unless the settings name another."""
        cell = self.cell
        given: dict[str, Any] = {"backbone": cell.backbone, "weights": self.weights, **settings}
        given |= {"out": folder, "progress": self.report, "device": self.device}
        if cell.protocol == "knn":
            return job_of(cell.protocol)(*_bank(self.root), **given)
        return job_of(cell.protocol)(self.root, split=cell.split, **given)


def _bank(root: Path) -> tuple[list[Path], Path]:
    """The known images and the queries of a classified data set: folders, or `.npz` packs."""
    packs = sorted(root.glob("train*.npz"))
    return packs or [root / "train"], root / "val.npz" if packs else root / "val"


def _claim(out: Path) -> None:
    """Refuse a folder whose results come from another version of the program."""
    path = out / "experiment.json"
    if path.exists() and (found := read_json(path)["zerolabel"]) != __version__:
        raise StoreError(
            f"{out} holds results of zerolabel {found}, and this is {__version__}. Choose another "
            "--out, or delete that folder."
        )
    write_json(path, {"zerolabel": __version__})
