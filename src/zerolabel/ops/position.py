"""Position embeddings of a vision transformer, carried over to another patch grid.

Every published network was trained on one square grid and resamples its position embeddings for any
other. The families do it slightly differently, and features follow the rule they were published
with: on a 320x448 image the rules differ by some hundredths per token.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

PosInterp = Literal["dino", "size", "size-antialias", "bilinear"]

# DINO and DINOv2 ask for a grid 0.1 larger so that rounding cannot lose a row (issue 8 of the DINO
# repository); the scale is then no longer exact, which shifts every sampling point a little.
OFFSET = 0.1


def interpolate_positions(pos: Tensor, size: tuple[int, int], *, rule: PosInterp) -> Tensor:
    """Resample patch position embeddings to another grid, bicubic but for one rule.

    Args:
        pos: embeddings of a square grid without the CLS position, float (1, g*g, D), row by row.
        size: wanted grid (h, w), in patches.
        rule: "dino" as DINO and DINOv2 without registers, by a scale of (h + 0.1) / g;
            "size" by the exact sizes, as transformers does for those two, and mmsegmentation;
            "size-antialias" as DINOv2 with registers, there and in transformers;
            "bilinear" by the exact sizes and bilinearly, as Segmenter.

    Returns:
        Embeddings of the wanted grid, (1, h*w, D), row by row; `pos` itself if that is its grid.

    Source:
        Caron et al. 2021 (DINO), Oquab et al. 2023 (DINOv2), Darcet et al. 2023 (registers),
        Strudel et al. 2021 (Segmenter), and their published code.
    """
    side = math.isqrt(pos.shape[1])
    if size == (side, side):
        return pos
    height, width = size
    grid = pos.transpose(1, 2).reshape(1, -1, side, side)  # (1, D, g, g)
    if rule == "dino":
        scale = ((height + OFFSET) / side, (width + OFFSET) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    elif rule == "bilinear":
        grid = F.interpolate(grid, size=size, mode="bilinear")
    else:
        antialias = rule == "size-antialias"
        grid = F.interpolate(grid, size=size, mode="bicubic", antialias=antialias)
    return grid.flatten(2).transpose(1, 2)  # (1, h*w, D)
