"""Names for categories from words: what a category looks like, and which class that is.

Shapes: `B` images, `h w` patch grid, `H W` pixels, `K` categories, `C` classes, `Q` words, `P`
channels of the space that images share with texts.

Source of the dense features and of the cosine to texts: Zhou, Loy and Dai, "Extract Free Dense
Labels from CLIP", ECCV 2022; the mean over a region, for naming it, as in Li et al., "ACSeg",
CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zerolabel.backbones import Backbone
from zerolabel.errors import DataError
from zerolabel.stages.encode import features
from zerolabel.store import Store
from zerolabel.types import LabelMap, Sample

BATCH = 16
NEXT = 4  # classes that are told beside the best


@dataclass(frozen=True)
class Choice:
    """The class that names a category.

    Attributes:
        word: the name.
        score: how well it fits.
        margin: by how much it fits better than the next class, below 0 where that is better; None
            where there is no other.
        alternatives: the next classes and their scores, best first.
    """

    word: str
    score: float
    margin: float | None
    alternatives: tuple[tuple[str, float], ...]


def cell_shares(
    label_map: LabelMap, grid: tuple[int, int], categories: Sequence[int]
) -> NDArray[np.float32]:
    """Measure how much of every cell each category covers, by area: pixels are cut where needed.

    Args:
        label_map: integer (H, W).
        grid: (h, w), a grid over the whole image.
        categories: ids, n of them.

    Returns:
        float32 (n, h, w), shares 0..1.
    """
    down, across = (
        _overlap(pixels, cells) for pixels, cells in zip(label_map.shape, grid, strict=True)
    )
    shares = [down @ (label_map == k).astype(np.float32) @ across.T for k in categories]
    return np.array(shares, np.float32).reshape(-1, *grid)


def appearances(
    backbone: Backbone,
    samples: Sequence[Sample],
    shown: Mapping[str, Sequence[int]],
    masks: Callable[[str], LabelMap],
    *,
    K: int,
    size: tuple[int, int],
    store: Store,
) -> tuple[Tensor, dict[str, str]]:
    """Average the dense features of the cells that each category covers, every cell a direction.

    Args:
        backbone: gives "dense".
        samples: the images to look at, each encoded once.
        shown: id of an image -> categories that it stands for.
        masks: returns the label map (H, W) of an image by its id.
        K: categories.
        size: (H, W) in pixels that images are squashed to.
        store: keeps the features, and is told the progress as "look".

    Returns:
        float32 (K, P), unit rows, zeros for a category without a cell; and id -> reason for the
        images that could not be read.

    Raises:
        UsageError: the backbone gives no dense features.
    """
    sums: Tensor | None = None
    failures: dict[str, str] = {}
    for _, batch in store.track("look", samples, BATCH):
        found, kept, failed = features(backbone, batch, want={"dense"}, size=size, store=store)
        failures |= failed
        if found.dense is None:  # none of the batch could be read
            continue
        units = F.normalize(found.dense, dim=-1)  # (B, h, w, P)
        if sums is None:
            sums = torch.zeros(K, units.shape[-1])
        grid = (units.shape[1], units.shape[2])
        for sample, cells in zip(kept, units, strict=True):
            ids = list(shown[sample.id])
            try:
                weights = torch.from_numpy(cell_shares(masks(sample.id), grid, ids))
            except DataError as error:
                failures[sample.id] = str(error)
                continue
            sums[ids] += torch.einsum("nhw,hwp->np", weights, cells)
    return F.normalize(torch.zeros(K, 1) if sums is None else sums, dim=-1), failures


def by_class(
    cosines: NDArray[np.floating], groups: Sequence[int], words: Sequence[str]
) -> tuple[NDArray[np.float64], list[list[str]]]:
    """Score classes by the best of their words.

    Args:
        cosines: (K, Q).
        groups: the class of each word, 0..C-1, every class having one.
        words: Q of them.

    Returns:
        float64 (K, C), and for each category the word that each class is called by, K lists of C.
    """
    owner = np.asarray(groups)
    members = [np.flatnonzero(owner == c) for c in range(int(owner.max()) + 1)]
    scores = np.stack([cosines[:, own].max(1) for own in members], 1).astype(np.float64)
    best = np.stack([own[cosines[:, own].argmax(1)] for own in members], 1)  # (K, C)
    return scores, [[words[q] for q in row] for row in best]


def assign(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each category a class of its own so that the sum of scores is the largest.

    Args:
        scores: (K, C).

    Returns:
        int64 (K,), a class or -1 for the K - C categories that are left over.
    """
    picks = np.full(len(scores), -1, np.int64)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    picks[rows] = columns
    return picks


def choose(
    scores: NDArray[np.float64],
    words: Sequence[Sequence[str]],
    *,
    picks: NDArray[np.int64] | None = None,
    least: float = -np.inf,
) -> list[Choice | None]:
    """Choose the class that names each category.

    Args:
        scores: (K, C); NaN in the rows of categories that nothing is known of.
        words: K lists of C, what each class would call the category.
        picks: int64 (K,), the class of each category, -1 for none; None takes the best ones, of
            equals the first.
        least: classes that do not score more are neither names nor alternatives.

    Returns:
        K choices; None where there is none.
    """
    choices: list[Choice | None] = []
    for k, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")
        pick = int(order[0]) if picks is None else int(picks[k])
        if pick < 0 or not row[pick] > least:
            choices.append(None)
            continue
        others = [int(c) for c in order if c != pick]
        choices.append(
            Choice(
                words[k][pick],
                float(row[pick]),
                float(row[pick] - row[others[0]]) if others else None,
                tuple((words[k][c], float(row[c])) for c in others[:NEXT] if row[c] > least),
            )
        )
    return choices


def distinct(names: Mapping[int, str], order: Sequence[int], *, taken: set[str]) -> dict[int, str]:
    """Number names that several categories have: "dog", "dog 2".

    Args:
        names: category -> name.
        order: those categories, the first of which keeps a name as it is.
        taken: names of other categories.

    Returns:
        category -> name, all of them different and none of them taken.
    """
    used, found = set(taken), dict[int, str]()
    reserved = set(names.values())  # so that "dog 2" of a vocabulary is nobody's second dog
    for k in order:
        name, number = names[k], 1
        while name in used or (number > 1 and name in reserved):
            number += 1
            name = f"{names[k]} {number}"
        used.add(name)
        found[k] = name
    return found


def _overlap(pixels: int, cells: int) -> NDArray[np.float32]:
    """Cut a line into `pixels` and into `cells` parts: the share of each cell in each pixel.

    Returns:
        float32 (cells, pixels), rows summing to 1.
    """
    pixel, cell = np.arange(pixels), np.arange(cells)[:, None]  # ends in 1/(pixels*cells)
    first = np.maximum(pixel * cells, cell * pixels)
    last = np.minimum((pixel + 1) * cells, (cell + 1) * pixels)
    shares: NDArray[np.float32] = ((last - first).clip(0) / pixels).astype(np.float32)
    return shares
