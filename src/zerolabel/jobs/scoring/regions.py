"""Score the regions of runs against those that people outlined: the protocol bsds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.data.benchmarks import Dataset, open_dataset
from zerolabel.errors import DataError
from zerolabel.evaluation.boundaries import Boundaries, boundaries
from zerolabel.evaluation.regions import BSDS, Regions
from zerolabel.jobs.scoring.facts import check_suits, read_facts
from zerolabel.jobs.scoring.labelled import facts
from zerolabel.jobs.scoring.masks import find_masks, read_categories
from zerolabel.ops.regions import components
from zerolabel.outputs.masks import read_mask
from zerolabel.store import Progress, Store, write_json
from zerolabel.types import LabelMap, Sample

SPLIT = "test"  # that of all published numbers
CELLS = 4  # of the grid that knows nothing, per side
BATCH = 4  # images between two signs of progress
Outlined = tuple[LabelMap, NDArray[np.bool_]]  # regions and the boundaries between them


def evaluate_regions(
    runs: Sequence[str | Path],
    data: str | Path,
    *,
    split: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the regions of runs against all annotators of BSDS500.

    The regions of a mask are the pieces of one category that hold together, corners included: in
    that sense every annotator's region is one piece, and without corners many would not be. No
    region is dropped. The runs are the levels of one segmentation, e.g. with K = 2, 4, 8, 16.

    Args:
        runs: directories with `masks/` and `categories.json`.
        data: root of a data set with regions.
        split: a split of it; the default is "test", that of the published numbers.
        out: folder that takes `evaluation-bsds.json`; None stands for the first run.
        progress: called with (work, items done, items in all).

    Returns:
        The content of the file: protocol, data, `levels` with each run's scores, for every measure
        its `ods`, `ois` and `level`, and `references`: what knows nothing, and each annotator
        against the others of the image. Scores are 0..1, `vi` is in bits.

    Raises:
        DataError: no data set with regions, no image that every run has a mask of, or masks of
            another size than the image.
        UsageError: no such split, or a run made through another geometry.
        StoreError: the run's categories cannot be read or the result cannot be written.
    """
    places = [Path(run) for run in runs]
    made = [read_facts(place) for place in places]
    for each in made:
        check_suits(each, BSDS)
    names = [read_categories(place / "categories.json") for place in places]
    dataset = _open(Path(data), split)
    masks = [find_masks(place / "masks", dataset) for place in places]
    scored = [sample for sample in dataset.samples if all(sample.id in m for m in masks)]
    if not scored:
        raise DataError(
            f"No image of {dataset.name} {dataset.split} has a mask in all of "
            f"{', '.join(map(str, places))}. Segment the same split in each run."
        )
    tally = _Tally(len(places))
    for _, batch in Store(report=progress).track("score", scored, BATCH):
        for sample in batch:
            try:
                tally.add(sample, [read_mask(own[sample.id]) for own in masks])
            except DataError as error:
                raise DataError(f"{sample.id}: {error}") from None
    result = facts(dataset, BSDS, [sample.id for sample in scored])
    result |= {"data_root": str(Path(data).resolve()), "run": made[0], "connectivity": 8}
    result |= tally.result()
    for level, place in enumerate(places):
        about = {"run": str(place), "clusters": len(names[level]), "made": made[level]}
        result["levels"][level] = about | result["levels"][level]
    write_json((Path(out) if out is not None else places[0]) / f"evaluation-{BSDS.id}.json", result)
    return result


def _open(root: Path, split: str | None) -> Dataset:
    """Open a data set and keep the samples that have regions."""
    dataset = open_dataset(root, split=split or SPLIT)
    samples = () if dataset is None else tuple(s for s in dataset.samples if s.load_regions)
    if dataset is None or not samples:
        found = f"{dataset.name} without any" if dataset else "no data set"
        raise DataError(
            f"{root} has no regions by annotators: expected BSDS500 in its published layout, with "
            f"groundTruth/{split or SPLIT}/*.mat, found {found}. Data sets with classes have other "
            "protocols, such as full."
        )
    return replace(dataset, samples=samples)


class _Meter:
    """All measures of one thing that is compared with the annotators."""

    def __init__(self) -> None:
        self.regions, self.boundaries = Regions(), Boundaries()

    def add(self, levels: Sequence[Outlined], annotators: Sequence[Outlined]) -> dict[str, Any]:
        """Add one image; returns its own scores, per level."""
        covering, pri, vi = self.regions.add(
            [regions for regions, _ in levels], [regions for regions, _ in annotators]
        )
        f = self.boundaries.add([edges for _, edges in levels], [edges for _, edges in annotators])
        found = {"covering": covering, "pri": pri, "vi": vi, "f": f}
        return {name: values.tolist() for name, values in found.items()}

    def scores(self) -> dict[str, Any]:
        """Pool the images: for every measure its ODS and OIS, and the scores of each level."""
        regions, edges = self.regions.score(), self.boundaries.score()
        found = {name: getattr(regions, name) for name in ("covering", "pri", "vi")}
        found["f"] = edges.f
        pooled = {name: asdict(measure) for name, measure in found.items()}
        each = {name: measure.pop("each") for name, measure in pooled.items()}
        each |= {"precision": edges.precision, "recall": edges.recall}
        levels = [dict(zip(each, row, strict=True)) for row in zip(*each.values(), strict=True)]
        pooled["covering"]["best"] = regions.covering_best
        return {"levels": levels, **pooled}


class _Tally:
    """Adds up images one by one, with what they are to be seen beside."""

    def __init__(self, levels: int) -> None:
        self.runs, self.whole, self.grid, self.people = (_Meter() for _ in range(4))
        self.per_image: list[dict[str, Any]] = []
        self.regions = np.zeros(levels, np.int64)
        self.annotators = self.outlined = 0

    def add(self, sample: Sample, masks: Sequence[LabelMap]) -> None:
        """Score one image: the masks of all runs, and what they are to be seen beside."""
        truth = [_outline(regions) for regions in (sample.load_regions or list)()]
        levels = [_outline(components(mask, connectivity=8)) for mask in masks]
        self.per_image.append({"id": sample.id, **self.runs.add(levels, truth)})
        self.whole.add([_outline(_grid(masks[0].shape, 1))], truth)
        self.grid.add([_outline(_grid(masks[0].shape, CELLS))], truth)
        if len(truth) > 1:
            for one, own in enumerate(truth):
                self.people.add([own], truth[:one] + truth[one + 1 :])
        self.regions += [int(regions.max()) + 1 for regions, _ in levels]
        self.annotators += len(truth)
        self.outlined += sum(len(np.unique(regions)) for regions, _ in truth)

    def result(self) -> dict[str, Any]:
        """Everything that was added, as JSON."""
        found = self.runs.scores()
        images = len(self.per_image)
        for level, count in zip(found["levels"], self.regions, strict=True):
            level["regions"] = int(count) / images
        others = {"whole image": self.whole, f"grid {CELLS}x{CELLS}": self.grid}
        if self.annotators > images:
            others["annotators"] = self.people
        return {
            "annotators": self.annotators,
            "annotated_regions": self.outlined / self.annotators,
            **found,
            "references": {name: meter.scores()["levels"][0] for name, meter in others.items()},
            "per_image": self.per_image,
        }


def _outline(regions: LabelMap) -> Outlined:
    return regions, boundaries(regions)


def _grid(shape: tuple[int, ...], cells: int) -> LabelMap:
    """Cut an image into a fixed grid of equal cells."""
    rows, columns = (np.arange(side) * cells // side for side in shape)
    return np.asarray(rows[:, None] * cells + columns)
