"""Contact sheets: the best region of a category, cut out of its image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerolabel.ops.regions import largest_component
from zerolabel.outputs.overlay import thumbnail
from zerolabel.types import Image, LabelMap

WORK = 640  # pixels; the region is looked for in a label map of at most this size
MARGIN = 0.12  # of the region's size, left around it
WIDEST = 2.0  # aspect beyond which more of the surroundings is shown
SMALLEST = 24  # pixels of the label map; a speck is shown with what is around it
PALE, KEPT = 235, 0.35  # surroundings fade to this grey, of which so much is the photo


def region_tile(image: Image, label_map: LabelMap, category: int, *, side: int = 240) -> Image:
    """Cut out the largest connected region of a category, its surroundings faded.

    Args:
        image: uint8 (H, W, 3).
        label_map: integer (H, W).
        category: id that occurs in the label map.
        side: longest side of the result in pixels.

    Returns:
        uint8 (h, w, 3).
    """
    step = max(1, -(-max(label_map.shape) // WORK))
    mask = label_map[::step, ::step] == category
    if not mask.any():  # too small to survive the step
        return thumbnail(image, side=side)
    region = largest_component(mask)
    rows, cols = _frame(region)
    # Cut from the photo itself: a small region of a large photo stays sharp.
    crop = image[rows.start * step : rows.stop * step, cols.start * step : cols.stop * step]
    crop = thumbnail(crop, side=2 * side)
    inside = _stretched(region[rows, cols], crop.shape[0], crop.shape[1])
    faded = KEPT * crop + (1 - KEPT) * PALE
    cut = np.where(inside[..., None], crop, faded.astype(np.uint8))
    return thumbnail(cut, side=side)


def _frame(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The region's box with a margin, widened to a sociable aspect within the image."""
    spans = []
    for axis in (1, 0):
        hit = np.flatnonzero(region.any(axis=axis))
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    lengths = [(end - start) * (1 + 2 * MARGIN) for start, end in spans]
    lengths = [max(length, max(lengths) / WIDEST, SMALLEST) for length in lengths]
    frame = []
    for (start, end), length, limit in zip(spans, lengths, region.shape, strict=True):
        length = min(round(length), limit)
        first = min(max(0, (start + end - length) // 2), limit - length)
        frame.append(slice(first, first + length))
    return frame[0], frame[1]


def _stretched(region: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Bring a region to another size by nearest neighbour."""
    rows = np.arange(height) * region.shape[0] // height
    cols = np.arange(width) * region.shape[1] // width
    big: NDArray[np.bool_] = region[rows[:, None], cols]
    return big
