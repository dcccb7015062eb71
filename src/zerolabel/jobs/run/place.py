"""Where the images of a run are, as `run.json` keeps it: a run does not copy its photos."""

from __future__ import annotations

from pathlib import Path

from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.store import read_json


def note_place(data: str | Path, split: str | None) -> dict[str, str]:
    """What `run.json` says of the place of the images.

    Args:
        data: a folder, a file, or the root of a data set.
        split: the split that was asked for, or None.

    Returns:
        `data_path`, absolute, and `data_split` if one was asked for.
    """
    place = {"data_path": str(Path(data).resolve())}
    return place if split is None else place | {"data_split": split}


def place_of(run: Path, data: str | Path | None, split: str | None) -> tuple[Path, str | None]:
    """Find where the images of a run are now.

    Args:
        run: a run directory.
        data: where they are; None takes the place that the run itself names.
        split: of a data set; None takes that of the run, or the default if `data` is given.

    Returns:
        The path, and the split or None.

    Raises:
        UsageError: nothing says where they are.
        DataError: they are not in the place that the run names.
    """
    if data is not None:
        return Path(data), split
    path, before = read_place(run)
    return path, split or before


def read_place(run: Path) -> tuple[Path, str | None]:
    """Read where the images of a run are.

    Args:
        run: a run directory.

    Returns:
        The path, and the split that was asked for, or None.

    Raises:
        UsageError: the run does not say.
        DataError: they are not there any more.
    """
    try:
        facts = read_json(run / "run.json")
        path, split = Path(facts["data_path"]), facts.get("data_split")
    except (StoreError, KeyError, TypeError):
        raise UsageError(
            f"{run} does not say where its photos are. Give --data with the folder or data set "
            "that they are in."
        ) from None
    if not path.exists():
        raise DataError(
            f"The photos of {run} were in {path}, which is not there any more. Give --data with "
            "the folder or data set that they are in now."
        )
    return path, split
