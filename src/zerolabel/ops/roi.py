"""Boxes of maps, brought to one size: every output cell is a mean over its part of the box.

Bilinear samples on a regular lattice are separable, so what happens to an axis is one matrix per
image, and a batch is two products, however large the boxes are and whichever are mirrored.
Shapes: `B` images, `K` maps, `H W` cells of a map, `oh ow` output cells, or `n` of `length` cells
along one axis.

Source: He et al., "Mask R-CNN", ICCV 2017, section 3 (RoIAlign), with cells centred at + 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zerolabel.errors import UsageError

# A side that float32 made a little too long must not double the samples of its bins.
SLACK = 1e-4


def roi_align(
    maps: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    flip: Tensor | None = None,
    samples: int = 0,
) -> Tensor:
    """Cut a box out of the maps of every image and bring it to one size.

    The box is parted into oh x ow bins; an output cell is the mean of bilinear samples spread
    evenly over its bin. A sample beyond the centres of the outermost cells takes the nearest of
    them.

    Args:
        maps: float (B, K, H, W).
        boxes: float (B, 4), row0, column0, row1, column1 in cells, ends exclusive.
        size: (oh, ow) in cells.
        flip: bool (B,), True mirrors left and right; None for nowhere.
        samples: per bin and axis; 0 for the side of the bin in cells, rounded up, for every image
            and axis on its own.

    Returns:
        (B, K, oh, ow) of the type of `maps`; linear in `maps`, and differentiable with respect to
        them, not to the boxes.

    Raises:
        UsageError: shapes that do not fit together, maps that are not float, a size or number of
            samples out of range, or a box that is not finite or ends before it starts.
    """
    if maps.ndim != 4 or boxes.shape != (len(maps), 4):
        found = f"{tuple(maps.shape)} and {tuple(boxes.shape)}"
        raise UsageError(f"Expected maps (B, K, H, W) and boxes (B, 4); found {found}.")
    if flip is not None and (flip.shape != (len(maps),) or flip.dtype != torch.bool):
        found = f"{flip.dtype} {tuple(flip.shape)}"
        raise UsageError(f"Expected a bool flip for each of {len(maps)} images; found {found}.")
    if not maps.is_floating_point():
        raise UsageError(f"Expected maps of floats, found {maps.dtype}; convert them first.")
    if min(maps.shape[2:]) < 1 or min(size) < 1 or samples < 0:
        found = f"{tuple(maps.shape[2:])}, {tuple(size)} and {samples}"
        raise UsageError(
            f"Expected maps and a size of one cell or more, and 0 samples or more; found {found}."
        )
    # On the CPU, where boxes are drawn: the number of samples is needed there, and MPS has no
    # float64.
    ends = boxes.detach().cpu().double()
    if not bool(ends.isfinite().all() and (ends[:, 2:] >= ends[:, :2]).all()):
        raise UsageError("Expected finite boxes that end after they start; found others.")
    row0, column0, row1, column1 = ends.unbind(1)
    rows = means(row0, row1, size[0], length=maps.shape[2], samples=samples)  # (B, oh, H)
    columns = means(column0, column1, size[1], length=maps.shape[3], samples=samples)  # (B, ow, W)
    if flip is not None:
        columns = torch.where(flip.cpu()[:, None, None], columns.flip(1), columns)
    rows, columns = rows.to(maps), columns.to(maps)
    return rows[:, None] @ (maps @ columns[:, None].transpose(2, 3))


def means(start: Tensor, end: Tensor, n: int, *, length: int, samples: int = 0) -> Tensor:
    """Say which cells along an axis make up every bin of a box.

    Args:
        start: float64 (B,), where the boxes start, in cells.
        end: float64 (B,), where they end, exclusive.
        n: bins.
        length: cells of the axis.
        samples: as in `roi_align`.

    Returns:
        float64 (B, n, length), 0 or more, rows sum to 1.
    """
    side = (end - start) / n  # of a bin
    counts = torch.full_like(side, samples) if samples else (side - SLACK).ceil().clamp_min(1)
    most = int(counts.max()) if len(counts) else 1
    cells = torch.arange(length, device=start.device)
    bins = torch.arange(n, device=start.device)
    total = start.new_zeros(len(start), n, length)
    for sample in range(most):  # few: the side of a bin
        at = bins + ((sample + 0.5) / counts)[:, None]  # (B, n), in bins from the start
        at = (start[:, None] + at * side[:, None] - 0.5).clamp(0, length - 1)  # in cells
        weights = (1 - (at[..., None] - cells).abs()).clamp_min(0)  # (B, n, length)
        total += weights * (sample < counts)[:, None, None]
    return total / counts[:, None, None]
