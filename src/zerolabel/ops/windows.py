"""Sliding windows: where they lie, and how what a network says in each becomes one map.

Windows overlap, and a pixel gets the mean of what the windows around it say. Scores come on the
patch grid of each window; upsampling, the mean, and a last change of size are all linear and work
on one axis at a time, so together they are one small matrix per axis. With it, any rows of the
merged map can be had without the others. Shapes: `n` windows, `K` categories, `h' w'` the patch
grid of a window, `wh ww` its pixels, `H W` the image.

Source: Strudel et al., "Segmenter: Transformer for semantic segmentation", ICCV 2021, and its
code: the mean of the logits of sliding windows, bilinear upsampling, the argmax.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import UsageError

ELEMENTS = 1 << 21  # of a strip of merged scores: 8 MB, which stays near the cores


@dataclass(frozen=True)
class Windows:
    """Windows over an image, row by row: one at each of `rows` x each of `columns`.

    Args:
        size: (H, W) in pixels.
        window: (wh, ww) in pixels, at most `size`.
        rows: the first row of the windows, rising.
        columns: the first column of the windows, rising.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Return row0, column0, row1, column1 of every window in pixels, ends exclusive."""
        wh, ww = self.window
        return [(r, c, r + wh, c + ww) for r in self.rows for c in self.columns]

    def visits(self) -> Tensor:
        """Return how many windows lie over every pixel, int64 (H, W), 1 or more."""
        rows = _visits(self.rows, self.window[0], self.size[0])
        return torch.outer(rows, _visits(self.columns, self.window[1], self.size[1]))


def anchors(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Find where sliding windows start along an axis, the last one flush with the border.

    Args:
        length: of the axis, 1 or more.
        window: of the same unit; a longer one than the axis stands for one over all of it.
        stride: from start to start, 1..window, so that nothing is left out.

    Returns:
        0, stride, 2 stride, ... below length - window, and length - window.

    Raises:
        UsageError: a length below 1, or a stride that skips something.
    """
    if min(length, window) < 1 or not 1 <= stride <= window:
        found = f"a length of {length}, windows of {window} and a stride of {stride}"
        raise UsageError(f"Expected lengths of 1 or more and a stride of 1..window; found {found}.")
    last = max(length - window, 0)
    return (*range(0, last, stride), last)


def sliding(size: tuple[int, int], *, window: int, stride: int) -> Windows:
    """Lay square windows over an image.

    Args:
        size: (H, W) in pixels.
        window: side in pixels; an axis that is shorter is covered whole.
        stride: from window to window in pixels, 1..window.

    Returns:
        The windows; every pixel lies in one or more.

    Raises:
        UsageError: as in `anchors`.
    """
    rows, columns = (anchors(length, window, stride) for length in size)
    return Windows(size, (min(window, size[0]), min(window, size[1])), rows, columns)


def merge(scores: Iterable[Tensor], windows: Windows) -> Tensor:
    """Take the mean of what the windows around each pixel say.

    Args:
        scores: float (K, wh, ww) of each window, in the order of `windows.boxes()`; one at a time
            is enough, so they may come from a generator.
        windows: where they lie.

    Returns:
        (K, H, W), float32 or, from float64, float64.

    Raises:
        UsageError: more or fewer scores than windows, or of another size.
    """
    total, done, boxes = torch.empty(0), 0, windows.boxes()
    for done, score in enumerate(scores, start=1):
        if done > len(boxes) or score.ndim != 3 or tuple(score.shape[1:]) != windows.window:
            found = f"number {done} of {len(boxes)} with {tuple(score.shape)}"
            raise UsageError(f"Expected scores (K, {windows.window}) per window; found {found}.")
        if done == 1:
            total = torch.zeros(len(score), *windows.size).to(score.device, _precision(score))
        top, left, bottom, right = boxes[done - 1]
        total[:, top:bottom, left:right] += score
    if done != len(boxes):
        raise UsageError(f"Expected the scores of {len(boxes)} windows; found {done}.")
    return total.div_(windows.visits().to(total.device))


