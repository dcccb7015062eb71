"""Refine the masks of a run: a student learns them, and what it cannot learn is noise.

It is a method that learns from labels, and the masks stand in for these; pixels without a category
are ignored while it learns, and have one afterwards. The new run is one of that method.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolabel.errors import UsageError
from zerolabel.jobs.fit import Options, fit_in, prepare
from zerolabel.jobs.refining.changes import count
from zerolabel.jobs.refining.initial import Initial, check_out, open_initial
from zerolabel.jobs.refining.lessons import Lessons, choose, samples_of
from zerolabel.jobs.refining.page import exhibits
from zerolabel.jobs.refining.students import USUAL, find_student
from zerolabel.jobs.refining.votes import Votes, check_trust
from zerolabel.jobs.run.claim import check_place
from zerolabel.jobs.run.cost import account
from zerolabel.jobs.run.finish import Addition, Run, finish
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.render import Rendered
from zerolabel.methods import find
from zerolabel.methods.base import Method
from zerolabel.store import Progress, Store

AUTO, NONE = "auto", "none"  # backbones, and the first also a number of categories
CLAIMED = "initial masks"  # what a run is refused by, if those of the other run have changed


@dataclass(frozen=True)
class Refined:
    """What came out.

    Attributes:
        run: the new run.
        facts: "refined" in its `run.json`: shares of pixels, pieces, categories before and after.
    """

    run: Run
    facts: dict[str, Any]


def refine(
    run: str | Path,
    out: str | Path,
    *,
    student: str = USUAL,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: float | None = None,
    backbone: str = "auto",
    weights: str | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    split: str | None = None,
    overlays: bool = True,
    report: bool = True,
    shared: str | Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Let a student learn the masks of a run, and segment its photos again.

    The new run has the categories of the old one: their ids, names and colours. Run again after an
    interruption, it goes on where it stopped and ends with the same masks. No ground truth is read.

    Args:
        run: a finished run with masks, of any method.
        out: the new run directory, made if missing; it may lie in the old one.
        student: a key of `STUDENTS`.
        preset: of the student's method; None takes the student's own.
        settings: fields of the method's Config to change.
        trust: weight of the old masks beside what the student says, from 0 (it alone decides) to
            less than 1; None takes the student's own.
        backbone: of students that have one.
        weights: its weights file, or None.
        device: "auto", "cpu", "cuda" or "mps".
        data: where the photos are now; None takes the place that the run itself names.
        split: of a data set; None takes that of the run, or the default if `data` is given.
        overlays: whether to draw overlays.
        report: whether to write the report.
        shared: folder for what other runs can use, see `Store`.
        progress: called with (work, items done, items in all).

    Returns:
        The new run, and what changed.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    began = time.perf_counter()
    kind = find_student(student)
    trust = kind.trust if trust is None else trust
    check_trust(trust)
    _check_backbone(student, backbone, weights)
    initial = open_initial(Path(run), data, split)
    check_out(initial, out)
    check_place(initial.place["data_path"], out)
    options = Options(
        method=kind.method,
        preset=preset or kind.preset,
        backbone=backbone,
        weights=weights,
        device=device,
        **initial.view,
        settings=dict(settings or {}),
    )
    method = prepare(options, out)
    _check(method, initial)
    store = Store(out, shared=shared, report=progress)
    with store.lock():
        model, lessons = _learn(initial, method, store, trust)
        votes = Votes(initial, frozenset(lessons.ids), trust)
        ending = _Ending(votes, lessons, model, store, student, began, report)
        new = finish(
            model,
            initial.samples,
            store=store,
            words=initial.words,
            place=initial.place,
            began=began,
            overlays=overlays,
            report=report,
            hear=votes,
            add=ending.compare,
        )
    return Refined(new, ending.facts)


def _check_backbone(student: str, backbone: str, weights: str | None) -> None:
    """Refuse a backbone that would do nothing."""
    kind = find(find_student(student).method)
    if kind.auto_backbone != NONE or (weights is None and backbone in (AUTO, NONE)):
        return
    own = hasattr(kind.PRESETS["default"], "start")
    raise UsageError(
        f"The student {student} is a network of its own and has no backbone; found "
        f"{weights or backbone}. Leave --backbone and --weights out"
        f"{'; --set start=FILE names weights that it starts from' if own else ''}."
    )


def _check(method: Method, initial: Initial) -> None:
    """Refuse settings under which a student would not learn the categories of the run."""
    k, K = getattr(method.config, "k", AUTO), len(initial.categories)
    if k not in (AUTO, K):
        raise UsageError(
            f"A student has the categories of the run that it learns from: expected k={K}, as "
            f"{initial.run} has, found k={k}. Leave k out; another number of categories needs "
            "another run."
        )
    if getattr(method.config, "checkpoint", ""):
        raise UsageError(
            f"Expected a student that learns from the masks of {initial.run}, found "
            f"checkpoint={method.config.checkpoint}, which is not trained any more. Leave it out."
        )


def _learn(initial: Initial, method: Method, store: Store, trust: float) -> tuple[Model, Lessons]:
    """Fit the student, and give its classes all that the categories of the run are known by."""
    model = fit_in(
        store,
        initial.samples,
        method,
        view=initial.view,
        more={CLAIMED: initial.digest, "trust": f"{trust:g}"},
        lessons=lambda: samples_of(initial, choose(initial, store=store)),
    )
    lessons = choose(initial, store=store)  # found before, unless the cache was deleted
    method.notes += lessons.notes()
    method.class_names = initial.names  # they may have been named since it learned
    model.categories = initial.categories
    return model, lessons


@dataclass
class _Ending:
    """What is said of the new run beside what is said of all.

    Attributes:
        facts: see `Refined`; filled by `compare`.
    """

    votes: Votes
    lessons: Lessons
    model: Model
    store: Store
    student: str
    began: float
    report: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def compare(self, rendered: Rendered) -> Addition:
        """Compare both masks of every photo, when all are written."""
        initial = self.votes.initial
        ids = [sample.id for sample in rendered.samples]
        paths = [self.store.directory / mask for mask in rendered.masks]
        masks = dict(zip(ids, paths, strict=True))
        changes = count(initial, self.lessons.ids, masks, store=self.store)
        before = {
            "run": str(initial.run.resolve()),
            "student": self.student,
            "trust": self.votes.trust,
            "not_learned_from": self.lessons.left_out,
        }
        self.facts |= before | changes.facts()
        if not self.report:
            return Addition({"refined": self.facts})
        images, failed = len(ids), len(rendered.failures)
        cost = account(self.store, self.model, images=images, failed=failed, began=self.began)
        shown = exhibits(
            initial,
            changes,
            self.model.categories,
            masks,
            student=self.student,
            trust=self.votes.trust,
            seconds=cost["seconds"]["all"],
        )
        return Addition({"refined": self.facts}, shown)
