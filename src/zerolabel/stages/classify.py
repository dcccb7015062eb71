"""Naming regions from outside: by regions whose class is known, or by texts.

The other way to categorise, which finds categories without either, is the verb of that name.
Shapes: `h w` patch grid, `H W` pixels, `R` regions of one image or of several, `M` regions of a
bank, `D` channels, `C` classes, `T` texts.

Source: Li et al., "ACSeg: Adaptive Conceptualization for Unsupervised Semantic Segmentation",
CVPR 2023, its k-NN retrieval and its language-assisted segmentation.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.neighbours import nearest
from zerolabel.ops.regions import cells
from zerolabel.types import LabelMap, RegionMap


def region_labels(
    label: LabelMap, regions: RegionMap, classes: int, *, skip_background: bool = True
) -> NDArray[np.int64]:
    """Give every region the class that most of its pixels have.

    A pixel lies in the region of the patch that holds its centre.

    Args:
        label: integers (H, W), the ground truth of the image; ids outside 0..C-1, such as 255, are
            not counted.
        regions: regions of the image's patch grid, which covers all of it.
        classes: C.
        skip_background: pixels of class 0 count only in a region that has no others.

    Returns:
        int64 (R,), the lowest id of equals; -1 for a region without a pixel that counts.

    Raises:
        DataError: the label is not a map of integers.
        UsageError: fewer than one class.
    """
    if label.ndim != 2 or label.dtype.kind not in "iu":
        found = f"{label.dtype} {label.shape}"
        raise DataError(f"Expected a label map (H, W) of integers; found {found}.")
    if classes < 1:
        raise UsageError(f"Expected at least one class, found {classes}.")
    counted = (label >= 0) & (label < classes)
    own = cells(label.shape, regions.ids.shape)[counted]
    owners = regions.ids.ravel()[own].astype(np.int64)
    pairs = owners * classes + label[counted].astype(np.int64)
    size = regions.count * classes
    counts = np.bincount(pairs, minlength=size).reshape(regions.count, classes)
    if skip_background:
        counts[counts[:, 1:].any(1), 0] = 0
    found_labels: NDArray[np.int64] = np.where(counts.any(1), counts.argmax(1), -1)
    return found_labels


def retrieve(
    vectors: Tensor, bank: Tensor, labels: Tensor, *, neighbours: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Give every region the class that most of its nearest neighbours have.

    Args:
        vectors: float (R, D), descriptions of any length; one of zeros is like nothing.
        bank: float (M, D), descriptions of regions with a known class, M >= 1.
        labels: int64 (M,), their classes 0..C-1; regions without a class do not belong here.
        neighbours: how many vote, each with one voice; at most M do.
        classes: C.

    Returns:
        Classes int64 (R,), of equals that of the nearest neighbour, and float32 (R,), cosine to the
        nearest neighbour of this class.

    Raises:
        UsageError: shapes that do not fit, an empty bank, no neighbours, or a label outside 0..C-1.
    """
    if labels.shape != bank.shape[:1]:
        found = f"{tuple(labels.shape)} for {tuple(bank.shape)}"
        raise UsageError(f"Expected one label for each region of the bank; found {found}.")
    similarities, rows = nearest(vectors, bank, neighbours)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"Expected labels of the bank in 0..{classes - 1}; found {low}..{high}. Leave regions "
            "without a class out."
        )
    voices = labels.to(rows.device).long()[rows]  # (R, k), the nearest first
    counts = torch.zeros(len(rows), classes, dtype=torch.int64, device=rows.device)
    counts.scatter_add_(1, voices, torch.ones_like(voices))
    support = counts.gather(1, voices)  # of the class of each neighbour
    best = support.argmax(1, keepdim=True)  # documented to be the first of equals, so the nearest
    return voices.gather(1, best)[:, 0], similarities.gather(1, best)[:, 0]


def by_text(
    dense: Tensor, regions: RegionMap, texts: Tensor, *, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Give every region the class whose text is most like its mean dense feature.

    The two grids both cover the whole image and may differ: a region has of every cell of the dense
    features the share that lies inside it, however small. So no region is ever without features,
    and on grids that are equal, or that the patches divide evenly, this is the plain mean.

    Args:
        dense: float (h', w', D), features of a vision-language model in the space of its texts; to
            count all cells alike whatever their length, normalise them first.
        regions: regions of the image's patch grid (h, w).
        texts: float (T, D), embeddings of any length.
        groups: int64 (T,), the class of each text, 0..C-1, every class having one; a class is as
            near as its nearest text. None: each text is a class.

    Returns:
        Classes int64 (R,), the lowest of equals, and cosines float32 (R, C); features or texts of
        zeros have the cosine 0.

    Raises:
        UsageError: shapes that do not fit, no text, or a class without one.
    """
    if dense.ndim != 3 or texts.ndim != 2 or dense.shape[2] != texts.shape[1] or not len(texts):
        found = f"{tuple(dense.shape)} and {tuple(texts.shape)}"
        raise UsageError(
            f"Expected features (h, w, D) and texts (T, D) with T >= 1; found {found}."
        )
    cosines = _means(dense.float(), regions) @ F.normalize(texts.to(dense.device).float(), dim=1).T
    if groups is not None:
        index = _groups(groups, len(texts)).to(dense.device)
        best = cosines.new_full((len(cosines), int(index.max()) + 1), -torch.inf)
        cosines = best.scatter_reduce(1, index.expand_as(cosines), cosines, "amax")
    return cosines.argmax(1), cosines


def _means(dense: Tensor, regions: RegionMap) -> Tensor:
    """Mean feature of every region as a direction, float32 (R, D)."""
    ids = torch.from_numpy(regions.ids).to(dense.device).long()
    down, across = (
        _overlap(patches, cells).to(dense.device)
        for patches, cells in zip(ids.shape, dense.shape[:2], strict=True)
    )
    inside = F.one_hot(ids, regions.count).permute(2, 0, 1).float()  # (R, h, w)
    weights = down.T @ inside @ across  # (R, h', w'), how much of a region is in a cell
    return F.normalize(weights.flatten(1) @ dense.flatten(0, 1), dim=1)


def _overlap(patches: int, cells: int) -> Tensor:
    """Cut a line into `patches` parts and into `cells` parts: the share of each part in the others.

    Returns:
        float32 (patches, cells), rows summing to 1; the identity if there are as many of both.
    """
    part, cell = torch.arange(patches)[:, None], torch.arange(cells)  # ends in 1/(patches*cells)
    first = torch.maximum(part * cells, cell * patches)
    last = torch.minimum((part + 1) * cells, (cell + 1) * patches)
    return (last - first).clamp_min(0) / cells


def _groups(groups: Tensor, texts: int) -> Tensor:
    """Check that every text has a class and every class a text."""
    if groups.shape != (texts,) or groups.is_floating_point():
        found = f"{groups.dtype} {tuple(groups.shape)}"
        raise UsageError(f"Expected the class of each of {texts} texts; found {found}.")
    named = torch.unique(groups)
    if not torch.equal(named.cpu(), torch.arange(len(named))):
        raise UsageError(
            f"Expected classes 0..C-1, each with a text; found the classes {named.tolist()}."
        )
    return groups.long()
