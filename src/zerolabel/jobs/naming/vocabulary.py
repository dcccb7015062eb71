"""Names from a vocabulary: the words that CLIP finds most like what a category looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from zerolabel import backbones
from zerolabel.data.words import Words, parse_words, templates
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.naming.album import choose_images, open_album
from zerolabel.jobs.run.photos import open_photos
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.stages.naming import Choice, appearances, assign, by_class, choose
from zerolabel.stages.words import Reader, queries
from zerolabel.store import Store
from zerolabel.types import Category

IMAGES = 12  # that a category is looked at in
SIZE = (224, 224)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How categories are looked at, and what they are compared with.

    Attributes:
        vocabulary: what `parse_words` takes.
        data: folder or data set of the photos; None takes the one that the run was made on.
        split: of a data set.
        backbone: one that gives "dense" and reads texts.
        weights: its weights file, or None.
        device: "auto", "cpu", "cuda" or "mps".
        size: (H, W) in pixels that photos are squashed to.
        templates: "all", "imagenet" or "plain", see `data.words.templates`.
        images: at most so many photos for each category.
        unique: let each class name one category at most.
    """

    vocabulary: str
    data: str | Path | None = None
    split: str | None = None
    backbone: str = "clip-vitb16"
    weights: str | Path | None = None
    device: str = "auto"
    size: tuple[int, int] = SIZE
    templates: str = "all"
    images: int = IMAGES
    unique: bool = False


def by_vocabulary(
    run: Path, categories: Sequence[Category], look: Look, *, store: Store
) -> tuple[list[Choice | None], dict[str, str]]:
    """Choose the word of every category.

    Args:
        run: a run directory.
        categories: of the run.
        look: settings.
        store: of the run, locked; keeps features and words.

    Returns:
        K choices, whose scores are cosines; None for a category that no photo shows, or that the
        assignment left over; and id -> reason for the photos that could not be used.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    if look.images < 1:
        raise UsageError(f"--images must be 1 or more, found {look.images}.")
    words, sentences = parse_words(look.vocabulary), templates(look.templates)
    samples = open_photos(run, look.data, look.split)
    backbone = backbones.load(look.backbone, weights=look.weights, device=look.device)
    backbones.require(backbone, "dense")
    size = whole_patches(look.size, backbone, default=SIZE[0])
    album = open_album(run, samples)
    shown = choose_images(categories, album, count=look.images, store=store)
    failures = album.changed(shown)
    vectors, unread = appearances(
        backbone,
        [album.samples[name] for name in sorted(shown) if name not in failures],
        shown,
        album.mask,
        K=len(categories),
        size=size,
        store=store,
    )
    failures |= unread
    seen = vectors.norm(dim=1).numpy() > 0
    if not seen.any():
        raise _nothing(run, failures)
    texts = queries(cast(Reader, backbone), words.words, templates=sentences, store=store)
    cosines = (vectors @ texts.T).numpy()
    return _choose(cosines, words, seen, unique=look.unique), failures


def _choose(cosines: Any, words: Words, seen: Any, *, unique: bool) -> list[Choice | None]:
    """Compare classes by the best of their words; what was not seen gets none."""
    scores, called = by_class(cosines, words.groups, words.words)
    scores[~seen] = np.nan
    if not unique:
        return choose(scores, called)
    picks = np.full(len(scores), -1, np.int64)
    picks[seen] = assign(scores[seen])
    return choose(scores, called, picks=picks)


def _nothing(run: Path, failures: Mapping[str, str]) -> DataError:
    reasons = ", ".join(f"{n} x {why}" for why, n in Counter(failures.values()).most_common(3))
    return DataError(
        f"None of the photos of {run} could be looked at ({reasons or 'its masks are empty'}). "
        "Give --data with the folder or data set that the run was made on."
    )
