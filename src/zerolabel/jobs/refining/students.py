"""The students by name: methods that learn from labels, here from the masks of a run."""

from __future__ import annotations

from zerolabel.errors import unknown_name

STUDENTS: dict[str, tuple[str, str]] = {  # name -> method and preset
    "light": ("deeplab", "default"),
    "deeplabv3": ("deeplab", "deeplabv3"),
    "segmenter": ("segmenter", "default"),
    "unet": ("unet", "default"),
}
USUAL = "light"


def find_student(name: str) -> tuple[str, str]:
    """Look a student up.

    Args:
        name: a key of `STUDENTS`.

    Returns:
        Its method and preset.

    Raises:
        UsageError: there is none of that name; near names are listed.
    """
    if name not in STUDENTS:
        raise unknown_name("student", name, STUDENTS)
    return STUDENTS[name]
