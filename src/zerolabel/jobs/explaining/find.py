"""The image that is to be looked into: a file, or one of a data set by its id."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path

from zerolabel.errors import StoreError, UsageError
from zerolabel.jobs.fit import open_samples
from zerolabel.jobs.run.photos import open_photos
from zerolabel.jobs.run.place import read_place
from zerolabel.jobs.scoring.facts import read_view
from zerolabel.store import read_json
from zerolabel.types import Sample

NEAR = 3  # names in a message


def find_image(run: Path, image: str, *, data: str | Path | None, split: str | None) -> Sample:
    """Find an image, and look at it as a run did.

    Args:
        run: a run directory.
        image: a file, or an id in the data.
        data: a folder or data set; None takes the one that the run was made on.
        split: of a data set, or None.

    Returns:
        The image as a sample.

    Raises:
        UsageError: there is no such image; near ids are named.
        DataError: the data are not there, or hold none.
    """
    if data is None and os.path.isdir(image):
        raise UsageError(f"{image} is a folder. Give one photo.")
    if data is None and os.path.exists(image):
        [sample] = open_samples(image, split, **read_view(run))[0]
        return sample
    known = _listed(run)
    if data is None and known and image not in known:
        raise UsageError(
            f"{image} is neither a file nor an image of {run}.{_near(image, known)} Give a photo, "
            "the id of an image of the run, or --data with the folder that it is in."
        )
    try:
        by_id = {sample.id: sample for sample in open_photos(run, data, split)}
    except UsageError as error:
        raise error if data is not None else UsageError(f"{image!r} is no file. {error}") from None
    if image in by_id:
        return by_id[image]
    raise UsageError(f"{data or read_place(run)[0]} has no image {image!r}.{_near(image, by_id)}")


def _listed(run: Path) -> Collection[str]:
    """The ids of a run's images, if it still has the list."""
    try:
        listing = read_json(run / "cache" / "data.json")
    except StoreError:
        return ()
    return listing if isinstance(listing, dict) else ()


def _near(name: str, known: Collection[str]) -> str:
    """Name the ids that are spelt like it; there may be thousands of others."""
    near = difflib.get_close_matches(name, known, n=NEAR, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
