"""The run whose categories are to be named: whether it is one, and what it lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerolabel.errors import StoreError
from zerolabel.jobs.run.names import LISTED, MODEL, parse
from zerolabel.jobs.scoring.masks import read_categories
from zerolabel.outputs.colours import palette
from zerolabel.store import read_json
from zerolabel.types import Category


def read_finished(run: Path) -> tuple[Category, ...]:
    """Read the categories of a finished run.

    Args:
        run: a folder that `segment` or `predict` wrote, or one with `masks` and `categories.json`
            made elsewhere.

    Returns:
        The categories, index = id; what a run made elsewhere does not say of them is empty.

    Raises:
        StoreError: it is no finished run, or its list of categories cannot be read.
    """
    _check(run)
    names = read_categories(run / LISTED)
    colours = palette(len(names)).tolist()
    defaults = [{"colour": colours[k]} for k in range(len(names))]
    entries = sorted(read_json(run / LISTED)["categories"], key=lambda entry: int(entry["id"]))
    try:
        return tuple(parse(defaults[k] | entry) for k, entry in enumerate(entries))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{run / LISTED} is not as zerolabel wrote it: {error}. Run the segmentation again."
        ) from None


def _check(run: Path) -> None:
    """Refuse what has no names to give, and say what to do."""
    made = _read(run / "run.json")
    job = made.get("job")
    if isinstance(job, dict) and "command" in job:
        levels = [entry.get("folder") for entry in made.get("levels") or []]
        runs = " or ".join(str(run / folder) for folder in levels) or "a run in it"
        raise StoreError(f"{run} is a folder of {job['command']}, not one run. Name {runs}.")
    if not (run / LISTED).exists():
        if (run / MODEL).exists():
            raise StoreError(
                f"{run} holds a model and no masks. Make a run of it with `zerolabel predict {run} "
                "PHOTOS --out RUN`, and name that; it is a model too."
            )
        raise StoreError(
            f"{run} is no finished run: expected masks and {LISTED}, which `zerolabel segment "
            f"PHOTOS --out {run}` writes."
        )
    if made.get("status", "done") != "done":
        raise StoreError(
            f"The run {run} is not finished. Run the command that began it again, it goes on; then "
            "come back."
        )


def _read(path: Path) -> dict[str, Any]:
    """Read what a run says of itself; masks made elsewhere say nothing."""
    if not path.exists():
        return {}
    found = read_json(path)
    return found if isinstance(found, dict) else {}
