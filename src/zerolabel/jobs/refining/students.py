"""The students by name: methods that learn from labels, here from the masks of a run."""

from __future__ import annotations

from dataclasses import dataclass

from zerolabel.errors import unknown_name


@dataclass(frozen=True)
class Kind:
    """What a name stands for.

    Attributes:
        method: a key of METHODS.
        preset: a key of its PRESETS.
        trust: see `votes.Votes`; DatUS2 takes what the student says, so that is usual.
    """

    method: str
    preset: str = "default"
    trust: float = 0.0


STUDENTS = {
    "light": Kind("deeplab", trust=0.1),  # measured, see docs/methods/deeplab.md
    "deeplabv3": Kind("deeplab", "deeplabv3"),
    "segmenter": Kind("segmenter"),
    "unet": Kind("unet"),
}
USUAL = "light"


def find_student(name: str) -> Kind:
    """Look a student up.

    Args:
        name: a key of `STUDENTS`.

    Returns:
        What it stands for.

    Raises:
        UsageError: there is none of that name; near names are listed.
    """
    if name not in STUDENTS:
        raise unknown_name("student", name, STUDENTS)
    return STUDENTS[name]
