"""The photos of a run, found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zerolabel.jobs.fit import open_samples
from zerolabel.jobs.run.place import place_of
from zerolabel.jobs.scoring.facts import read_view
from zerolabel.types import Sample


def open_photos(run: Path, data: str | Path | None, split: str | None) -> Sequence[Sample]:
    """List the images of a run, looked at as the run did.

    Args:
        run: a run directory.
        data: where they are now; None takes the place that the run itself names.
        split: of a data set; None takes that of the run, or the default if `data` is given.

    Returns:
        Samples sorted by id.

    Raises:
        UsageError: the run names no place, or there is no such split.
        DataError: the place is gone or holds no image.
    """
    return open_samples(*place_of(run, data, split), **read_view(run))[0]
