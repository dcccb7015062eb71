"""The main job: a folder of images in, masks with shared categories out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from zerolabel.jobs.fit import Options, fit_in, open_samples, prepare
from zerolabel.jobs.run.claim import check_place
from zerolabel.jobs.run.finish import Run, finish
from zerolabel.jobs.run.place import note_place
from zerolabel.store import Progress, Store
from zerolabel.types import Sample


def segment(
    data: str | Path,
    out: str | Path,
    *,
    options: Options | None = None,
    overlays: bool = True,
    report: bool = True,
    shared: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Find categories that hold across all images, and label every pixel with one.

    Run again after an interruption, it goes on where it stopped and ends with the same masks.

    Args:
        data: a folder of images at any depth, one image file, or a data set in a known layout.
        out: the run directory, made if missing.
        options: method, backbone and settings.
        overlays: whether to draw overlays.
        report: whether to write the report.
        shared: folder for features that other runs can use, see `Store`.
        progress: called with (work, items done, items in all).

    Returns:
        The run.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    options = options or Options()
    check_place(data, out)
    samples, words = open_samples(data, options.split, **options.view)
    return segment_samples(
        samples,
        out,
        words=words,
        place=note_place(data, options.split),
        options=options,
        overlays=overlays,
        report=report,
        shared=shared,
        progress=progress,
    )


def segment_samples(
    samples: Sequence[Sample],
    out: str | Path,
    *,
    words: str,
    place: Mapping[str, str],
    options: Options,
    overlays: bool = True,
    report: bool = True,
    shared: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Do the same for images that were listed before.

    Args:
        samples: sorted by id.
        out: the run directory, made if missing.
        words: what the images are.
        place: from `note_place`, where they are.
        options: method, backbone and settings; their split and geometry are those of the samples.
        overlays: whether to draw overlays.
        report: whether to write the report.
        shared: folder for features that other runs can use, see `Store`.
        progress: called with (work, items done, items in all).

    Returns:
        The run.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    began = time.perf_counter()
    method = prepare(options, out)
    store = Store(out, shared=shared, report=progress)
    with store.lock():
        model = fit_in(store, samples, method, view=options.view)
        return finish(
            model,
            samples,
            store=store,
            words=words,
            place=place,
            began=began,
            overlays=overlays,
            report=report,
        )
