"""What a census of labels found wrong, in sentences that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zerolabel.types import IGNORE

if TYPE_CHECKING:
    from zerolabel.data.census import Census

SHOWN = 3  # images in a sentence
LISTED = 8  # classes or values in a sentence


def problems(census: Census) -> list[str]:
    """Say what is wrong with labels.

    Args:
        census: of them.

    Returns:
        A few sentences for every problem, the worst first; empty if there is none.
    """
    said = (check(census) for check in CHECKS)
    return [words for words in said if words]


def begins_at_one(census: Census) -> bool:
    """Whether the ids look as if 1 were the first: C occurs, or all but 0 do, of three or more."""
    C = len(census.names)
    return C > 0 and (set(census.strange) == {C} or (C > 2 and census.absent == (0,)))


def _unreadable(census: Census) -> str:
    if not census.unreadable:
        return ""
    first, reason = next(iter(census.unreadable.items()))
    return f"{_many(len(census.unreadable), 'label')} cannot be read, e.g. of {first}: {reason}"


def _unlabelled(census: Census) -> str:
    bare = len(census.unlabelled)
    if not bare:
        return ""
    if not (census.counted or census.strange or census.unreadable):
        return (
            f"{_many(bare, 'image')}, and no label. Give a labelled split, or a folder with images "
            "beside masks."
        )
    return (
        f"{_many(bare, 'image')} without a label, from which nothing is learned: "
        f"{_some(census.unlabelled)}. Add the masks, or leave these images out."
    )


def _strange(census: Census) -> str:
    if not census.strange:
        return ""
    one = len(census.strange) == 1
    where = tuple(dict.fromkeys(name for names in census.strange.values() for name in names))
    found = (
        f"The labels hold the value{'' if one else 's'} {_list(map(str, census.strange))}, which "
        f"{'is' if one else 'are'} no class. Expected {census.expected}; see e.g. "
        f"{', '.join(where[:SHOWN])}. "
    )
    if IGNORE in census.strange:  # only a published label space refuses it
        return found + (
            f"In this data set {IGNORE} does not mean ignore, so another program has changed the "
            "masks already. Take those that were published, or put images and masks into a plain "
            "folder with classes.txt."
        )
    return found + (
        f"Save these pixels as {IGNORE} if they are not to count, or name them in classes.txt, "
        "one line per id from 0 on. A published data set is known by its own folders."
    )


def _shifted(census: Census) -> str:
    if not begins_at_one(census):
        return ""
    return (
        f"The ids seem to begin at 1. If 0 means no class in the masks, save 0 as {IGNORE} and "
        "every other id one lower; that is what some programs call reduce_zero_label, and what "
        "happens to ADE20K in its own folders. If 0 is a class, it is the first line of "
        "classes.txt."
    )


def _void(census: Census) -> str:
    if not census.void:
        return ""
    every = len(census.void) == census.counted and not census.strange
    return (
        f"{'All ' if every else ''}{_many(len(census.void), 'label')} without a pixel that counts, "
        f"only {IGNORE}: {_some(census.void)}. Nothing is learned from them; check the masks, or "
        "leave these images out."
    )


def _alike(census: Census) -> str:
    present = np.flatnonzero(census.images)
    if len(present) != 1 or census.strange:
        return ""
    return (
        f"Every pixel that counts has the id {present[0]} ({census.names[present[0]]}): there is "
        f"nothing to tell apart. Save a black and white mask as 0 and 1; {IGNORE} means ignore."
    )


def _absent(census: Census) -> str:
    if not census.absent or not census.images.any():
        return ""
    if census.strange or begins_at_one(census):  # mend that first
        return ""
    names = _list(f"{census.names[i]} ({i})" for i in census.absent)
    return (
        f"{len(census.absent)} of {_many(len(census.names), 'class')} never "
        f"occur{'s' * (len(census.absent) == 1)} and cannot be learned: {names}. A small split may "
        "lack some; elsewhere check the ids in the masks."
    )


CHECKS = (_unreadable, _unlabelled, _strange, _shifted, _void, _alike, _absent)


def _many(count: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _list(words: Iterable[str]) -> str:
    known = list(words)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return ", ".join(known[:LISTED]) + more
