"""Region measures against all annotators: segmentation covering, Rand index, information.

All three come from one table per segmentation and annotator, the pixels that every region shares
with every other. A segmentation may come in several levels, coarse to fine, as of a hierarchy cut
at several thresholds: ODS is the level that is best for the data set, OIS the best of every image.
Definitions and pooling: Arbelaez et al., "Contour detection and hierarchical image segmentation",
PAMI 33, 2011, section 3, and the benchmark that came with it.
Shapes: `L` levels, `A` annotators, `R` regions of a segmentation, `G` regions of an annotator,
`I` images, `N` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.protocol import Protocol
from zerolabel.types import LabelMap

BSDS = Protocol(
    "bsds",
    "The regions of a run, pieces of one category that hold together, against those of all "
    "annotators: covering, Rand index, variation of information and boundary F of the BSDS "
    "benchmark (Arbelaez et al., 2011); ODS and OIS over several runs.",
    matching="overlap",
    judges="regions",
)

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Levels:
    """One measure over all images, for every level.

    Attributes:
        each: over the data set, per level.
        level: the best of them.
        ods: the measure at that level.
        ois: the measure when the best level is taken for every image.
    """

    each: tuple[float, ...]
    level: int
    ods: float
    ois: float


@dataclass(frozen=True)
class RegionScores:
    """How regions agree with all annotators.

    Attributes:
        covering: of the annotators' regions by the segmentation, 0..1, larger is better.
        covering_best: the same if every region of an annotator may take its own level.
        pri: probabilistic Rand index, 0..1, larger is better.
        vi: variation of information in bits, from 0, smaller is better.
    """

    covering: Levels
    covering_best: float
    pri: Levels
    vi: Levels


@dataclass(frozen=True, eq=False)
class Agreement:
    """How one segmentation agrees with one annotator.

    Attributes:
        overlap: float64 (G,), the largest intersection over union that each of the annotator's
            regions has with a region of the segmentation.
        share: float64 (G,), the annotator's regions as shares of the image.
        rand: Rand index, the share of pixel pairs that both put together or both keep apart.
        information: variation of information H(S|G) + H(G|S) in bits.
    """

    overlap: Shares
    share: Shares
    rand: float
    information: float


def contingency(segmentation: LabelMap, truth: LabelMap) -> NDArray[np.int64]:
    """Count the pixels that every region shares with every region of an annotator.

    Args:
        segmentation: any integers (H, W), one per region.
        truth: any integers (H, W), one per region.

    Returns:
        int64 (R, G), every row and column with a pixel.

    Raises:
        DataError: the two differ in size, have no pixel, or are not integers.
    """
    if segmentation.shape != truth.shape:
        raise DataError(
            "The segmentation has another size than the annotator's: expected (height, width) "
            f"{truth.shape}, found {segmentation.shape}. Segment the images at their own size."
        )
    rows, columns = _from_zero(segmentation), _from_zero(truth)
    G = int(columns.max()) + 1
    table = np.bincount(rows * G + columns).astype(np.int64, copy=False)
    table = np.pad(table, (0, -len(table) % G)).reshape(-1, G)
    used: NDArray[np.int64] = table[table.any(axis=1)][:, table.any(axis=0)]
    return used


def _from_zero(regions: LabelMap) -> NDArray[np.int64]:
    """Renumber regions from 0, flat; where their ids are spread widely, without gaps."""
    if not regions.size or regions.dtype.kind not in "iu":
        raise DataError(
            f"Expected region ids, integers (H, W); found {regions.dtype} {regions.shape}."
        )
    ids = regions.reshape(-1)
    low, high = int(ids.min()), int(ids.max())
    if high - low >= ids.size:
        _, ids = np.unique(ids, return_inverse=True)
        low = 0
    return ids.astype(np.int64) - low


def agreement(segmentation: LabelMap, truth: LabelMap) -> Agreement:
    """Compare a segmentation with one annotator.

    Args:
        segmentation: any integers (H, W), one per region.
        truth: any integers (H, W), one per region.

    Returns:
        The measures of the pair.

    Raises:
        DataError: as `contingency`.
    """
    table = contingency(segmentation, truth)
    a, b = table.sum(axis=1), table.sum(axis=0)  # (R,), (G,)
    N = int(b.sum())
    overlap = (table / (a[:, None] + b - table)).max(axis=0)
    pairs = N * (N - 1) // 2
    apart = (int((a**2).sum()) + int((b**2).sum())) / 2 - int((table**2).sum())  # by one of both
    row, column = np.nonzero(table)
    shared = table[row, column]
    # H(S|G) + H(G|S), summed so that no term is negative
    bits = shared * (np.log2(a[row] / shared) + np.log2(b[column] / shared))
    return Agreement(
        overlap=overlap,
        share=b / N,
        rand=1 - apart / pairs if pairs else 1.0,
        information=float(bits.sum()) / N,
    )


class Regions:
    """Adds up images one by one."""

    def __init__(self) -> None:
        self._measures: list[Shares] = []  # per image (3, L): covering, Rand index, information
        self._best: list[float] = []
        self._weights: list[int] = []  # pixels of all annotators

    def add(self, levels: Sequence[LabelMap], annotators: Sequence[LabelMap]) -> Shares:
        """Compare one image's levels with its annotators.

        Args:
            levels: L segmentations, any integers (H, W), one per region.
            annotators: A region maps (H, W) of the same size.

        Returns:
            float64 (3, L): covering, Rand index and information, mean over annotators.

        Raises:
            DataError: no annotator, or maps of another size.
            UsageError: another number of levels than before, or none.
        """
        if not annotators:
            raise DataError("Expected region maps by one annotator or more, found none.")
        check_levels(len(levels), self._measures[0].shape[1] if self._measures else None)
        found = np.zeros((3, len(levels)))
        best = 0.0
        for truth in annotators:
            pairs = [agreement(level, truth) for level in levels]
            found[0] += [pair.overlap @ pair.share for pair in pairs]
            found[1] += [pair.rand for pair in pairs]
            found[2] += [pair.information for pair in pairs]
            best += np.max([pair.overlap for pair in pairs], axis=0) @ pairs[0].share
        self._measures.append(found / len(annotators))
        self._best.append(best / len(annotators))
        self._weights.append(len(annotators) * annotators[0].size)
        return self._measures[-1]

    def score(self) -> RegionScores:
        """Pool all images: covering over the pixels of all annotators, the others over images.

        Raises:
            DataError: nothing was added.
        """
        if not self._measures:
            raise DataError("There is no image to score: expected region maps by annotators.")
        covering, rand, information = np.stack(self._measures, axis=1)  # (I, L) each
        weights = np.array(self._weights, np.float64)
        return RegionScores(
            covering=_levels(covering, weights),
            covering_best=float(np.average(self._best, weights=weights)),
            pri=_levels(rand),
            vi=_levels(information, smaller=True),
        )


def check_levels(found: int, before: int | None) -> None:
    """Complain if an image has no level, or not as many as the images before it."""
    if not found or before not in (None, found):
        raise UsageError(f"Expected {before or 'one or more'} levels of each image, found {found}.")


def _levels(values: Shares, weights: Any = None, *, smaller: bool = False) -> Levels:
    """Pool (I, L) values over images, at one level and at the best of each image."""
    sign = -1 if smaller else 1
    each = np.average(values, axis=0, weights=weights)
    best = sign * np.max(sign * values, axis=1)
    level = int(np.argmax(sign * each))
    ois = float(np.average(best, weights=weights))
    return Levels(tuple(each.tolist()), level, float(each[level]), ois)
