"""The Python API: the jobs with plain keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

from zerolabel.backbones.registry import BACKBONES
from zerolabel.data.words import words_of
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.export import Exported, export
from zerolabel.jobs.fit import Options
from zerolabel.jobs.fit import fit as fit_job
from zerolabel.jobs.granularity import Levels, segment_levels
from zerolabel.jobs.name import Named
from zerolabel.jobs.name import name as name_job
from zerolabel.jobs.refine import Refined, refine
from zerolabel.jobs.run.finish import Run
from zerolabel.jobs.run.model import Model, load
from zerolabel.jobs.segment import segment as segment_job
from zerolabel.methods import METHODS

__all__ = [
    "Exported",
    "Levels",
    "Model",
    "Named",
    "Refined",
    "Run",
    "evaluate",
    "export",
    "fit",
    "list_backbones",
    "list_methods",
    "load",
    "name",
    "refine",
    "segment",
]

Progress = Callable[[str, int, int], None]


@overload
def segment(
    data: str | Path, out: str | Path, *, granularity: None = None, **asked: Any
) -> Run: ...


@overload
def segment(
    data: str | Path, out: str | Path, *, granularity: Sequence[int | str], **asked: Any
) -> Levels: ...


def segment(
    data: str | Path,
    out: str | Path,
    *,
    method: str = "datus",
    k: int | str | None = None,
    granularity: Sequence[int | str] | None = None,
    preset: str = "default",
    backbone: str = "auto",
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    geometry: str = "full",
    previews: tuple[int, int, int] = (0, 1, 2),
    overlays: bool = True,
    report: bool = True,
    progress: Progress | None = None,
    **settings: Any,
) -> Run | Levels:
    """Segment a folder of images into categories that hold across all of them.

    Args:
        data: a folder of images at any depth, one image file, or a data set in a known layout.
        out: the run directory: masks, overlays, categories, report, model.
        method: a name of `list_methods()`.
        k: number of categories, a range of it such as "8-30", or "auto"; None leaves it to
            the preset, whose default is "auto".
        granularity: several numbers of categories instead of k, e.g. [5, 16, 19]: one run for each,
            in `out/k5` and so on, and a page with all of them side by side.
        preset: the method's published or default settings by name.
        backbone: a name of `list_backbones()`, or "auto": DINO if its weights are here, else the
            embedded one.
        weights: a weights file for the backbone.
        device: "auto", "cpu", "cuda" or "mps".
        split: of a data set in a known layout.
        geometry: size and crop at which a protocol looks at images, e.g. "picie-320"; masks have
            that size.
        previews: numbers, from 0, of the bands that are red, green and blue where images with
            bands are shown, and for methods that know no bands.
        overlays: whether to draw overlays.
        report: whether to write the report.
        progress: called with (work, items done, items in all).
        **settings: fields of the method's Config, e.g. `seed=1`.

    Returns:
        The run, with its path and categories; of several granularities all of them, by level.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    view = {"geometry": geometry, "previews": previews}
    options = _options(method, k, preset, backbone, weights, device, split, settings, **view)
    output: dict[str, Any] = {"overlays": overlays, "report": report, "progress": progress}
    if granularity is not None:
        return segment_levels(data, out, granularity, options=options, **output)
    return segment_job(data, out, options=options, **output)


def fit(
    data: str | Path,
    *,
    out: str | Path | None = None,
    method: str = "datus",
    k: int | str | None = None,
    preset: str = "default",
    backbone: str = "auto",
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    geometry: str = "full",
    previews: tuple[int, int, int] = (0, 1, 2),
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Find categories in a folder of images, to predict with later.

    Args:
        data: as in `segment`.
        out: folder to keep the model and finished work in; None keeps neither.
        method: as in `segment`, and so the arguments after it.
        k: as in `segment`.
        preset: settings by name.
        backbone: a name of `list_backbones()`, or "auto": DINO if its weights are here, else the
            embedded one.
        weights: a weights file for the backbone.
        device: "auto", "cpu", "cuda" or "mps".
        split: of a data set in a known layout.
        geometry: as in `segment`.
        previews: as in `segment`.
        progress: called with (work, items done, items in all).
        **settings: fields of the method's Config.

    Returns:
        The model: `predict(image, file or folder)`, `predict_files(path)`, `save(folder)`; its
        `failures` name the images that could not be read.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    view = {"geometry": geometry, "previews": previews}
    options = _options(method, k, preset, backbone, weights, device, split, settings, **view)
    return fit_job(data, out, options=options, progress=progress)


def name(
    run: str | Path,
    *,
    vocabulary: str | Path | None = None,
    csv: str | Path | None = None,
    truth: bool = False,
    write_csv: str | Path | None = None,
    reset: bool = False,
    data: str | Path | None = None,
    split: str | None = None,
    space: str | None = None,
    unique: bool = False,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    size: tuple[int, int] | None = None,
    templates: str | None = None,
    images: int | None = None,
    progress: Progress | None = None,
) -> Named:
    """Give the categories of a finished run names, in exactly one of the first five ways.

    Args:
        run: a folder that `segment` or `predict` wrote.
        vocabulary: by words: a label space such as "coco27", a file, or a list with commas.
        csv: by hand: a table with the columns id and name.
        truth: by the ground truth under the masks.
        write_csv: where to write such a table to edit; nothing is named.
        reset: give the numbers back.
        data: where the photos (vocabulary) or labels (truth) are; None takes the place that the run
            was made on.
        split: of a data set.
        space: label space. [truth]
        unique: let each class name one category at most. [vocabulary, truth]
        backbone: one that reads images and texts, by default "clip-vitb16". [vocabulary]
        weights: its weights file. [vocabulary]
        device: "auto", "cpu", "cuda" or "mps". [vocabulary]
        size: (H, W) in pixels that photos are encoded at, by default 224. [vocabulary]
        templates: "all", "imagenet" or "plain", by default all. [vocabulary]
        images: photos that a category is looked at in at most, by default 12. [vocabulary]
        progress: called with (work, items done, items in all).

    Returns:
        The categories with their names and how they came by them, and what was written.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    return name_job(
        run,
        progress=progress,
        vocabulary=None if vocabulary is None else str(vocabulary),
        csv=csv,
        truth=truth,
        write_csv=write_csv,
        reset=reset,
        data=data,
        split=split,
        space=space,
        unique=unique,
        backbone=backbone,
        weights=weights,
        device=device,
        size=size,
        templates=templates,
        images=images,
    )


def list_methods() -> list[str]:
    """Names of the methods."""
    return sorted(METHODS)


def list_backbones() -> list[str]:
    """Names of the backbones."""
    return list(BACKBONES)


def _options(
    method: str,
    k: int | str | None,
    preset: str,
    backbone: str,
    weights: str | Path | None,
    device: str,
    split: str | None,
    settings: dict[str, Any],
    **view: Any,
) -> Options:
    return Options(
        method=method,
        preset=preset,
        backbone=backbone,
        weights=None if weights is None else str(weights),
        device=device,
        split=split,
        **view,
        settings={"k": k, **{name: _words(value) for name, value in settings.items()}},
    )


def _words(value: Any) -> Any:
    """Write a list of names as the settings of methods with words have it."""
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return words_of(value).text
    return value
