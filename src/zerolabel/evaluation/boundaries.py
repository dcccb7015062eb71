"""Boundary precision, recall and F against all annotators, as the BSDS benchmark has it.

A boundary pixel is right if it can be paired with one of an annotator's at most 0.0075 of the
image's diagonal away, each pixel in one pair at most. Recall asks for a pair with every annotator
in turn, precision for a pair with any of them (Martin, Fowlkes and Malik, PAMI 26, 2004; Arbelaez
et al., PAMI 33, 2011). Pixels are added up over images before precision and recall are taken.

The benchmark's own matching looks for the pairs of least total distance, with a high price on
pixels without a pair. Here there are as many pairs as there can be, exactly, near ones being tried
first: recall is the highest that any pairing gives. Which of a prediction's pixels are in the pairs
may differ, and with it, a little, the precision against several annotators.
Shapes: `L` levels, `H W` pixels, `P` pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import DataError
from zerolabel.evaluation.regions import Levels, check_levels
from zerolabel.ops.bipartite import maximum_matching
from zerolabel.ops.thinning import thin
from zerolabel.types import LabelMap

REACH = 0.0075  # share of the diagonal, as published for BSDS

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class BoundaryScores:
    """How boundaries agree with all annotators, 0..1.

    Attributes:
        f: harmonic mean of precision and recall.
        precision: per level, share of the predicted pixels that an annotator has too.
        recall: per level, share of the annotators' pixels that are predicted.
    """

    f: Levels
    precision: tuple[float, ...]
    recall: tuple[float, ...]


def boundaries(regions: LabelMap) -> Mask:
    """Draw the boundaries between regions; gives the `Boundaries` of BSDS500 to the pixel.

    Args:
        regions: any integers (H, W), one per region.

    Returns:
        bool (H, W). A pixel stands for the corner at its lower right: it is set where the pixels
        that meet there are not all the same; the lines are then thinned.
    """
    corner = np.zeros(regions.shape, np.bool_)
    below, beside = regions[:-1] != regions[1:], regions[:, :-1] != regions[:, 1:]
    corner[:-1] |= below
    corner[:, :-1] |= beside
    corner[:-1, :-1] |= below[:, 1:]  # three equal pairs leave no fourth to differ
    return thin(corner)


def match(prediction: Mask, truth: Mask, *, reach: float = REACH) -> Counts:
    """Pair boundary pixels one to one: as many as can be, near ones first.

    Args:
        prediction: thin boundaries, bool (H, W).
        truth: those of one annotator, bool (H, W).
        reach: greatest distance of a pair, as a share of the image's diagonal.

    Returns:
        int64 (P,) flat places of the predicted pixels that are in a pair, rising.

    Raises:
        DataError: the two differ in size.
    """
    if prediction.shape != truth.shape:
        raise DataError(
            "The predicted boundaries have another size than the annotator's: expected (height, "
            f"width) {truth.shape}, found {prediction.shape}."
        )
    radius = reach * float(np.hypot(*truth.shape))
    margin = int(radius)
    steps = np.mgrid[-margin : margin + 1, -margin : margin + 1].reshape(2, -1)
    far = np.hypot(*steps)
    down, right = steps[:, np.argsort(far, kind="stable")[: np.count_nonzero(far <= radius)]]
    places = np.flatnonzero(prediction)
    ids = np.full(np.add(truth.shape, 2 * margin), -1, np.int32)
    inner = tuple(slice(margin, margin + side) for side in truth.shape)
    ids[inner][prediction] = np.arange(len(places))
    y, x = np.nonzero(truth)
    near = ids[y[:, None] + down + margin, x[:, None] + right + margin]  # (truth pixels, steps)
    pairs = maximum_matching(_packed(near), len(places))
    return np.sort(places[pairs[pairs >= 0]])


def _packed(near: NDArray[np.int32]) -> NDArray[np.int32]:
    """Move what is not -1 to the left of every row, in its order, and drop what is empty."""
    kept = near >= 0
    counts = kept.sum(axis=1)
    rows, _ = np.nonzero(kept)
    packed = np.full((len(near), counts.max(initial=0)), -1, np.int32)
    packed[rows, kept.cumsum(axis=1)[kept] - 1] = near[kept]
    used: NDArray[np.int32] = packed[counts > 0]
    return used


class Boundaries:
    """Adds up images one by one."""

    def __init__(self, *, reach: float = REACH) -> None:
        self.reach = reach
        self._counts: list[Counts] = []  # per image (4, L), see `_f`

    def add(self, levels: Sequence[Mask], annotators: Sequence[Mask]) -> NDArray[np.float64]:
        """Compare one image's boundaries with those of its annotators.

        Args:
            levels: L predictions, thin boundaries, bool (H, W).
            annotators: thin boundaries of the same size.

        Returns:
            float64 (L,), the image's F.

        Raises:
            DataError: no annotator, or maps of another size.
            UsageError: another number of levels than before, or none.
        """
        if not annotators:
            raise DataError("Expected boundaries by one annotator or more, found none.")
        check_levels(len(levels), self._counts[0].shape[1] if self._counts else None)
        found = np.zeros((4, len(levels)), np.int64)
        for level, prediction in enumerate(levels):
            paired = [match(prediction, truth, reach=self.reach) for truth in annotators]
            found[:, level] = (
                len(np.unique(np.concatenate(paired))),  # with any annotator
                np.count_nonzero(prediction),
                sum(map(len, paired)),
                sum(map(np.count_nonzero, annotators)),
            )
        self._counts.append(found)
        return _f(found)[0]

    def score(self) -> BoundaryScores:
        """Pool all images.

        Raises:
            DataError: nothing was added.
        """
        if not self._counts:
            raise DataError("There is no image to score: expected boundaries by annotators.")
        counts = np.stack(self._counts)  # (I, 4, L)
        each, precision, recall = _f(counts.sum(axis=0))
        best = [image[:, _f(image)[0].argmax()] for image in counts]
        ois, _, _ = _f(np.sum(best, axis=0))
        level = int(each.argmax())
        f = Levels(tuple(each.tolist()), level, float(each[level]), float(ois))
        return BoundaryScores(f, tuple(precision.tolist()), tuple(recall.tolist()))


def _f(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Turn (4, ...) counts - right and all predicted pixels, found and all true - into scores.

    Returns:
        F, precision and recall, each 0 where there is nothing to divide by.
    """
    right, predicted, found, true = counts
    precision, recall = right / np.maximum(predicted, 1), found / np.maximum(true, 1)
    total = precision + recall
    f = 2 * precision * recall / np.where(total > 0, total, 1)
    return f, precision, recall
