"""Several granularities of the same images: one run for each number of categories.

Every level is an ordinary run; what does not depend on the number of categories, such as features,
is computed once for all of them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from zerolabel import backbones
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.fit import Options, open_samples, prepare
from zerolabel.jobs.levels.page import Level, exhibits, lead
from zerolabel.jobs.levels.record import claim_levels, common, folder_of, record
from zerolabel.jobs.run.claim import check_place, previous_backbone
from zerolabel.jobs.run.finish import Run
from zerolabel.jobs.run.place import note_place
from zerolabel.jobs.run.render import write_failures
from zerolabel.jobs.run.settings import build
from zerolabel.jobs.segment import segment_samples
from zerolabel.methods.base import Method
from zerolabel.outputs.report import write_exhibits
from zerolabel.store import Progress, Store, prefixed, write_bytes, write_json
from zerolabel.types import Sample

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Levels:
    """The same images at several granularities.

    Attributes:
        path: the directory that holds one run directory for each level.
        data: what the images were, in words.
        levels: number of categories as it was asked for ("auto" among them) -> run, fewest first.
        images: number of images that have masks.
        failures: id -> reason for images that could not be read.
        notes: what the user should know about the results.
        report: path of the page with all levels side by side, or None.
    """

    path: Path
    data: str
    levels: dict[int | str, Run]
    images: int
    failures: dict[str, str]
    notes: list[str]
    report: Path | None


def segment_levels(
    data: str | Path,
    out: str | Path,
    granularity: Sequence[int | str],
    *,
    options: Options | None = None,
    overlays: bool = True,
    report: bool = True,
    progress: Progress | None = None,
) -> Levels:
    """Segment the same images with several numbers of categories.

    Run again after an interruption, it goes on where it stopped. Levels can be added later; what is
    there is not done again.

    Args:
        data: a folder of images at any depth, one image file, or a data set in a known layout.
        out: the directory of all levels, made if missing; level 5 is the run directory `k5` in it.
        granularity: numbers of categories from 1 on, each once; "auto" may be one of them.
        options: method, backbone and settings other than k.
        overlays: whether to draw overlays.
        report: whether to write the report of every level, and the page over all of them.
        progress: called with (work, items done, items in all).

    Returns:
        All levels.

    Raises:
        UsageError: levels that cannot be, or k among the settings.
        StoreError: the directory holds something else or cannot be written.
        ZerolabelError: anything else that a user can mend; it says how.
    """
    options, root = options or Options(), Path(out)
    asked = _checked(granularity, options)
    for folder in (root, *(root / folder_of(level) for level in asked)):
        check_place(data, folder)
    samples, words = open_samples(data, options.split, **options.view)
    options = _settled(options, root)
    job = common(_method(asked, options, root), options)
    with Store(root).lock():
        claim_levels(root, job)
        runs: dict[int | str, Run] = {}
        for level in asked:
            try:
                runs[level] = segment_samples(
                    samples,
                    root / folder_of(level),
                    words=words,
                    place=note_place(data, options.split),
                    options=_at(level, options),
                    overlays=overlays,
                    report=report,
                    shared=root / "cache",
                    progress=prefixed(progress, f"{folder_of(level)}: "),
                )
            except DataError:
                _explain(root, root / folder_of(level))
                raise
            write_json(root / "run.json", record(job, runs, words=words))
        found = _found(root, words, runs)
        write_failures(root, found.failures)
        done = record(job, found.levels, words=words) | {"status": "done"}
        if report:
            began = time.perf_counter()
            found = dataclasses.replace(found, report=_page(found, samples, options, progress))
            done["seconds"]["report"] = took = time.perf_counter() - began
            done["seconds"]["all"] += took
        write_json(root / "run.json", done)
    return found


def _checked(granularity: Sequence[int | str], options: Options) -> list[int | str]:
    """Refuse levels that cannot be; the most categories first, so that too many fail at once."""
    listed = [] if isinstance(granularity, str) else list(granularity)
    numbers = [n for n in listed if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    automatic = [level for level in listed if level == AUTO]
    if not listed or len(numbers) + len(automatic) < len(listed):
        raise UsageError(
            f"Granularity is a list of numbers of categories from 1 on, e.g. 5,16,19, or auto as "
            f"one of them; found {granularity!r}."
        )
    if len(set(listed)) < len(listed):
        again = next(level for level in listed if listed.count(level) > 1)
        raise UsageError(f"Granularity names {again} more than once. Leave one of them.")
    if options.settings.get("k") is not None:
        raise UsageError(
            f"Both k = {options.settings['k']} and granularity were given. Leave out k: "
            "granularity lists all numbers of categories."
        )
    return [*sorted(numbers, reverse=True), *automatic]


def _settled(options: Options, root: Path) -> Options:
    """Keep the backbone that "auto" was when the first levels were made."""
    now, _ = backbones.choose(options.backbone, weights=options.weights)
    before = previous_backbone(root) if options.backbone == backbones.AUTO else ""
    return dataclasses.replace(options, backbone=before) if before not in ("", now) else options


def _at(level: int | str, options: Options) -> Options:
    return dataclasses.replace(options, settings={**options.settings, "k": level})


def _method(asked: Sequence[int | str], options: Options, out: Path) -> Method:
    """Make the method of a level, and check the settings of all before any work is done."""
    first, *others = (_at(level, options) for level in asked)
    method = prepare(first, out)
    for other in others:
        build(other.method, method.backbone, preset=other.preset, settings=other.settings)
    return method


def _found(root: Path, words: str, runs: dict[int | str, Run]) -> Levels:
    """Put the levels in the order of their categories."""
    ordered = dict(sorted(runs.items(), key=lambda item: len(item[1].categories)))
    failures = {name: why for run in ordered.values() for name, why in run.failures.items()}
    notes = list(dict.fromkeys(line for run in ordered.values() for line in run.notes))
    images = min(run.images for run in ordered.values())
    return Levels(root, words, ordered, images, failures, notes, None)


def _page(
    found: Levels, samples: Sequence[Sample], options: Options, progress: Progress | None
) -> Path:
    """Write the page on which the levels stand side by side."""
    levels = [Level(_title(level, run), run) for level, run in found.levels.items()]
    kept = [sample for sample in samples if sample.id not in found.failures]
    path = found.path / "report" / "index.html"
    counts = [str(len(run.categories)) for run in found.levels.values()]
    write_exhibits(
        path,
        title=f"{len(kept)} images, {' / '.join(counts)} categories",
        lead=lead(options.method, levels),
        exhibits=exhibits(levels, kept, every=[s.id for s in samples], progress=progress),
    )
    return path


def _title(level: int | str, run: Run) -> str:
    return f"k = {level}" if level != AUTO else f"auto, k = {len(run.categories)}"


def _explain(root: Path, level: Path) -> None:
    """Bring the list of unreadable images up where a user looks for it."""
    listed = level / "failures.json"
    if listed.exists():
        write_bytes(root / "failures.json", listed.read_bytes())
