"""Masks and overlays of a data set, and the statistics of its categories.

Shapes: `n` images, `K` categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import ImageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.names import plain
from zerolabel.methods.base import BATCH, Evidence
from zerolabel.outputs.masks import mask_names, write_mask
from zerolabel.outputs.overlay import jpeg, overlay, thumbnail
from zerolabel.store import Arrays, Stage, Store, write_bytes, write_json
from zerolabel.types import Category, Image, LabelMap, Sample

EXEMPLARS = 12  # images that a category is shown by
LARGE = 0.05  # share of an image from which on a region's size no longer counts for an exemplar
JPEG_SIDE = 65500  # the longest side that a JPEG can have


@dataclass(frozen=True)
class Rendered:
    """What was written, and what it holds.

    Attributes:
        samples: the n images that have a mask, sorted by id.
        masks: path of each mask inside the run.
        overlays: path of each overlay inside the run; empty if none were asked for.
        counts: int64 (n, K), pixels of each category.
        areas: int64 (n,), all pixels, also those without a category.
        typical: float32 (n, K), see `Evidence.typical`.
        parts: int64 (n,), regions found in each image; 0 where the method knows none.
        failures: id -> reason for the images that could not be read.
    """

    samples: list[Sample]
    masks: list[str]
    overlays: list[str]
    counts: NDArray[np.int64]
    areas: NDArray[np.int64]
    typical: NDArray[np.float32]
    parts: NDArray[np.int64]
    failures: dict[str, str]

    def shares(self, image: int) -> dict[int, float]:
        """Share of one image's pixels by category, for the categories in it."""
        row = self.counts[image]
        return {int(k): float(row[k] / self.areas[image]) for k in row.nonzero()[0]}


Hear = Callable[[Sample, Evidence], Evidence]


def render(
    model: Model,
    samples: Sequence[Sample],
    *,
    store: Store,
    overlays: bool,
    hear: Hear | None = None,
) -> Rendered:
    """Write a mask, and an overlay if asked for, for every image; finished batches are kept.

    Args:
        model: fitted.
        samples: sorted by id.
        store: of a run directory.
        overlays: whether to draw overlays.
        hear: adds to the evidence of a photo what is known of it beside the method; the model that
            is kept does not know that.

    Returns:
        What was written.

    Raises:
        StoreError: a file cannot be written.
    """
    names = mask_names([sample.id for sample in samples])
    work = partial(_batch, model, names=names, store=store, overlays=overlays, hear=hear)
    parts = []
    for i, batch in store.track("masks", samples, BATCH):

        def step(images: int, before: int = i * BATCH) -> None:
            store.report("masks", before + images, len(samples))

        stage = f"masks/{i:05d}"
        done = store.peek(stage)
        if done is not None:
            files = _files(store.directory, [names[name] for name in done.info["ids"]], overlays)
            if not all(file.exists() for file in files):  # deleted since, or never asked for
                store.forget(stage)
        parts.append(store.stage(stage, partial(work, batch, step=step)))
    return _join(parts, samples, names=names, overlays=overlays)


def summarise(model: Model, rendered: Rendered) -> tuple[Category, ...]:
    """Fill in the statistics of the categories: share of all pixels, images, exemplars."""
    total = max(1, int(rendered.areas.sum()))
    size = np.minimum(1, rendered.counts / (LARGE * rendered.areas[:, None]))
    worth = (1 + rendered.typical) * size  # a similarity from 0 up, less for small regions
    worth[rendered.counts == 0] = -np.inf
    categories = []
    for category in model.categories:
        order = np.argsort(-worth[:, category.id], kind="stable")[:EXEMPLARS]
        best = [rendered.samples[i].id for i in order if np.isfinite(worth[i, category.id])]
        counts = rendered.counts[:, category.id]
        share, images = float(counts.sum() / total), int((counts > 0).sum())
        categories.append(
            replace(category, pixel_share=share, image_count=images, exemplars=tuple(best))
        )
    return tuple(categories)


def write_categories(root: Path, categories: Sequence[Category]) -> None:
    """Write `categories.json`."""
    write_json(root / "categories.json", {"categories": [plain(c) for c in categories]})


def write_failures(root: Path, failures: dict[str, str]) -> None:
    """Write `failures.json`."""
    entries = [{"id": name, "reason": reason} for name, reason in sorted(failures.items())]
    write_json(root / "failures.json", {"failures": entries})


def _batch(
    model: Model,
    batch: Sequence[Sample],
    *,
    names: dict[str, str],
    store: Store,
    overlays: bool,
    hear: Hear | None,
    step: Callable[[int], None],
) -> Stage:
    """Write the files of one batch, saying how far it is, and return their statistics."""
    found, failures = model.method.evidence(batch, store=store)
    colours = np.array([category.colour for category in model.categories], np.uint8)
    K = len(colours)
    ids: list[str] = []
    counts, areas, typical, parts = [], [], [], []
    for sample, evidence in found:
        try:
            image = sample.load()
        except ImageError as error:  # it was readable a moment ago
            failures[sample.id] = str(error)
            continue
        if hear is not None:
            evidence = hear(sample, evidence)
        labels = model.label_map(evidence, image)
        mask, *drawn = _files(store.directory, [names[sample.id]], overlays)
        write_mask(mask, labels, colours=colours)
        for path in drawn:
            write_bytes(path, _drawing(image, labels, colours))
        ids.append(sample.id)
        counts.append(np.bincount(labels.ravel(), minlength=K)[:K])
        areas.append(labels.size)
        typical.append(evidence.typical.numpy())
        parts.append(0 if evidence.parts is None else int(evidence.parts.max()) + 1)
        step(min(len(ids), len(batch) - 1))  # the last one is done when the batch is
    arrays: Arrays = {
        "counts": np.array(counts, np.int64).reshape(-1, K),
        "areas": np.array(areas, np.int64),
        "typical": np.array(typical, np.float32).reshape(-1, K),
        "parts": np.array(parts, np.int64),
    }
    return Stage(arrays, {"ids": ids, "failures": failures})


def _files(root: Path, masks: Sequence[str], overlays: bool) -> list[Path]:
    """The files behind masks: themselves, then their overlays if asked for."""
    files = [root / "masks" / name for name in masks]
    return files + [root / _overlay(name) for name in masks] if overlays else files


def _overlay(mask: str) -> str:
    return Path("overlays", mask).with_suffix(".jpg").as_posix()


def _drawing(image: Image, labels: LabelMap, colours: NDArray[np.uint8]) -> bytes:
    return jpeg(thumbnail(overlay(image, labels, colours=colours), side=JPEG_SIDE))


def _join(
    parts: list[Stage], samples: Sequence[Sample], *, names: dict[str, str], overlays: bool
) -> Rendered:
    by_id = {sample.id: sample for sample in samples}
    ids = [name for part in parts for name in part.info["ids"]]
    failures: dict[str, str] = {}
    for part in parts:
        failures |= part.info["failures"]
    return Rendered(
        samples=[by_id[name] for name in ids],
        masks=[f"masks/{names[name]}" for name in ids],
        overlays=[_overlay(names[name]) for name in ids] if overlays else [],
        failures=failures,
        **{
            name: np.concatenate([part.arrays[name] for part in parts])
            for name in ("counts", "areas", "typical", "parts")
        },
    )
