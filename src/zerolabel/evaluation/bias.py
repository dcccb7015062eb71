"""How much a prediction prefers some classes, and the middle of the image.

Both measures are those of table VII of ReCLIP++ (Wang and Kang, "ReCLIP++: Learn to rectify the
bias of CLIP for unsupervised semantic segmentation", 2024), where higher means less bias. The text
says how the first is computed; of the second it says only that slopes of a curve of mIoU over
distance are averaged, and leaves the drawing of the curve to an appendix. What is not from the
paper is marked "here".
Shapes: `C` classes, `K` clusters, `H W` pixels, `B` bins of distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.ops.matching import Counts
from zerolabel.types import LabelMap

BINS = 10

Shares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassPreference:
    """How much more often a class is taken for itself than for its strongest rival.

    Attributes:
        score: mean of `per_class` over the classes with a pixel, -1..1; 1 for a perfect prediction.
        per_class: float64 (C,), NaN for a class without a pixel.
        rivals: int64 (C,), the other class that most of its pixels were taken for; -1 if none.
    """

    score: float
    per_class: Shares
    rivals: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpacePreference:
    """mIoU by the distance of objects from the middle of the image, and how fast it falls.

    Distances are in half diagonals: 0 is the middle, 1 a corner.

    Attributes:
        score: mean slope between neighbouring bins that hold an object, mIoU (0..1) per distance;
            0 for a prediction that is as good everywhere. With bins of one width and none empty it
            depends on the first and the last alone. NaN if only one bin holds objects.
        trend: slope of the straight line that fits all bins best, each weighted by its objects
            (here); it uses the whole curve.
        distance: float64 (B,), middles of the bins.
        miou: float64 (B,), mean over the classes of the bin; NaN for an empty one.
        objects: int64 (B,), pairs of an image and a class in it.
    """

    score: float
    trend: float
    distance: Shares
    miou: Shares
    objects: NDArray[np.int64]


def class_preference(counts: Counts) -> ClassPreference:
    """Compare for every class its own share of its pixels with that of its strongest rival.

    Args:
        counts: int64 (C, C + 1), true by predicted class over all images, last column: no class.

    Returns:
        The scores CM_ii - max over j != i of CM_ij, rows of the confusion matrix CM summing to 1
        (here: over pixels without a class as well, which are a rival to no class).

    Raises:
        UsageError: another shape, or no pixel.
    """
    C = len(counts)
    pixels = counts.sum(axis=1)
    if counts.shape != (C, C + 1) or not pixels.any():
        raise UsageError(
            f"Expected counts (C, C + 1) with a pixel or more; found {counts.shape} with "
            f"{counts.sum()}. Fold clusters into classes first."
        )
    present = pixels > 0
    share = counts[:, :-1] / np.maximum(pixels, 1)[:, None]
    others = share * ~np.eye(C, dtype=np.bool_)
    per_class = np.where(present, share.diagonal() - others.max(axis=1), np.nan)
    rivals = np.where(others.any(axis=1), others.argmax(axis=1), -1)
    return ClassPreference(float(per_class[present].mean()), per_class, rivals)


def distances(truth: LabelMap, classes: int) -> Shares:
    """Measure how far each class of an image lies from the middle.

    Args:
        truth: integers (H, W); what is outside 0..C-1 is left out.
        classes: C.

    Returns:
        float64 (C,): distance of the class's centroid from the image's centre in half diagonals,
        0..1; NaN for a class that is not there.
    """
    H, W = truth.shape
    inside = (truth >= 0) & (truth < classes)
    rows, columns = np.nonzero(inside)
    ids = truth[inside].astype(np.int64)
    pixels = np.bincount(ids, minlength=classes)
    y, x = (np.bincount(ids, weights=places, minlength=classes) for places in (rows, columns))
    known = np.where(pixels > 0, pixels, np.nan)
    away = np.hypot(y / known - (H - 1) / 2, x / known - (W - 1) / 2)
    return np.asarray(2 * away / np.hypot(H, W))


class SpaceCurve:
    """Adds up images one by one; holds counts per bin and class and nothing else.

    An object is all of a class in an image (here).
    """

    def __init__(self, classes: int, *, bins: int = BINS, reach: float = 1.0) -> None:
        """Begin without images.

        Args:
            classes: C.
            bins: B, of equal width (here: 10).
            reach: the end of the last bin in half diagonals (here: the largest distance of all
                objects); what lies beyond is counted in the last bin.

        Raises:
            UsageError: fewer than two bins, or no width.
        """
        if bins < 2 or not reach > 0:
            raise UsageError(f"Expected 2 bins or more and a reach above 0; found {bins}, {reach}.")
        self.reach = reach
        self.shared = np.zeros((bins, classes), np.int64)  # intersections
        self.either = np.zeros((bins, classes), np.int64)  # unions
        self.objects = np.zeros((bins, classes), np.int64)

    def add(self, counts: Counts, away: Shares) -> None:
        """Add one image.

        Args:
            counts: int64 (C, C + 1), true by predicted class in this image, last column: no class.
            away: float64 (C,), see `distances`.
        """
        held = np.flatnonzero(~np.isnan(away))
        bins = len(self.shared)
        bin_of = np.minimum((away[held] / self.reach * bins).astype(int), bins - 1)
        hits = counts.diagonal()
        either = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - hits
        self.shared[bin_of, held] += hits[held]  # a class has one bin: no place comes twice
        self.either[bin_of, held] += either[held]
        self.objects[bin_of, held] += 1

    def score(self) -> SpacePreference:
        """Draw the curve.

        Returns:
            The curve and its slopes.

        Raises:
            UsageError: nothing was added.
        """
        held = self.objects > 0
        full = held.any(axis=1)
        if not full.any():
            raise UsageError("Expected images with objects, found none.")
        iou = np.where(held, self.shared / np.maximum(self.either, 1), 0)
        miou = np.where(full, iou.sum(axis=1) / np.maximum(held.sum(axis=1), 1), np.nan)
        bins = len(self.objects)
        distance = (np.arange(bins) + 0.5) / bins * self.reach
        objects = self.objects.sum(axis=1)
        x, y = distance[full], miou[full]
        score = trend = float("nan")
        if len(x) > 1:
            score = float(np.mean(np.diff(y) / np.diff(x)))
            weights = objects[full] / objects.sum()
            spread = x - weights @ x
            trend = float((weights * spread) @ y / ((weights * spread) @ spread))
        return SpacePreference(score, trend, distance, miou, objects)
