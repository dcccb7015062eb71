"""The confusion matrix, counted image by image, and every score that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.matching import MATCHINGS, Counts, Matching
from zerolabel.types import IGNORE, LabelMap

Shares = NDArray[np.float64]

CHUNK = 1 << 16  # pixels counted at once: the 64-bit copy that bincount makes stays small


class Confusion:
    """Counts of (true class, cluster) over all pixels of all images, never the pixels themselves.

    Attributes:
        counts: int64 (C, K + 1); the last column holds pixels that were given no cluster.
    """

    def __init__(self, classes: int, clusters: int) -> None:
        if not (1 <= classes <= IGNORE and clusters >= 1):
            raise UsageError(
                f"Expected 1 to {IGNORE} classes ({IGNORE} means ignore) and at least one cluster, "
                f"found {classes} and {clusters}."
            )
        self.counts: Counts = np.zeros((classes, clusters + 1), np.int64)

    def add(self, truth: LabelMap, prediction: LabelMap) -> None:
        """Count one image.

        Args:
            truth: any integers (H, W); pixels outside 0..C-1, such as 255, are left out.
            prediction: any integers (H, W); pixels outside 0..K-1 count as given no cluster.

        Raises:
            DataError: the two differ in size, or are not integers.
        """
        if truth.shape != prediction.shape:
            raise DataError(
                f"The prediction has another size than the ground truth: expected (height, width) "
                f"{truth.shape}, found {prediction.shape}. Segment the images that the labels "
                "belong to, at their own size."
            )
        C, columns = self.counts.shape
        cells = (C + 1) * columns  # one more row, dropped below, for pixels that are not scored
        dtype = np.uint16 if cells <= 1 << 16 else np.uint32
        truth, prediction = truth.reshape(-1), prediction.reshape(-1)
        total = np.zeros(cells, np.int64)
        step = max(CHUNK, cells)
        for start in range(0, truth.size, step):
            part = slice(start, start + step)
            cell = np.multiply(_bounded(truth[part], C), columns, dtype=dtype)
            np.add(cell, _bounded(prediction[part], columns - 1), out=cell)
            total += np.bincount(cell, minlength=cells)
        self.counts += total.reshape(C + 1, columns)[:C]

    def merge(self, other: Confusion) -> None:
        """Add what another process or another part of the data has counted."""
        if other.counts.shape != self.counts.shape:
            raise UsageError(
                f"Expected a confusion matrix of shape {self.counts.shape}, found "
                f"{other.counts.shape}: count both with the same classes and clusters."
            )
        self.counts += other.counts


def _bounded(ids: LabelMap, limit: int) -> LabelMap:
    """Replace everything outside 0..limit-1 by limit, in the type of the ids."""
    if ids.dtype.kind not in "iu":
        raise DataError(f"Label maps hold integers; found {ids.dtype}. Convert ids to integers.")
    # Read without a sign, negative ids are larger than every limit.
    unsigned = ids.view(ids.dtype.str.replace("i", "u"))
    bounded: LabelMap = np.minimum(unsigned, min(limit, np.iinfo(unsigned.dtype).max))
    return bounded


@dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says, 0..1; NaN marks a class that has no such score.

    Attributes:
        miou: mean of `iou`.
        pixel_accuracy: share of the counted pixels that got their class.
        mean_accuracy: mean of `accuracy`.
        mean_f1: mean of `f1`.
        iou: float64 (C,), TP / (TP + FP + FN).
        accuracy: float64 (C,), TP / (TP + FN).
        f1: float64 (C,), 2 TP / (2 TP + FP + FN).
        pixels: int64 (C,), true pixels of each class that were counted.
        matching: int64 (K,), the class of each cluster or -1.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    mean_f1: float
    iou: Shares
    accuracy: Shares
    f1: Shares
    pixels: Counts
    matching: Matching


def scores(counts: Counts, *, matching: str = "hungarian", drop_unlabelled: bool = False) -> Scores:
    """Match clusters to classes and score the result.

    A class with TP + FP + FN = 0 is left out of the means; one that never occurs but is predicted
    has IoU 0 (the rule `nanmean`).

    Args:
        counts: int64 (C, K + 1), true classes by clusters, last column: no cluster.
        matching: a key of `MATCHINGS`.
        drop_unlabelled: leave out the pixels without a cluster and those of clusters that no class
            was matched to; otherwise they are misses of their true class.

    Returns:
        The scores.

    Raises:
        DataError: no pixel is left to score.
    """
    assigned = MATCHINGS[matching](counts[:, :-1])
    C = len(counts)
    matched = np.zeros((C, C), np.int64)  # true class by predicted class
    for cluster, label in enumerate(assigned):
        if label >= 0:
            matched[:, label] += counts[:, cluster]
    true = matched.sum(axis=1) if drop_unlabelled else counts.sum(axis=1)
    if not true.any():
        raise DataError(
            "There is no pixel to score: expected labelled pixels with a prediction, found only "
            "ignored ones. Check that the labels and the split are the right ones."
        )
    hits, predicted = matched.diagonal(), matched.sum(axis=0)
    iou = _share(hits, true + predicted - hits)
    accuracy = _share(hits, true)
    f1 = _share(2 * hits, true + predicted)
    return Scores(
        miou=float(np.nanmean(iou)),
        pixel_accuracy=float(hits.sum() / true.sum()),
        mean_accuracy=float(np.nanmean(accuracy)),
        mean_f1=float(np.nanmean(f1)),
        iou=iou,
        accuracy=accuracy,
        f1=f1,
        pixels=true,
        matching=assigned,
    )


def _share(part: Counts, whole: Counts) -> Shares:
    """Divide, with NaN where there is nothing to divide by."""
    share: Shares = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return share
