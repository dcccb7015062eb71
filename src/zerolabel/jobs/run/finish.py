"""The end of a job: masks, lists, model and report, and `run.json` with what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolabel.errors import DataError, ZerolabelError
from zerolabel.jobs.run.cost import account, in_words
from zerolabel.jobs.run.exhibits import exhibits
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.names import keep_names
from zerolabel.jobs.run.render import (
    Hear,
    Rendered,
    render,
    summarise,
    write_categories,
    write_failures,
)
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.report import ReportImage, Tile, write_report
from zerolabel.outputs.sheets import region_tile
from zerolabel.store import Store, write_json
from zerolabel.types import Category, Exhibit, Image, Sample


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: the run directory.
        data: what the images were, in words.
        categories: with their statistics.
        images: number of masks written.
        failures: id -> reason for images that could not be read.
        notes: what the user should know about the result.
        report: path of the report, or None.
    """

    path: Path
    data: str
    categories: tuple[Category, ...]
    images: int
    failures: dict[str, str]
    notes: list[str]
    report: Path | None


@dataclass(frozen=True)
class Addition:
    """What one kind of job says of its run beside what all of them do.

    Attributes:
        facts: entries of `run.json`.
        exhibits: the first ones of the report.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    exhibits: Sequence[Exhibit] = ()


def finish(
    model: Model,
    samples: Sequence[Sample],
    *,
    store: Store,
    words: str,
    place: Mapping[str, str],
    began: float,
    overlays: bool,
    report: bool,
    hear: Hear | None = None,
    add: Callable[[Rendered], Addition] | None = None,
) -> Run:
    """Write everything that leaves a run: masks, overlays, lists, model, report, `run.json`.

    Names that were given to the categories of this run are kept.

    Args:
        model: fitted.
        samples: sorted by id.
        store: of the run directory, locked and claimed.
        words: what the samples are.
        place: from `note_place`, where they are.
        began: `time.perf_counter()` at the start of the job.
        overlays: whether to draw overlays.
        report: whether to write the report.
        hear: what else has a say in the masks, see `render`.
        add: called when all masks are written.

    Returns:
        The run.

    Raises:
        DataError: none of the images could be read.
        StoreError: a file cannot be written.
    """
    root = store.directory
    rendered = render(model, samples, store=store, overlays=overlays, hear=hear)
    images, failures = len(rendered.samples), rendered.failures
    write_failures(root, failures)
    if not images:
        raise DataError("None of the images could be read; failures.json lists the reasons.")
    model.categories = keep_names(root, summarise(model, rendered))
    write_categories(root, model.categories)
    model.save(root)
    more = Addition() if add is None else add(rendered)
    page = None
    if report:
        run = account(store, model, images=images, failed=len(failures), began=began)
        told = in_words(run, model, words=words)
        shown = [*more.exhibits, *exhibits(model, samples, rendered, store=store)]
        page = _report(model, rendered, store, told, shown)
    run = account(store, model, images=images, failed=len(failures), began=began)
    write_json(root / "run.json", run | {"data": words, **place, **more.facts})
    return Run(root, words, model.categories, images, failures, model.method.notes, page)


def _report(
    model: Model,
    rendered: Rendered,
    store: Store,
    facts: dict[str, str],
    shown: Sequence[Exhibit],
) -> Path:
    drawn: Sequence[str | None] = rendered.overlays or [None] * len(rendered.samples)
    total = len(rendered.samples)

    def counted(i: int) -> Callable[[], Image]:
        """Load a photo, and say how far the report has come."""

        def load() -> Image:
            store.report("report", i + 1, total)
            return rendered.samples[i].load()

        return load

    store.report("report", 0, total)
    images = [
        ReportImage(sample.id, counted(i), mask, overlay, rendered.shares(i))
        for i, (sample, mask, overlay) in enumerate(
            zip(rendered.samples, rendered.masks, drawn, strict=True)
        )
    ]
    return write_report(
        store.directory,
        title=f"{total} images, {model.method.k} categories",
        categories=model.categories,
        images=images,
        sheets=_sheets(store.directory, model.categories, rendered),
        exhibits=shown,
        failures=[{"id": k, "reason": why} for k, why in sorted(rendered.failures.items())],
        facts=facts,
    )


def _sheets(
    root: Path, categories: Sequence[Category], rendered: Rendered
) -> dict[int, list[Tile]]:
    """The contact sheet of each category: its region in each exemplar, best first."""
    wanted: dict[str, list[int]] = {}
    for category in categories:
        for name in category.exemplars:
            wanted.setdefault(name, []).append(category.id)
    tiles: dict[tuple[int, str], Tile] = {}
    for i, sample in enumerate(rendered.samples):  # every photo is read once, and then let go
        if sample.id not in wanted:
            continue
        try:
            image, mask = sample.load(), read_mask(root / rendered.masks[i])
        except ZerolabelError:
            continue  # gone since the mask was written; the image's card says so
        shares = rendered.shares(i)
        for k in wanted[sample.id]:
            caption = f"{shares[k]:.0%} of image"
            tiles[k, sample.id] = Tile(region_tile(image, mask, k), caption, sample.id)
    return {
        category.id: [
            tiles[category.id, name] for name in category.exemplars if (category.id, name) in tiles
        ]
        for category in categories
    }
