"""Which words an image may hold: what CLIP sees in crops of it, or in the whole.

Shapes: `n` crops, `Q` words, `P` channels of the space of images and texts, `H W` pixels; boxes are
row0, column0, row1, column1 with ends exclusive.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, section III-D and equation 6; where the published code differs, its rule.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name

RULES = ("paper", "code")
SCALE = 100.0  # of cosines in CLIP's logits


def windows(
    size: tuple[int, int], *, share: float = 1 / 6, rule: str = "paper", side: int | None = None
) -> Tensor:
    """Lay overlapping windows over an image, half a window apart.

    "paper": a window is `share` of the height by `share` of the width, rounded, and the last of an
    axis is flush with the far edge; they cover every pixel. Where 1 / share is whole there are
    (2 / share - 1)^2 of them, 121 for 1/6, at any size with 2 / share pixels or more an axis.

    "code": squares of `side` pixels that start at 0, side // 2, ... below the length minus the
    side, so that none is flush with the far edge. An axis that is not longer than the side has one
    window over all of it. As published with sides of 56 (VOC) and 85 (Cityscapes): 192 windows for
    375 x 500 pixels, 1,081 for 1024 x 2048.

    Args:
        size: (H, W) in pixels, 1 or more.
        share: of the image's sides, in (0, 1]; of the rule "paper".
        rule: "paper" or "code".
        side: in pixels, 2 or more; of the rule "code", which has no default.

    Returns:
        int64 (n, 4) in pixels, row by row, all different, 1 or more.

    Raises:
        UsageError: another rule, or a size, share or side out of range.
    """
    if rule not in RULES:
        raise unknown_name("rule for windows", rule, RULES)
    if min(size) < 1:
        raise UsageError(f"Expected an image of 1 pixel or more; found {size[0]} x {size[1]}.")
    if rule == "code":
        if side is None or side < 2:
            raise UsageError(f"The rule 'code' needs a side of 2 pixels or more, got {side}.")
        spans = [_squares(length, side) for length in size]
    else:
        if not 0 < share <= 1:
            raise UsageError(f"Expected a share of the image in (0, 1]; found {share}.")
        spans = [_strides(length, share) for length in size]
    boxes = [(r0, c0, r1, c1) for r0, r1 in spans[0] for c0, c1 in spans[1]]
    return torch.tensor(boxes, dtype=torch.int64)


def shares(joint: Tensor, queries: Tensor) -> Tensor:
    """Measure in how many crops each word is the nearest: f(k) of the paper.

    Args:
        joint: float (n, P), crops in the space of texts, any lengths above 0, n >= 1.
        queries: float (Q, P), unit rows.

    Returns:
        float32 (Q,), 0..1 with sum 1; of words at the same distance the first one counts.

    Raises:
        UsageError: no crops, or shapes that do not fit together.
    """
    if joint.ndim != 2 or queries.ndim != 2 or joint.shape[1] != queries.shape[1] or not len(joint):
        found = f"{tuple(joint.shape)} and {tuple(queries.shape)}"
        raise UsageError(f"Expected crops (n, P), n >= 1, and queries (Q, P); found {found}.")
    nearest = (joint.to(queries.dtype) @ queries.T).argmax(dim=1)
    return torch.bincount(nearest, minlength=len(queries)).float() / len(joint)


def from_shares(shares: Tensor, *, least: float, most: int = 2) -> Tensor:
    """Take the words that enough crops hold: H = {k: f(k) > t}, equation 6.

    Args:
        shares: float (Q,), what `shares` returned.
        least: t; 0.07 for PASCAL VOC and Cityscapes, 0 for the other data sets of the paper.
        most: how many of the most frequent words are taken if no word passes; words that are in no
            crop are not among them.

    Returns:
        bool (Q,), never all False.

    Raises:
        UsageError: `most` below 1.
    """
    present = shares > least
    return present if bool(present.any()) else _top(shares, most) & (shares > 0)


def from_whole(joint: Tensor, queries: Tensor, *, least: float, most: int) -> Tensor:
    """Take the words that are near enough to the whole image, as ReCLIP (v1) does.

    Args:
        joint: float (P,), the image in the space of texts, any length above 0.
        queries: float (Q, P), unit rows.
        least: of 100 times the cosine; 23 for PASCAL VOC, 20 to 21.5 for the other data sets.
        most: how many of the nearest words are taken if no word passes.

    Returns:
        bool (Q,), never all False.

    Raises:
        UsageError: `most` below 1.
    """
    logits = SCALE * (queries @ F.normalize(joint.to(queries.dtype), dim=0))
    present = logits >= least
    return present if bool(present.any()) else _top(logits, most)


def _top(scores: Tensor, most: int) -> Tensor:
    """Return where the `most` largest are, bool (Q,); of equals the first ones."""
    if most < 1:
        raise UsageError(f"Expected one word or more to fall back on, got {most}.")
    best = scores.argsort(descending=True, stable=True)[:most]
    return torch.zeros_like(scores, dtype=torch.bool).index_fill_(0, best, True)


def _strides(length: int, share: float) -> list[tuple[int, int]]:
    """Return start and end of the windows along an axis by the paper's rule."""
    window = max(1, _round(share * length))
    steps = math.ceil(2 / share - 2 - 1e-9)  # strides until the far edge; the last may be shorter
    last = length - window
    starts = [min(_round(k * share * length / 2), last) for k in range(steps)]
    return [(start, start + window) for start in sorted({*starts, last})]


def _squares(length: int, side: int) -> list[tuple[int, int]]:
    """Return the same by the rule of the code."""
    starts = range(0, length - side, side // 2) or (0,)
    return [(start, min(start + side, length)) for start in starts]


def _round(x: float) -> int:
    return math.floor(x + 0.5)  # halves go up; Python's own rounding would alternate
