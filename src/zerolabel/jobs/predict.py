"""Masks for new images from a model that was fitted before."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from zerolabel.data.bands import PREVIEW, Three
from zerolabel.data.geometry import FULL
from zerolabel.jobs.fit import note, open_samples
from zerolabel.jobs.run.claim import check_place, claim
from zerolabel.jobs.run.finish import Run, finish
from zerolabel.jobs.run.model import Model, load
from zerolabel.jobs.run.names import unnamed_digest
from zerolabel.jobs.run.place import note_place
from zerolabel.jobs.run.student import OnnxModel
from zerolabel.store import Progress, Store


def predict(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    geometry: str = FULL,
    previews: Three = PREVIEW,
    weights: str | Path | None = None,
    device: str = "auto",
    overlays: bool = True,
    report: bool = True,
    shared: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Segment images with the categories of a model.

    Args:
        model: a folder that `fit` or `segment` wrote, or an ONNX file that `export_network` wrote.
        data: a folder of images, one image file, or a data set in a known layout.
        out: the run directory, made if missing.
        split: of a data set, or None.
        geometry: a key of GEOMETRIES through which images are looked at; masks have its size.
        previews: which bands of images with bands are red, green and blue, from 0.
        weights: the backbone's weights file, if they are not in the cache.
        device: where the backbone runs.
        overlays: whether to draw overlays.
        report: whether to write the report.
        shared: folder for what other runs can use, see `Store`.
        progress: called with (work, items done, items in all).

    Returns:
        The run.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    began = time.perf_counter()
    check_place(data, out)
    samples, words = open_samples(data, split, geometry=geometry, previews=previews)
    fitted = load(model, weights=weights, device=device)
    job = {
        "model": _digest(fitted, Path(model)),
        "method": fitted.method.name,
        "config": dataclasses.asdict(fitted.method.config),
        "backbone": fitted.method.backbone.name,
        **note(geometry=geometry, previews=previews),
    }
    store = Store(out, shared=shared, report=progress)
    with store.lock():
        claim(store, job, samples)
        return finish(
            fitted,
            samples,
            store=store,
            words=words,
            place=note_place(data, split),
            began=began,
            overlays=overlays,
            report=report,
        )


def _digest(model: Model, folder: Path) -> str:
    """A hash of all that the model is but for the names of its categories."""
    if isinstance(model, OnnxModel):
        return model.digest
    return unnamed_digest(folder / "model.json")  # it names the hash of the tensors
