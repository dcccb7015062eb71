"""Which patch of the student belongs to which place in a teacher's view.

Shapes: `B` images, `g` side of a patch grid, `M` patches drawn per image, `D` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.training import distributed

DENSE = ("none", "ibot", "match")


@dataclass(frozen=True)
class Partners:
    """Patches that belong together.

    Attributes:
        mine: (R, D), of the student.
        theirs: (R, D), of the teacher, no gradient.
        weight: float32 (R,), how much each pair counts; 0 where there is no partner.
    """

    mine: Tensor
    theirs: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Places:
    """Where the views of a batch lie in their images.

    Attributes:
        box: (B, 4), top, left, height and width, in units of the image's side.
        flip: (B,), 1 where the view is mirrored.
    """

    box: Tensor
    flip: Tensor


def matched(
    student: Tensor, teacher: Tensor, places: tuple[Places, Places], noise: Tensor, count: int
) -> Partners:
    """Pair patches of one view with the same places in another.

    Args:
        student: tokens of its view (B, g, g, D).
        teacher: tokens of its view (B, g', g', D), no gradient.
        places: of the student's view and of the teacher's.
        noise: (B, at least g*g), uniform in 0..1, decides which patches are drawn.
        count: patches M per image; those that lie in both views come first.

    Returns:
        B*M pairs, those outside of the teacher's view with weight 0.

    Source:
        Xie et al. 2021 (PixPro) and Bardes et al. 2022 (VICRegL): the same place, not the same
        look, makes a pair.
    """
    mine, other = places
    grid = student.shape[1]
    centres = token_centres(mine, grid)  # (B, g*g, 2)
    inside = _within(centres, other.box)
    chosen = choose(inside, noise[:, : grid**2], count)  # (B, M)
    there = sample_at(teacher, _pick(centres, chosen), other)
    here = _pick(student.flatten(1, 2), chosen)
    weight = inside.gather(1, chosen).float()
    return Partners(here.flatten(0, 1), there.flatten(0, 1), weight.flatten())


def hidden(student: Tensor, teacher: Tensor, masked: Tensor, noise: Tensor, count: int) -> Partners:
    """Pair patches with what the teacher, from whom nothing is hidden, says of them.

    Args:
        student: tokens (B, g, g, D) of a view with hidden patches.
        teacher: tokens of the same view, no gradient.
        masked: bool (B, g, g), the hidden patches.
        noise: (B, at least g*g), uniform in 0..1, decides which patches are drawn.
        count: patches M per image; hidden ones come first.

    Returns:
        B*M pairs; hidden and visible ones have the same weight together.

    Source:
        Zhou et al. 2022 (iBOT), eq. 2; on visible patches too, each kind averaged by itself.
    """
    flat = masked.flatten(1)
    chosen = choose(flat, noise[:, : flat.shape[1]], count)
    weight = flat.gather(1, chosen).float().flatten()
    share = distributed.total(weight.mean()) / distributed.world()
    weight = torch.where(weight > 0, 0.5 / share.clamp(min=1e-6), 0.5 / (1 - share).clamp(min=1e-6))
    mine, theirs = (_pick(x.flatten(1, 2), chosen).flatten(0, 1) for x in (student, teacher))
    return Partners(mine, theirs, weight)


def join(parts: Sequence[Partners]) -> Partners:
    """Put the pairs of several views together."""
    return Partners(
        torch.cat([part.mine for part in parts]),
        torch.cat([part.theirs.to(part.mine.dtype) for part in parts]),
        torch.cat([part.weight for part in parts]),
    )


def token_centres(view: Places, grid: int) -> Tensor:
    """Where the patches of a view lie in the image.

    Args:
        view: where it lies.
        grid: side g of its patch grid.

    Returns:
        (B, g*g, 2), row and column in units of the image's side.
    """
    box, flip = view.box, view.flip
    at = (torch.arange(grid, device=box.device) + 0.5) / grid
    across = torch.where(flip[:, None] > 0, 1 - at, at)  # (B, g)
    rows = box[:, 0, None] + at * box[:, 2, None]
    columns = box[:, 1, None] + across * box[:, 3, None]
    places = [rows[:, :, None].expand(-1, -1, grid), columns[:, None, :].expand(-1, grid, -1)]
    return torch.stack(places, dim=-1).flatten(1, 2)


def sample_at(tokens: Tensor, places: Tensor, view: Places) -> Tensor:
    """Read a view's patch tokens at places of the image, bilinear.

    Args:
        tokens: (B, g, g, D) of the view.
        places: (B, M, 2), row and column in units of the image's side.
        view: where it lies.

    Returns:
        float32 (B, M, D); beyond the border the nearest patch.
    """
    row, column = _relative(places, view.box).unbind(-1)
    column = torch.where(view.flip[:, None] > 0, 1 - column, column)
    points = torch.stack([column, row], dim=-1)[:, None] * 2 - 1  # (B, 1, M, 2), x before y
    found = F.grid_sample(
        tokens.permute(0, 3, 1, 2).float(), points, padding_mode="border", align_corners=False
    )
    return found[:, :, 0].transpose(1, 2)


def choose(inside: Tensor, noise: Tensor, count: int) -> Tensor:
    """Draw patches of every image, those with a partner first.

    Args:
        inside: bool (B, N), which come first.
        noise: (B, N), uniform in 0..1, decides.
        count: patches M to draw, at most N.

    Returns:
        int64 (B, M), their indices.
    """
    return (noise + inside.float()).topk(min(count, noise.shape[1]), dim=1).indices


def block_mask(noise: Tensor, grid: int, share: Tensor) -> Tensor:
    """Hide rectangles of the patch grid.

    Args:
        noise: (B, 3), uniform in 0..1: the rectangle's stretch, row and column.
        grid: side g of the grid.
        share: (B,), share of the patches to hide, 0..1; 0 hides none.

    Returns:
        bool (B, g, g); the rectangle has nearly the wanted share.

    Source:
        Zhou et al. 2022 (iBOT): block-wise masks; here one rectangle per image.
    """
    stretch = torch.exp((noise[:, 0] - 0.5) * 1.2)  # aspect between 0.55 and 1.8, as in BEiT
    height = (share.sqrt() * stretch * grid).round().clamp(max=grid)
    height = torch.maximum(height, (share * grid).ceil())  # else even the full width is too little
    width = (share * grid**2 / height.clamp(min=1)).round().clamp(max=grid)
    top = (noise[:, 1] * (grid - height + 1)).floor()
    left = (noise[:, 2] * (grid - width + 1)).floor()
    at = torch.arange(grid, device=noise.device)
    rows = (at >= top[:, None]) & (at < (top + height)[:, None])
    columns = (at >= left[:, None]) & (at < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :]


def _relative(places: Tensor, box: Tensor) -> Tensor:
    """Places (B, M, 2) of the image in units of a view (B, 4)."""
    return (places - box[:, None, :2]) / box[:, None, 2:]


def _within(places: Tensor, box: Tensor) -> Tensor:
    """Whether places (B, M, 2) lie in the views (B, 4): bool (B, M)."""
    at = _relative(places, box)
    return ((at > 0) & (at < 1)).all(-1)


def _pick(x: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` (B, M) of x (B, N, D): (B, M, D)."""
    return x.gather(1, chosen[..., None].expand(-1, -1, x.shape[2]))
