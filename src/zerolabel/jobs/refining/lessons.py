"""What a student learns from: the photos of a run, with its masks in the place of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from zerolabel.backbones import cache
from zerolabel.errors import DataError, ImageError
from zerolabel.jobs.refining.initial import Initial
from zerolabel.store import Stage, Store
from zerolabel.types import Sample

BATCH = 16  # masks that are looked at between two signs of progress
SHOWN = 3  # photos that a note names


@dataclass(frozen=True)
class Lessons:
    """Which masks are learned from.

    Attributes:
        ids: of the photos whose masks are, sorted.
        left_out: id -> reason for photos that are segmented, but not learned from.
    """

    ids: tuple[str, ...]
    left_out: dict[str, str]

    def notes(self) -> list[str]:
        """Say which photos were not learned from, if any."""
        if not self.left_out:
            return []
        count = len(self.left_out)
        some = [f"{name} ({why})" for name, why in list(self.left_out.items())[:SHOWN]]
        more = f" and {count - SHOWN} more" if count > SHOWN else ""
        return [f"segmented, but not learned from: {', '.join(some)}{more}"]


def choose(initial: Initial, *, store: Store) -> Lessons:
    """Look at every mask once: whether it is that of its photo and fits it.

    Args:
        initial: the run.
        store: of the new run, claimed; keeps what was found.

    Returns:
        The masks to learn from.

    Raises:
        DataError: a mask has another size than its photo, or holds ids of no category; or there is
            none to learn from.
    """
    ids: list[str] = []
    left_out: dict[str, str] = {}
    unread: list[str] = []
    before, known = initial.digest, initial.album.digests
    for _, batch in store.track("check masks", initial.samples, BATCH):
        name = cache.key("initial", batch, before, [known.get(sample.id) for sample in batch])
        info = store.stage(name, partial(_look, initial, batch)).info
        ids += info["ids"]
        left_out |= info["left_out"]
        unread += info["unread"]
    if not ids:
        found = Counter([*left_out.values(), *unread]).most_common(2)
        reasons = ", ".join(f"{n} x {why}" for why, n in found)
        raise DataError(
            f"None of the {len(initial.samples)} photos of {initial.run} can be learned from "
            f"({reasons}). Expected photos with the masks that were made of them; give --data with "
            "the folder or data set that the run was made on, or make the run again."
        )
    return Lessons(tuple(ids), left_out)


def samples_of(initial: Initial, lessons: Lessons) -> list[Sample]:
    """Make the samples that a method learns from as it does from labels.

    Args:
        initial: the run.
        lessons: from `choose`.

    Returns:
        Samples sorted by id, whose labels are the masks and whose classes are the categories. Their
        digests name the mask, so that a student of other masks is not taken for this one.
    """
    return [
        replace(
            sample,
            load_label=partial(initial.label, sample.id),
            classes=initial.names,
            digest=partial(_digest, sample, initial.digests[sample.id]),
        )
        for sample in map(initial.album.samples.__getitem__, lessons.ids)
    ]


def _digest(sample: Sample, mask: str) -> str:
    return f"{sample.digest()}-{mask}"


def _look(initial: Initial, batch: Sequence[Sample]) -> Stage:
    """Sort the photos of a batch into those to learn from, the others, and unreadable ones."""
    ids: list[str] = []
    left_out: dict[str, str] = {}
    unread: list[str] = []
    for sample in batch:
        try:
            size = sample.load().shape[:2]
        except ImageError as error:  # it will be a failure of the new run too
            unread.append(str(error))
            continue
        why = _unfit(initial, sample, size)
        if why:
            left_out[sample.id] = why
        else:
            ids.append(sample.id)
    return Stage(info={"ids": ids, "left_out": left_out, "unread": unread})


def _unfit(initial: Initial, sample: Sample, size: tuple[int, ...]) -> str:
    """Say why a photo of so many pixels is not learned from; "" if it is."""
    album, name = initial.album, sample.id
    if name not in album.masks:
        return "has no mask"
    if album.digests.get(name, sample.digest()) != sample.digest():
        return "is another photo than the one that its mask was made of"
    try:
        mask = album.mask(name)
    except DataError:
        return "its mask cannot be read"
    if mask.shape != size:
        raise DataError(
            f"The mask {album.masks[name]} has another size than its photo: expected (height, "
            f"width) {size}, found {mask.shape}. Masks are refined pixel by pixel: make the run "
            "again, or bring the mask to the size of the photo (nearest neighbour)."
        )
    initial.label(name)  # refuses ids that are no category
    return ""
