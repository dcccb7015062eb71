"""The run whose masks are to be refined: its photos, masks and categories, and what they decide."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zerolabel.data.folder import file_digest
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.fit import open_samples
from zerolabel.jobs.naming.album import Album, open_album
from zerolabel.jobs.naming.finished import read_finished
from zerolabel.jobs.run.names import unnamed
from zerolabel.jobs.run.place import note_place, place_of
from zerolabel.jobs.scoring.facts import read_facts, read_view
from zerolabel.outputs.masks import IGNORE_16
from zerolabel.types import IGNORE, Category, LabelMap, Sample


@dataclass(frozen=True)
class Initial:
    """A run before it is refined.

    Attributes:
        run: its directory.
        made: how it was made, see `read_facts`; None for masks made elsewhere.
        categories: index = id.
        samples: its photos, sorted by id; they know nothing of a ground truth.
        words: what they are.
        place: from `note_place`, where they are.
        album: those that have a mask.
    """

    run: Path
    made: dict[str, Any] | None
    categories: tuple[Category, ...]
    samples: Sequence[Sample]
    words: str
    place: dict[str, str]
    album: Album

    @property
    def view(self) -> dict[str, Any]:
        """Through what its photos are looked at, as `open_samples` takes it."""
        return read_view(self.run)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the categories, index = id."""
        return tuple(category.name for category in self.categories)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hash of the mask of every photo that has one."""
        return {name: file_digest(path) for name, path in sorted(self.album.masks.items())}

    @cached_property
    def digest(self) -> str:
        """Hash of all masks and of the categories, whatever names they were given since."""
        plain = [unnamed(category) for category in self.categories]
        facts = [[c.name, c.colour] for c in plain], list(self.digests.items())
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()

    def label(self, name: str) -> LabelMap:
        """Read the mask of a photo as a label.

        Args:
            name: id of the photo.

        Returns:
            uint8 (H, W), 0..K-1, 255 where the mask has no category.

        Raises:
            DataError: it cannot be read, or holds ids of no category.
        """
        mask, K = self.album.mask(name), len(self.categories)
        over = mask >= K
        stray = mask[over]
        stray = stray[(stray != IGNORE) & (stray != IGNORE_16)]
        if stray.size:
            raise DataError(
                f"The mask {self.album.masks[name]} holds ids that categories.json does not list: "
                f"expected 0-{K - 1}, and {IGNORE} for no category, found {stray.min()}. Make the "
                "run again, or list every category that the masks hold."
            )
        return np.where(over, IGNORE, mask).astype(np.uint8)


def open_initial(run: Path, data: str | Path | None, split: str | None) -> Initial:
    """Find all that a run is made of.

    Args:
        run: a run directory.
        data: where its photos are now; None takes the place that the run itself names.
        split: of a data set; None takes that of the run, or the default if `data` is given.

    Returns:
        The run; no ground truth was opened.

    Raises:
        StoreError: it is no finished run.
        UsageError: it has too many categories, or does not say where its photos are.
        DataError: it has no masks, or its photos are not there.
    """
    categories = read_finished(run)
    if len(categories) > IGNORE:
        raise UsageError(
            f"{run} has {len(categories)} categories, and a student learns from at most {IGNORE}: "
            f"labels have 8 bits. Make the run again with --k {IGNORE} or less."
        )
    if not any((run / "masks").rglob("*.png")):
        raise DataError(
            f"{run} has no masks: expected one PNG for each photo in {run / 'masks'}, found none. "
            "Run the command that made it again."
        )
    made = read_facts(run)
    path, split = place_of(run, data, split)
    found, words = open_samples(path, split, **read_view(run))
    samples = [replace(s, load_label=None, load_regions=None, classes=()) for s in found]
    place, album = note_place(path, split), open_album(run, samples)
    return Initial(run, made, categories, samples, words, place, album)


def check_out(initial: Initial, out: str | Path) -> None:
    """Refuse to write where the masks are that are learned from.

    Args:
        initial: the run.
        out: the new run directory.

    Raises:
        UsageError: it is the run itself, or lies among its masks.
    """
    run, place = initial.run.resolve(), Path(out).resolve()
    if place == run or place.is_relative_to(run / "masks"):
        raise UsageError(
            f"{out} {'is' if place == run else 'lies among the masks of'} the run that is refined, "
            f"and its masks are learned from. Choose another --out, e.g. {initial.run / 'refined'}."
        )
