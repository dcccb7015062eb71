"""The confusion matrix, counted image by image, and every score that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.matching import Centres, Counts, Matching, match
from zerolabel.types import IGNORE, LabelMap

Shares = NDArray[np.float64]

# What a mean over classes is of, by the rule for absent ones: (shares, true pixels) -> (C,), NaN
# for classes that are left out.
ABSENT: dict[str, Callable[[Shares, Counts], Shares]] = {
    "nanmean": lambda share, true: share,  # TP + FP + FN = 0 is left out
    "zero": lambda share, true: np.nan_to_num(share),  # and here counts 0
    "gt-only": lambda share, true: np.where(true > 0, share, np.nan),  # also predicted, never true
}
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


def scores(
    counts: Counts,
    *,
    matching: str = "hungarian",
    absent: str = "nanmean",
    ignore: str = "void",
    source: Counts | None = None,
    centres: Centres | None = None,
) -> Scores:
    """Match clusters to classes and score the result.

    Args:
        counts: int64 (C, K + 1), true classes by clusters, last column: no cluster.
        matching: a key of `MATCHINGS`; "drop-unmatched" also removes the pixels of clusters that no
            class was matched to, which otherwise are misses of their true class.
        absent: a key of `ABSENT`, see `PROTOCOLS`.
        ignore: "void" counts pixels without a cluster as misses of their true class,
            "void-and-unlabelled" removes them.
        source: int64 (C, K + 1), what clusters are matched on; None stands for `counts`.
        centres: (K, D) of the clusters, for the matching "nearest".

    Returns:
        The scores; a class that has none keeps NaN, whatever the means take it for.

    Raises:
        DataError: no pixel is left to score.
        UsageError: the rule needs centres.
    """
    assigned = match(counts if source is None else source, matching, centres=centres)
    counts = counts.copy()
    if ignore == "void-and-unlabelled":
        counts[:, -1] = 0
    if matching == "drop-unmatched":
        counts[:, :-1][:, assigned < 0] = 0
    true = counts.sum(axis=1)
    if not true.any():
        raise DataError(
            "There is no pixel to score: expected labelled pixels with a prediction, found only "
            "ignored ones. Check that the labels and the split are the right ones."
        )
    matched = by_class(counts, assigned)[:, :-1]  # pixels without a class are misses
    hits, predicted = matched.diagonal(), matched.sum(axis=0)
    iou = _share(hits, true + predicted - hits)
    accuracy = _share(hits, true)
    f1 = _share(2 * hits, true + predicted)
    terms = ABSENT[absent]
    return Scores(
        miou=float(np.nanmean(terms(iou, true))),
        pixel_accuracy=float(hits.sum() / true.sum()),
        mean_accuracy=float(np.nanmean(terms(accuracy, true))),
        mean_f1=float(np.nanmean(terms(f1, true))),
        iou=iou,
        accuracy=accuracy,
        f1=f1,
        pixels=true,
        matching=assigned,
    )


def by_class(counts: Counts, matching: Matching) -> Counts:
    """Turn counts of clusters into counts of predicted classes.

    Args:
        counts: int64 (C, K + 1), last column: no cluster.
        matching: int64 (K,), the class of each cluster or -1.

    Returns:
        int64 (C, C + 1), true by predicted class, last column: no class.
    """
    folded = np.zeros((len(counts) + 1, len(counts)), np.int64)
    np.add.at(folded, np.append(matching, -1), counts.T)
    return folded.T


def floor(counts: Counts, *, absent: str = "nanmean") -> Scores:
    """Score one category everywhere, standing for the class that most pixels have.

    A segmentation that knows nothing, such as a black image, has these scores.

    Args:
        counts: int64 (C, K + 1).
        absent: a key of `ABSENT`.

    Returns:
        The scores.

    Raises:
        DataError: there is no pixel to score.
    """
    true = counts.sum(axis=1)
    return scores(np.stack([true, np.zeros_like(true)], axis=1), matching="majority", absent=absent)


def _share(part: Counts, whole: Counts) -> Shares:
    """Divide, with NaN where there is nothing to divide by."""
    share: Shares = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return share
