"""Names from ground truth: the class that most pixels of a category have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from zerolabel.data.geometry import FULL
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.run.place import read_place
from zerolabel.jobs.scoring.counts import count
from zerolabel.jobs.scoring.facts import read_facts
from zerolabel.ops.matching import hungarian
from zerolabel.stages.naming import Choice, choose
from zerolabel.store import Progress


def by_truth(
    run: Path,
    *,
    data: str | Path | None,
    split: str | None,
    space: str | None,
    unique: bool,
    progress: Progress | None,
) -> list[Choice | None]:
    """Choose the class of every category by the labels under its masks.

    Args:
        run: a run directory.
        data: a labelled data set; None takes the one that the run was made on.
        split: of the data set; None takes that of the run, or the default if `data` is given.
        space: its label space, or None for its default.
        unique: match classes one to one, by pixels, instead of taking the most frequent.
        progress: called with (work, items done, items in all).

    Returns:
        K choices, whose scores are shares of a category's labelled pixels; None for a category
        without labelled pixels, or left over by the matching.

    Raises:
        ZerolabelError: as `evaluate`.
    """
    if data is None:
        data, before = read_place(run)
        split = split or before
    geometry = (read_facts(run) or {}).get("geometry", FULL)
    rules = replace(PROTOCOLS["full"], geometry=geometry)
    scored = count(run, data, rules, split=split, space=space, progress=progress)
    counts = scored.found[geometry].counts  # (C, K + 1)
    held = counts[:, :-1].T
    totals = held.sum(1, keepdims=True)
    shares = np.divide(held, totals, out=np.zeros(held.shape), where=totals > 0)
    words = [scored.dataset.classes] * len(shares)
    return choose(shares, words, picks=hungarian(counts) if unique else None, least=0.0)
