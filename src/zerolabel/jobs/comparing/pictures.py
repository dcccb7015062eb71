"""Pictures of a comparison: the worst and best images, and the figure that papers show.

Predictions are painted in the colour of the class that the whole data set's matching gave their
cluster; no image is matched on its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zerolabel.data.benchmarks import Dataset
from zerolabel.data.geometry import GEOMETRIES, view_image, view_label
from zerolabel.errors import DataError
from zerolabel.evaluation.confusion import Confusion, scores
from zerolabel.jobs.comparing.table import Column, Score
from zerolabel.jobs.scoring.masks import find_masks, meet
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.grid import SIDE, class_colours, draw_grid
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.overlay import colourise, thumbnail
from zerolabel.outputs.views import inline_view
from zerolabel.store import Progress
from zerolabel.types import Exhibit, Image, LabelMap, Sample

ENDS = 4  # images at either end of a ranking
NO_CLASS, NOT_SCORED = "no class", "not scored"
Shares = NDArray[np.float64]


class Gallery:
    """The images of one column, and what its runs made of them.

    Classes are numbered as they are scored, 0..C-1; C is no class, C + 1 what is not scored.
    """

    def __init__(self, column: Column, runs: Sequence[tuple[str, Score]], dataset: Dataset) -> None:
        """Find the masks.

        Args:
            column: whose rules hold.
            runs: those that are drawn, each with its name.
            dataset: labelled, of the column.

        Raises:
            DataError: a run has no masks for it any more.
        """
        self.column, self.runs, self.dataset = column, runs, dataset
        rules = json.loads(column.rules)
        self.geometry = GEOMETRIES[rules["geometry"]]
        self.first = int(rules["background"] == "ignored")
        self.ignore = rules["ignore"]
        self.masks = [find_masks(score.run / "masks", dataset) for _, score in runs]
        self.samples = [s for s in dataset.samples if all(s.id in masks for masks in self.masks)]
        self.lookup = [_lookup(score, self.first) for _, score in runs]

    def maps(self, sample: Sample) -> tuple[LabelMap, list[LabelMap]]:
        """Read the truth of an image, and what each run made of it.

        Returns:
            int16 (H, W), and one for each run.

        Raises:
            DataError: a mask has changed since it was scored.
        """
        if sample.load_label is None:
            raise DataError(f"{sample.id} has no label any more. Restore it, or evaluate again.")
        label, C = sample.load_label(), len(self.column.classes)
        truth = view_label(label, self.geometry, self.dataset.name).astype(np.int16) - self.first
        truth[(truth < 0) | (truth >= C)] = C + 1
        predictions = []
        for masks, lookup in zip(self.masks, self.lookup, strict=True):
            pair = meet(label, read_mask(masks[sample.id]), self.geometry, self.dataset.name)
            if pair is None:
                raise DataError(f"{masks[sample.id]} has another size than when it was scored.")
            predictions.append(lookup[np.minimum(pair[1], len(lookup) - 1)])
        return truth, predictions

    def score(self, sample: Sample) -> list[float]:
        """Score an image, for each run.

        Returns:
            The mean IoU of the classes that are in its truth or in its prediction; NaN where no
            pixel is scored.
        """
        truth, predictions = self.maps(sample)
        C, found = len(self.column.classes), []
        for prediction in predictions:
            confusion = Confusion(C, C)
            confusion.add(truth, prediction)
            try:
                found.append(scores(confusion.counts, matching="identity", ignore=self.ignore).miou)
            except DataError:
                found.append(float("nan"))
        return found

    def panel(self, sample: Sample) -> list[Image]:
        """Draw photo, truth and the prediction of each run, at most `SIDE` pixels large."""
        photo = sample.load()
        if not self.geometry.own_labels:  # else it would be squashed beside masks that are not
            photo = view_image(photo, self.geometry, self.dataset.name)
        photo = thumbnail(photo, side=SIDE)
        truth, predictions = self.maps(sample)
        colours = class_colours(self.column.classes)
        small = [resize_labels(classes, photo.shape[:2]) for classes in (truth, *predictions)]
        return [photo, *(colourise(classes, colours) for classes in small)]

    def legend(self, samples: Sequence[Sample]) -> dict[str, list[int]]:
        """Name the colours in the pictures of some images: name -> RGB."""
        seen: set[int] = set()
        for sample in samples:
            truth, predictions = self.maps(sample)
            seen |= {int(i) for classes in (truth, *predictions) for i in np.unique(classes)}
        names = [*self.column.classes, NO_CLASS, NOT_SCORED]
        colours = class_colours(self.column.classes).tolist()
        return {names[i]: colours[i] for i in sorted(seen)}


def ranked(gallery: Gallery, *, title: str, progress: Progress | None = None) -> list[Exhibit]:
    """Show the images that are scored best, worst, and most differently.

    Args:
        gallery: of a column.
        title: of the column.
        progress: called with (work, items done, items in all).

    Returns:
        Exhibits of kind "images".
    """
    table = []
    for i, sample in enumerate(gallery.samples, 1):
        table.append(gallery.score(sample))
        if progress:
            progress(f"images of {title}", i, len(gallery.samples))
    found = np.array(table).reshape(len(table), -1)
    kept = np.flatnonzero(~np.isnan(found).any(axis=1))
    means, spans = found.mean(axis=1), np.ptp(found, axis=1)
    orders = {
        "Best images": kept[np.argsort(-means[kept], kind="stable")],
        "Worst images": kept[np.argsort(means[kept], kind="stable")],
    }
    if len(gallery.runs) > 1:
        orders["Largest differences"] = kept[np.argsort(-spans[kept], kind="stable")]
    caption = (
        "Numbers are the mean IoU, in percent, of the classes in the truth or the prediction of "
        "this one image, with the matching of the whole data set; they are not comparable with "
        f"mIoU. Grey is no class, white is not scored. {gallery.column.words}."
    )
    exhibits = []
    for name, order in orders.items():
        samples = [gallery.samples[i] for i in order[:ENDS]]
        keys = [{"name": name, "colour": rgb} for name, rgb in gallery.legend(samples).items()]
        rows = [_strip(gallery, gallery.samples[i], found[i]) for i in order[:ENDS]]
        data = {"rows": rows, "legend": keys}
        exhibits.append(Exhibit("images", f"{name}: {title}", data, caption))
    return exhibits


def figure(gallery: Gallery, count: int, *, seed: int | None = None) -> Image:
    """Draw the qualitative figure of papers.

    Args:
        gallery: of a column.
        count: number of images.
        seed: draws them by chance; None takes them at even distances.

    Returns:
        uint8 (H, W, 3).
    """
    samples = [gallery.samples[i] for i in _chosen(len(gallery.samples), count, seed)]
    scored = [f"{name} (mIoU {100 * s.result['miou']:.1f})" for name, s in gallery.runs]
    K = sorted({s.result["clusters"] for _, s in gallery.runs})
    return draw_grid(
        [gallery.panel(sample) for sample in samples],
        titles=["photo", "truth", *scored],
        legend=gallery.legend(samples),
        caption=f"{gallery.column.words}, K = {', '.join(map(str, K))}; mIoU in percent.",
    )


def _lookup(score: Score, first: int) -> LabelMap:
    """The class of every cluster, and at the end of none."""
    C = len(score.column.classes)
    lookup = np.full(score.result["clusters"] + 1, C, np.int16)
    for entry in score.result["matching"]:
        if entry["class"] is not None:
            lookup[entry["cluster"]] = entry["class"] - first
    return lookup


def _strip(gallery: Gallery, sample: Sample, found: Shares) -> dict[str, object]:
    """Lay one image out for the page."""
    photo, truth, *predictions = gallery.panel(sample)
    views = [(inline_view("photo", photo), "photo"), (inline_view("mask", truth), "truth")]
    for (name, _), picture, share in zip(gallery.runs, predictions, found, strict=True):
        views.append((inline_view("mask", picture), f"{name}: {100 * share:.1f}"))
    return {"name": sample.id, "views": views}


def _chosen(total: int, count: int, seed: int | None) -> list[int]:
    """Places of the images of a figure, rising."""
    count = min(count, total)
    if seed is not None:
        return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]
