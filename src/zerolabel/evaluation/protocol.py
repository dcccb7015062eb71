"""What a named evaluation procedure consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """Everything that turns predictions and labels into numbers.

    Attributes:
        id: its name in tables and files.
        description: one sentence; it names who uses it.
        geometry: where label and prediction meet, a key of `data.geometry.GEOMETRIES`; in protocols
            that do not judge masks also a size such as "64x64", or "image" for one class per image.
        matching: rule of `ops.matching` from clusters to classes; in protocols that do not judge
            masks, what stands in its place.
        absent: rule for classes without pixels; "nanmean" leaves those that are neither true nor
            predicted out of the means, "zero" counts them 0, "gt-only" leaves out all that are not
            true anywhere.
        ignore: "void" pixels of the labels are never scored; "void-and-unlabelled" also removes
            pixels that were given no cluster, which otherwise are misses of their true class.
        background: whether pixels of class 0, the background, are "scored" or "ignored".
        match_on: the split on which clusters are matched to classes: "val" stands for the one that
            is scored, "train" for another that the run of `--matching-run` was made on.
        crf: whether the masks must have been refined by a dense CRF: "off", "on" or "any".
        judges: the "masks" of a run; the "regions" of a run, without classes; the "attention" of a
            backbone, for which see `evaluation.jaccard`, its matching being from objects to heads;
            or the "features" of one, for which see `evaluation.probes`, where labels of other
            images give the classes.
    """

    id: str
    description: str
    geometry: str = "full"
    matching: str = "hungarian"
    absent: Literal["nanmean", "zero", "gt-only"] = "nanmean"
    ignore: Literal["void", "void-and-unlabelled"] = "void"
    background: Literal["scored", "ignored"] = "scored"
    match_on: Literal["val", "train"] = "val"
    crf: Literal["off", "on", "any"] = "any"
    judges: Literal["masks", "attention", "features", "regions"] = "masks"

    @property
    def first_class(self) -> int:
        """Id of the first class that is scored."""
        return 1 if self.background == "ignored" else 0