def merged_strips(
    scores: Tensor,
    windows: Windows,
    *,
    cover: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    strip: int = ELEMENTS,
) -> Iterator[tuple[int, Tensor]]:
    """Upsample the scores of windows and merge them, some rows of the image at a time.

    Equal to upsampling each window bilinearly to its pixels, `merge`, and upsampling what comes out
    to `size`, but for rounding. The strips of equal K, `size` and `strip` are the same rows, so
    those of several scales can be added up side by side.

    Args:
        scores: finite float (n, K, h', w'), in the order of `windows.boxes()`.
        windows: where they lie.
        cover: pixels (height, width) that the patch grid covers, more than the window if that was
            padded at the bottom and right to whole patches; the window by default.
        size: (H, W) of the result; the image that has the windows by default.
        strip: most values at once, K x rows x W; one row is the least.

    Yields:
        The first row, and the merged scores (K, rows, W), float32 or, from float64, float64.

    Raises:
        UsageError: shapes that do not fit together.
    """
    cover, size = cover or windows.window, size or windows.size
    if scores.ndim != 4 or len(scores) != len(windows.rows) * len(windows.columns):
        found = f"{tuple(scores.shape)} for {len(windows.rows)} x {len(windows.columns)}"
        raise UsageError(f"Expected scores (n, K, h', w') of all windows; found {found}.")
    if cover[0] < windows.window[0] or cover[1] < windows.window[1]:
        raise UsageError(f"Windows of {windows.window} reach beyond their patches, {cover}.")
    axes = zip((windows.rows, windows.columns), windows.window, windows.size, strict=True)
    down, across = (
        _weights(*axis, scores.shape[2 + i], cover[i], size[i]).to(_precision(scores))
        for i, axis in enumerate(axes)
    )
    columns = [_reach(across[:, j], scores.device) for j in range(len(windows.columns))]
    # (n, K, h', w') -> (rows, columns, K, h', w')
    grid = scores.reshape(len(windows.rows), len(columns), *scores.shape[1:])
    height = max(1, strip // (scores.shape[1] * size[1]))
    for top in range(0, size[0], height):
        mine = down[top : top + height]  # (height, rows of windows, h')
        used = (mine != 0).any(0)
        parts = zip(grid, used, strict=True)
        patches = torch.cat([_wide(row, cells, columns, size[1]) for row, cells in parts])
        merged = mine[:, used].to(scores.device) @ patches.flatten(1)  # (height, K * W)
        yield top, merged.reshape(len(mine), *patches.shape[1:]).transpose(0, 1)


def merged_argmax(
    scores: Tensor,
    windows: Windows,
    *,
    cover: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    strip: int = ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Find the best category of every pixel, without all scores of all pixels in memory.

    Args:
        scores: as in `merged_strips`, like the others.
        windows: where they lie.
        cover: pixels that the patch grid of a window covers.
        size: (H, W) of the result.
        strip: most values at once.

    Returns:
        int64 (H, W), the category with the highest mean, the first of equals, and that mean.

    Raises:
        UsageError: shapes that do not fit together.
    """
    size = size or windows.size
    labels = torch.empty(size, dtype=torch.int64, device=scores.device)
    best = torch.empty(size, dtype=_precision(scores), device=scores.device)
    for top, merged in merged_strips(scores, windows, cover=cover, size=size, strip=strip):
        rows = slice(top, top + merged.shape[1])
        best[rows], labels[rows] = merged.max(0)
    return labels, best


def _precision(scores: Tensor) -> torch.dtype:
    """Return the type to add up in: half precision would lose what the mean is for."""
    return torch.promote_types(scores.dtype, torch.float32)


def _visits(starts: tuple[int, ...], window: int, length: int) -> Tensor:
    """Count the windows over each place of an axis, int64 (length,)."""
    places, first = torch.arange(length), torch.tensor(starts)[:, None]
    return ((places >= first) & (places < first + window)).sum(0)


def _weights(
    starts: tuple[int, ...], window: int, length: int, cells: int, cover: int, size: int
) -> Tensor:
    """Return how much of each cell of each window goes into each place of an axis.

    Returns:
        float64 (size, windows, cells); the sum of every row is 1.
    """
    one = _resampled(torch.eye(cells, dtype=torch.float64), cover)[:window]
    weights = torch.zeros(length, len(starts), cells, dtype=torch.float64)
    for i, start in enumerate(starts):
        weights[start : start + window, i] = one
    weights /= _visits(starts, window, length)[:, None, None]
    return _resampled(weights, size)


def _resampled(rows: Tensor, size: int) -> Tensor:
    """Bring the first axis of (n, ...) to `size` bilinearly, edges repeated, as torch does it."""
    n = len(rows)
    if n == size:
        return rows
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * (n / size) - 0.5).clamp(0, n - 1)
    low = at.long()
    part = (at - low).reshape(-1, *[1] * (rows.ndim - 1))
    return torch.lerp(rows[low], rows[(low + 1).clamp_max(n - 1)], part)


def _reach(weights: Tensor, device: torch.device) -> tuple[slice, Tensor]:
    """Return the columns (W,) that a window reaches, and the weights (w', reached) there."""
    reached = weights.any(1).nonzero().flatten().tolist()
    where = slice(reached[0], reached[-1] + 1) if reached else slice(0, 0)
    return where, weights[where].mT.to(device)


def _wide(row: Tensor, cells: Tensor, columns: list[tuple[slice, Tensor]], width: int) -> Tensor:
    """Merge the rows `cells` of the patches (columns, K, h', w') of a row of windows: (g, K, W)."""
    some = row[:, :, cells.nonzero().flatten().to(row.device)].to(columns[0][1].dtype)
    wide = some.new_zeros(some.shape[2], some.shape[1], width)
    for scores, (where, weights) in zip(some, columns, strict=True):
        wide[..., where] += scores.transpose(0, 1) @ weights
    return wide
