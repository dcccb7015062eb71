"""Find the categories of a data set and keep them as a model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from zerolabel import backbones
from zerolabel.data.bands import PREVIEW, Three
from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.folder import find_images
from zerolabel.data.geometry import FULL, GEOMETRIES, through
from zerolabel.errors import DataError, ImageError, UsageError, unknown_name
from zerolabel.jobs.run.claim import check_place, claim, previous_backbone
from zerolabel.jobs.run.cost import account
from zerolabel.jobs.run.model import LEARNED, Model, restored
from zerolabel.jobs.run.place import note_place
from zerolabel.jobs.run.render import write_failures
from zerolabel.jobs.run.settings import build
from zerolabel.methods import auto_backbone
from zerolabel.methods.base import Method
from zerolabel.store import Progress, Stage, Store, write_json
from zerolabel.types import Sample

FEW = 5  # images below which the choice of k has nothing to stand on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a job is asked to do, apart from its data.

    Attributes:
        method: a key of METHODS.
        preset: a key of the method's PRESETS.
        backbone: a backbone's name, or "auto": DINO if its weights are here, else the embedded one.
        weights: a weights file, or None.
        device: "auto", "cpu", "cuda" or "mps".
        split: of a data set in a known layout, or None.
        geometry: a key of GEOMETRIES through which images are looked at; masks have its size.
        previews: numbers, from 0, of the bands that stand for red, green and blue in pictures of
            images with bands, and for methods that know no bands.
        settings: fields of the method's Config to change.
    """

    method: str = "datus"
    preset: str = "default"
    backbone: str = "auto"
    weights: str | None = None
    device: str = "auto"
    split: str | None = None
    geometry: str = FULL
    previews: Three = PREVIEW
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def view(self) -> dict[str, Any]:
        """Through what images are looked at: geometry and previews, as `open_samples` takes it."""
        return {"geometry": self.geometry, "previews": self.previews}


def open_samples(
    data: str | Path, split: str | None, *, geometry: str = FULL, previews: Three = PREVIEW
) -> tuple[Sequence[Sample], str]:
    """List the images of a folder, a file, or a data set in a known layout.

    Args:
        data: where they are.
        split: of a data set; a plain folder has none.
        geometry: a key of GEOMETRIES through which images are looked at.
        previews: which bands of a plain folder's images are red, green and blue, from 0.

    Returns:
        The samples sorted by id, and what they are in words.

    Raises:
        DataError: nothing is there.
        UsageError: a split was asked of a plain folder, or there is no such geometry.
    """
    if geometry not in GEOMETRIES:
        raise unknown_name("geometry", geometry, GEOMETRIES)
    view, path = GEOMETRIES[geometry], Path(data)
    seen = "" if geometry == FULL else f", through {geometry}"
    dataset = open_dataset(path, split=split) if path.is_dir() else None
    if dataset is not None:
        words = f"{dataset.name}, split {dataset.split}{seen}"
        return through(dataset.samples, view, dataset.name), words
    if split is not None:
        kind = "folder" if path.is_dir() else "file"
        raise UsageError(
            f"--split {split} needs a data set in a known layout (`zerolabel data list` names "
            f"them; or images/ beside masks/), but {path} is a plain {kind}. "
            "Leave --split out."
        )
    words = "a folder" if path.is_dir() else "one file"
    return through(find_images(path, previews=previews), view), words + seen


def prepare(options: Options, out: str | Path) -> Method:
    """Load the backbone and make the method, so that wrong options fail before any work is done.

    Args:
        options: what the job is asked to do.
        out: the run directory; an interrupted run keeps the backbone that "auto" was.

    Returns:
        The method, not fitted yet.

    Raises:
        UsageError: an unknown name or a setting that cannot be.
        WeightsError: weights that are missing or cannot be read.
    """
    asked = auto_backbone(options.method, options.backbone, weights=options.weights)
    name, hint = backbones.choose(asked, weights=options.weights)
    if asked == backbones.AUTO:  # which depends on the machine; a method's own does not
        name = previous_backbone(out) or name
    backbone = backbones.load(name, weights=options.weights, device=options.device)
    method = build(options.method, backbone, preset=options.preset, settings=options.settings)
    if name == backbones.SHIPPED:
        method.notes += [hint] if hint else []
    return method


