"""Labels and masks of pixels on the patch grid of a backbone.

Shapes: `H W` pixels, `h w` patch grid, `C` classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerolabel.ops.regions import cells
from zerolabel.types import IGNORE, LabelMap


def patch_labels(label: LabelMap, grid: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """Give every patch the class that most of its scored pixels have.

    Args:
        label: integers (H, W); ids outside 0..C-1 are not scored.
        grid: (h, w).
        classes: C.

    Returns:
        int64 (h, w), the lowest id of equals; 255 for patches without a scored pixel.
    """
    h, w = grid
    scored = (label >= 0) & (label < classes)
    pairs = cells(label.shape, grid)[scored] * classes + label[scored]
    counts = np.bincount(pairs, minlength=h * w * classes).reshape(h, w, classes)
    found: NDArray[np.int64] = np.where(counts.any(2), counts.argmax(2), IGNORE)
    return found
