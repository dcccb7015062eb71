"""Named evaluation procedures: two numbers may be compared only if they share a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import Scores, scores
from zerolabel.ops.matching import Counts


@dataclass(frozen=True)
class Protocol:
    """Everything that turns predictions and labels into numbers.

    Attributes:
        id: its name in tables and files.
        description: one sentence.
        geometry: where label and prediction meet; "full" is the original size of the label,
            "64x64" both brought to that, "image" one class per image.
        matching: rule of `ops.matching` from clusters to classes; in protocols that do not judge
            masks, what stands in its place.
        absent: rule for classes without pixels; "nanmean" leaves those that are neither true nor
            predicted out of the means, "true-only" all that are not true anywhere.
        unlabelled: pixels without a cluster, or of a cluster that no class was matched to, are
            a "miss" of their true class, or "drop": not counted at all.
        background: whether pixels of class 0, the background, are "scored" or "ignored".
        judges: the "masks" of a run; the "attention" of a backbone, for which see
            `evaluation.jaccard`, its matching being from objects to heads; or the "features" of
            one, for which see `evaluation.probes`, where labels of other images give the classes.
    """

    id: str
    description: str
    geometry: Literal["full", "64x64", "image"] = "full"
    matching: str = "hungarian"
    absent: Literal["nanmean", "true-only"] = "nanmean"
    unlabelled: Literal["miss", "drop"] = "miss"
    background: Literal["scored", "ignored"] = "scored"
    judges: Literal["masks", "attention", "features"] = "masks"

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
    "linear-probe": Protocol(
        "linear-probe",
        "A linear layer is trained on frozen patch tokens and the labels of one split, and scored "
        "on another, logits and labels at 64 x 64 pixels; mean over seeds.",
        geometry="64x64",
        matching="trained",
        absent="true-only",
        judges="features",
    ),
    "knn": Protocol(
        "knn",
        "An image gets the class that its nearest neighbours by cosine, in a bank of images with "
        "known class, vote for with weight exp(cosine / 0.07).",
        geometry="image",
        matching="neighbours",
        absent="true-only",
        judges="features",
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
