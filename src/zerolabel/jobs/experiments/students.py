"""Cells whose masks a student refines before they are scored."""

from __future__ import annotations

from pathlib import Path

from zerolabel.errors import UsageError
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.experiments.cells import Cell
from zerolabel.jobs.refine import refine
from zerolabel.jobs.refining.students import find_student
from zerolabel.methods import find
from zerolabel.methods.configs import configure
from zerolabel.store import Progress


def check_student(cell: Cell) -> None:
    """Refuse a student that there is not, settings without one, and one without masks.

    Args:
        cell: of a known protocol.

    Raises:
        UsageError: the first that is found.
    """
    if cell.student is None:
        if cell.student_settings:
            raise UsageError("Settings of a student were given, and no student. Name one.")
        return
    kind = find_student(cell.student)
    if not cell.method or cell.probe is not None:
        raise UsageError(
            f"The student {cell.student} refines masks, and protocol {cell.protocol} judges "
            f"{PROTOCOLS[cell.protocol].judges}. Leave it out, or choose a protocol of masks."
        )
    configure(find(kind.method).PRESETS, kind.preset, cell.student_settings)


def refine_cell(
    cell: Cell,
    before: Path,
    folder: Path,
    *,
    data: Path,
    shared: Path,
    device: str,
    progress: Progress,
) -> None:
    """Let the student of a cell learn the masks of a run, on the images that it has segmented.

    Args:
        cell: with a student, which takes the cell's seed.
        before: the run.
        folder: the run directory of the student.
        data: root of the data set.
        shared: folder for what several runs can use.
        device: "auto", "cpu", "cuda" or "mps".
        progress: called with (work, items done, items in all).

    Raises:
        ZerolabelError: as `refine`.
    """
    refine(
        before,
        folder,
        student=cell.student or "",
        settings={"seed": cell.seed, **cell.student_settings},
        device=device,
        data=data,
        split=cell.split,
        overlays=False,
        report=False,
        shared=shared,
        progress=progress,
    )