def fit(
    data: str | Path,
    out: str | Path | None = None,
    *,
    options: Options | None = None,
    shared: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """Find the categories of a data set, and keep them as a model.

    Args:
        data: a folder of images at any depth, one image file, or a data set in a known layout.
        out: folder for `model.safetensors` and `model.json`; None keeps the model in memory.
        options: method, backbone and settings.
        shared: folder for what other runs can use, see `Store`.
        progress: called with (work, items done, items in all).

    Returns:
        The model; its `failures` name the images that could not be read.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    if out is None:  # finished work lies on disk all the same: memory must not grow with the images
        with TemporaryDirectory(prefix="zerolabel-") as folder:
            return fit(data, folder, options=options, shared=shared, progress=progress)
    began = time.perf_counter()
    options = options or Options()
    check_place(data, out)
    samples, _ = open_samples(data, options.split, **options.view)
    method = prepare(options, out)
    store = Store(out, shared=shared, report=progress)
    with store.lock():
        model = fit_in(store, samples, method, view=options.view)
        model.failures = _failures(samples)
        write_failures(Path(out), model.failures)
        model.save(out)
        images = len(samples) - len(model.failures)
        run = account(store, model, images=images, failed=len(model.failures), began=began)
        write_json(store.directory / "run.json", run | note_place(data, options.split))
    return model


def fit_in(
    store: Store,
    samples: Sequence[Sample],
    method: Method,
    *,
    view: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
    lessons: Callable[[], Sequence[Sample]] | None = None,
) -> Model:
    """Fit a method on samples, or take up what an earlier job on the same store has done.

    Args:
        store: keeps the stages; its lock must be held.
        samples: sorted by id.
        method: from `prepare`; fitted in place.
        view: what the samples are looked at through, see `Options.view`; kept in `run.json`.
        more: what else decides the result, in words.
        lessons: returns what the method learns from, if it is not the samples as they are; called
            when the directory is this job's, and only if the model is not there yet.

    Returns:
        The model.

    Raises:
        DataError: no image can be read; `failures.json` says why.
        StoreError: the run directory holds something else or cannot be written.
        UsageError: the settings do not fit the images.
    """
    backbone = method.backbone
    job = {
        "method": method.name,
        "config": dataclasses.asdict(method.config),
        "backbone": backbone.name,
        "weights": backbone.digest,
        **{f"weights of {name}": digest for name, digest in method.others().items()},
        **note(**(view or {})),
        **(more or {}),
    }
    claim(store, job, samples)

    def work() -> Stage:
        method.fit(samples if lessons is None else lessons(), store=store)
        learned = {LEARNED + name: value for name, value in backbone.state().items()}
        arrays = {name: value.numpy() for name, value in (method.arrays | learned).items()}
        info = {"curve": method.curve, "losses": method.losses, "notes": method.notes}
        return Stage(arrays, info | {"class_names": method.class_names})

    try:
        done = store.stage("model", work)
    except DataError:
        failures = _failures(samples, while_all=True)
        if store.root is not None and failures:
            write_failures(store.root, failures)
        raise
    tensors = {name: torch.from_numpy(value) for name, value in done.arrays.items()}
    method.arrays = restored(tensors, backbone)
    method.curve = {int(k): float(score) for k, score in done.info["curve"].items()}
    method.losses = {int(step): loss for step, loss in done.info["losses"].items()}
    method.class_names = tuple(done.info.get("class_names", ()))  # older runs know none
    method.notes = [*done.info["notes"], *_guess(method, len(samples))]
    return Model(method)


def note(*, geometry: str = FULL, previews: Three = PREVIEW) -> dict[str, Any]:
    """What `run.json` says of a view: nothing where images are taken as they are."""
    found: dict[str, Any] = {} if geometry == FULL else {"geometry": geometry}
    return found if tuple(previews) == PREVIEW else {**found, "previews": list(previews)}


def _guess(method: Method, images: int) -> list[str]:
    """Say so where the number of categories was chosen from too little."""
    asked = getattr(method.config, "k", None)
    if images >= FEW or method.class_names or not isinstance(asked, str):
        return []
    few = "one image is" if images == 1 else f"{images} images are"
    return [f"k = {method.k} is a guess, because {few} too few to choose it from; --k sets it"]


def _failures(samples: Sequence[Sample], *, while_all: bool = False) -> dict[str, str]:
    """Read images once more, which costs less than to segment them: id -> why one cannot be read.

    With `while_all` the first one that can be ends it: what went wrong was something else.
    """
    failures: dict[str, str] = {}
    for sample in samples:
        try:
            sample.load()
        except ImageError as error:
            failures[sample.id] = str(error)
        else:
            if while_all:
                return {}
    return failures
