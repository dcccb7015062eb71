"""Crops of objects and of background: where they lie, how much of each is foreground.

Squares of several sides slide over the patch grid of an image; what attention says is foreground
sorts them. Shapes: `B` images, `n` boxes, `h w` patch grid; boxes are row0, column0, row1, column1
with ends exclusive.

Source: Yin et al., "TransFGU: A top-down approach to fine-grained unsupervised semantic
segmentation", ECCV 2022, and where the published code differs, its rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.windows import anchors

RULES = ("paper", "code")


class Kinds(NamedTuple):
    """Which crops are foreground, and which background; the others, neither, are dropped.

    Args:
        foreground: bool (B, n).
        background: bool (B, n), nowhere where `foreground` is.
    """

    foreground: Tensor
    background: Tensor


def windows(grid: tuple[int, int], betas: Sequence[float], *, rule: str = "paper") -> Tensor:
    """Lay squares of several sides over a patch grid, half a side apart.

    "paper": the side is beta times the shorter side of the grid, rounded; windows start at 0, half
    a side, a side, ..., and the last one is flush with the far edge. Every cell is covered.

    "code": the side s is rounded down, and windows lie around cells: s / 2 of them on each side of
    the centre, so an even s gives s + 1 cells and an odd s gives s. Centres are the multiples of
    s / 2 and the one whose window touches the far edge. With an odd s no centre touches an edge,
    so border cells stay uncovered; the published grids and betas have even s only. As published,
    at 640 x 640 pixels and patches of 8: .5 .4 .3 .2 give 9 + 16 + 36 + 81 = 142 windows.

    Args:
        grid: (h, w) in cells.
        betas: sides of the squares as shares of the shorter side of the grid, each in (0, 1].
        rule: "paper" or "code".

    Returns:
        int64 (n, 4) in cells, beta by beta, each row by row.

    Raises:
        UsageError: another rule, a beta outside (0, 1], or one for which the rule has no window.
    """
    if rule not in RULES:
        raise unknown_name("rule for windows", rule, RULES)
    if min(grid) < 1 or not betas or not all(0 < beta <= 1 for beta in betas):
        found = f"{list(betas)} of a grid of {grid}"
        raise UsageError(f"Expected shares in (0, 1] of one cell or more; found {found}.")
    spans = _spans_of_paper if rule == "paper" else _spans_of_code
    laid = []
    for beta in betas:
        rows, columns = (spans(length, beta * min(grid)) for length in grid)
        if not len(rows) or not len(columns):
            raise UsageError(
                f"A grid of {grid} has no window of {beta} by the rule 'code'. Take the rule "
                "'paper', another share or larger images."
            )
        pairs = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(columns)))
        ends = torch.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], dim=2)  # (n, 2 ends, 2 axes)
        laid.append(ends.flatten(1))
    return torch.cat(laid)


def in_pixels(boxes: Tensor, patch: int, *, rule: str = "paper") -> Tensor:
    """Bring boxes from cells to pixels.

    Args:
        boxes: int64 (n, 4) in cells.
        patch: side of a cell in pixels.
        rule: "paper", all pixels of the cells, or "code", which leaves out the last row and column
            of them, as the published code does.

    Returns:
        int64 (n, 4) in pixels, ends exclusive.

    Raises:
        UsageError: another rule.
    """
    if rule not in RULES:
        raise unknown_name("rule for windows", rule, RULES)
    short = torch.tensor([0, 0, 1, 1], device=boxes.device)
    return boxes * patch - (short if rule == "code" else 0)


def foreground(attention: Tensor) -> Tensor:
    """Take the cells whose attention is above the mean of their image.

    Args:
        attention: float (B, h, w), of CLS, all heads averaged.

    Returns:
        bool (B, h, w), nothing where all attend alike.
    """
    values = attention.detach().cpu().double()  # MPS has no float64; float32 rounds equals apart
    return (values > values.mean((-2, -1), keepdim=True)).to(attention.device)


def shares(mask: Tensor, boxes: Tensor) -> Tensor:
    """Measure how much of every box is inside a mask, by the mask's integral image.

    Args:
        mask: bool or float (B, h, w), floats in 0..1.
        boxes: int64 (n, 4) in cells, within the grid, with one cell or more.

    Returns:
        float64 (B, n), 0..1, on the CPU; of a bool mask the exact quotient, rounded once.

    Raises:
        UsageError: other shapes, or a box that is empty or reaches beyond the grid.
    """
    if mask.ndim != 3 or boxes.ndim != 2 or boxes.shape[1] != 4:
        found = f"{tuple(mask.shape)} and {tuple(boxes.shape)}"
        raise UsageError(f"Expected a mask (B, h, w) and boxes (n, 4); found {found}.")
    row0, column0, row1, column1 = boxes.detach().cpu().unbind(1)
    _, h, w = mask.shape
    fits = (row0 >= 0) & (column0 >= 0) & (row1 <= h) & (column1 <= w)
    if not bool((fits & (row0 < row1) & (column0 < column1)).all()):
        raise UsageError(f"Expected boxes with cells, within the grid of {h} x {w}; found others.")
    sums = F.pad(mask.detach().cpu().double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # (B, h+1, w+1)
    below = sums[:, row1, column1] - sums[:, row1, column0]
    above = sums[:, row0, column1] - sums[:, row0, column0]
    return (below - above) / ((row1 - row0) * (column1 - column0))


def sort_crops(shares: Tensor, *, foreground: float = 0.5, background: float = 0.8) -> Kinds:
    """Sort crops into foreground, background, and what is dropped.

    Args:
        shares: float64 (B, n), how much of each crop is foreground, 0..1.
        foreground: a crop with a higher share is foreground.
        background: a crop with a higher share of the rest is background; 1 for none.

    Returns:
        The two kinds. No crop is both.

    Raises:
        UsageError: thresholds outside 0..1, or so low that a crop could be both.
    """
    if not (0 <= foreground <= 1 and 0 <= background <= 1 and foreground + background >= 1):
        found = f"{foreground} and {background}"
        raise UsageError(f"Expected thresholds in 0..1 with a sum of 1 or more; found {found}.")
    return Kinds(shares > foreground, 1 - shares > background)


def _spans_of_paper(length: int, side: float) -> Tensor:
    """Return the first and last + 1 cells (n, 2) of the windows along an axis."""
    cells = max(1, round(side))
    starts = torch.tensor(anchors(length, cells, max(1, cells // 2)))
    return torch.stack([starts, starts + cells], dim=1)


def _spans_of_code(length: int, side: float) -> Tensor:
    """Return the same by the published rule; centres count twice, for halves of odd sides.

    The published conditions on pairs of centres allow exactly all pairs of these.
    """
    s = int(side)
    if not s:
        return torch.empty(0, 2, dtype=torch.int64)
    centres = 2 * torch.arange(length)
    inside = (centres - s >= 0) & (centres + s < 2 * length)
    kept = centres[inside & ((centres % s == 0) | (centres + s == 2 * (length - 1)))]
    reach = s // 2
    return torch.stack([kept // 2 - reach, kept // 2 + reach + 1], dim=1)
