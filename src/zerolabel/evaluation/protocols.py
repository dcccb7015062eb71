"""Named evaluation procedures: two numbers may be compared only if they share a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import Scores, scores
from zerolabel.ops.matching import Counts


@dataclass(frozen=True)
class Protocol:
    """Everything that turns label maps into numbers.

    Attributes:
        id: its name in tables and files.
        description: one sentence.
        geometry: where label and prediction meet; "full" is the original size of the label.
        matching: rule of `ops.matching` from clusters to classes.
        absent: rule for classes without pixels; "nanmean" leaves those that are neither true nor
            predicted out of the means.
        unlabelled: pixels without a cluster, or of a cluster that no class was matched to, are
            a "miss" of their true class, or "drop": not counted at all.
        background: whether pixels of class 0, the background, are "scored" or "ignored".
        judges: the "masks" of a run, or the "attention" of a backbone, for which see
            `evaluation.jaccard`; its matching is from objects to heads, not in `ops.matching`.
    """

    id: str
    description: str
    geometry: Literal["full"] = "full"
    matching: str = "hungarian"
    absent: Literal["nanmean"] = "nanmean"
    unlabelled: Literal["miss", "drop"] = "miss"
    background: Literal["scored", "ignored"] = "scored"
    judges: Literal["masks", "attention"] = "masks"

    @property
    def first_class(self) -> int:
        """Id of the first class that is scored."""
        return 1 if self.background == "ignored" else 0


PROTOCOLS: dict[str, Protocol] = {
    "full": Protocol(
        "full",
        "Every labelled pixel at the original size of the labels, clusters matched to classes one "
        "to one by pixel counts (Hungarian); a pixel without a matched cluster is a miss.",
    ),
    "full-nobg": Protocol(
        "full-nobg",
        "As full, but pixels whose true class is background are not scored (20 classes on PASCAL "
        "VOC); its numbers are far higher and never comparable with those of full.",
        background="ignored",
    ),
    "datus": Protocol(
        "datus",
        "As in the published DatUS2 code: pixels predicted 255 and pixels of unmatched clusters "
        "are removed before scoring, which is optimistic.",
        unlabelled="drop",
    ),
    "jaccard": Protocol(
        "jaccard",
        "For every object the Jaccard index of that head of the CLS attention, cut to 60 % of its "
        "mass, which fits it best; mean over the objects of an image, then over images.",
        matching="best-head",
        background="ignored",
        judges="attention",
    ),
}


def score(counts: Counts, protocol: Protocol) -> Scores:
    """Score a confusion matrix under a protocol.

    Args:
        counts: int64 (C, K + 1), all classes of the data set, last column: no cluster.
        protocol: the procedure.

    Returns:
        Scores whose entry i, and whose match i, is class `i + protocol.first_class`.

    Raises:
        DataError: no pixel is left to score.
        UsageError: the protocol leaves no class, or does not judge masks.
    """
    if protocol.judges != "masks":
        raise UsageError(f"Protocol {protocol.id} judges {protocol.judges}, not masks.")
    kept = counts[protocol.first_class :]
    if not len(kept):
        raise UsageError(
            f"Protocol {protocol.id} ignores class 0, and there is no other: expected 2 classes or "
            "more. Use the protocol full."
        )
    return scores(kept, matching=protocol.matching, drop_unlabelled=protocol.unlabelled == "drop")
