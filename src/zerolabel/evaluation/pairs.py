"""Random views of an image together with its label: flip, turn, zoom and one size for all.

Shapes: `H W` pixels of the photo, `h w` pixels of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.data.transforms import to_tensor
from zerolabel.types import IGNORE, Image, LabelMap


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of an image.

    Attributes:
        flip: mirrored left to right, before it is turned.
        angle: degrees anticlockwise around the middle.
        scale: above 1 the middle is enlarged.
    """

    flip: bool = False
    angle: float = 0.0
    scale: float = 1.0


def draw_view(
    *, flip: float, angle: float, scale: tuple[float, float], generator: torch.Generator
) -> View:
    """Draw a view.

    Args:
        flip: probability.
        angle: largest turn to either side, degrees.
        scale: least and largest factor.
        generator: the source of all randomness.

    Returns:
        The view, all of it uniformly drawn.
    """
    first, second, third = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return View(
        flip=first < flip,
        angle=angle * (2 * second - 1),
        scale=scale[0] + third * (scale[1] - scale[0]),
    )


def show(
    image: Image, label: LabelMap, view: View, *, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Make a view of a photo and its label.

    The photo is mirrored, turned and scaled within its own frame, then squashed to the size, in one
    resampling: bicubic for the photo, black where nothing is; the nearest pixel for the label, 255
    where nothing is.

    Args:
        image: uint8 (H, W, 3).
        label: integers (H, W), 0..255.
        view: what to do.
        size: (h, w) of the view in pixels.

    Returns:
        uint8 (3, h, w) and int64 (h, w).
    """
    points = _sources(label.shape, view, size)  # (h, w, 2), columns first
    H, W = label.shape
    at = 2 * points / torch.tensor([W, H], dtype=points.dtype) - 1
    photo = to_tensor(image)[None].float()
    seen = F.grid_sample(photo, at[None].float(), mode="bicubic", align_corners=False)[0]
    column, row = points.floor().long().unbind(-1)
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    ids = torch.from_numpy(label.astype(np.int64))
    found = ids[row.clamp(0, H - 1), column.clamp(0, W - 1)]
    return seen.round_().clamp_(0, 255).byte(), torch.where(inside, found, IGNORE)


def _sources(shape: tuple[int, ...], view: View, size: tuple[int, int]) -> Tensor:
    """Find where in the photo each pixel of the view comes from.

    Returns:
        float64 (h, w, 2), column and row from the photo's upper left corner, in pixels.
    """
    rows, columns = (
        (torch.arange(new, dtype=torch.float64) + 0.5) * old / new - old / 2
        for old, new in zip(shape, size, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")  # from the middle
    cosine, sine = math.cos(math.radians(view.angle)), math.sin(math.radians(view.angle))
    # The view was turned anticlockwise as one sees it, with rows pointing down: turn it back.
    x, y = (cosine * x - sine * y) / view.scale, (sine * x + cosine * y) / view.scale
    x = -x if view.flip else x
    return torch.stack([x + shape[1] / 2, y + shape[0] / 2], dim=-1)
