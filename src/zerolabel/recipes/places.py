"""Where the data sets of a recipe lie below the folder that the user names."""

from __future__ import annotations

from pathlib import Path

from zerolabel.data.files import find_layout
from zerolabel.errors import UsageError

CLASSIFIED = "imagenet"  # the name of a folder with one folder per class in `train` and `val`


def locate(root: str | Path) -> dict[str, Path]:
    """Find all data sets that are a folder or lie directly in it.

    Args:
        root: of one data set, or of several in folders of any name.

    Returns:
        From the name of a layout to its folder; a plain folder of images and masks has its own
        name, and one of classified images is called "imagenet".
    """
    root = Path(root)
    found: dict[str, Path] = {}
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        name = _name(folder)
        if name:
            found.setdefault(name, folder)
    return found


def _name(folder: Path) -> str:
    """Say which data set a folder is; empty for none, or for several, which lie in it."""
    try:
        found = find_layout(folder)
    except UsageError:
        return ""
    if found is not None:
        return found.name
    classified = any((folder / name).exists() for name in ("val", "val.npz"))
    return CLASSIFIED if classified else ""
