"""Contact sheets: the best region of a category, cut out of its image."""

from __future__ import annotations

import numpy as np

from zerolabel.ops.regions import largest_component
from zerolabel.outputs.overlay import thumbnail
from zerolabel.types import Image, LabelMap

WORK = 640  # pixels; the region is looked for in an image of at most this size
MARGIN = 0.12  # of the region's size, left around it
WIDEST = 2.0  # aspect beyond which more of the surroundings is shown


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
    step = max(1, -(-max(image.shape[:2]) // WORK))
    image, mask = image[::step, ::step], label_map[::step, ::step] == category
    if not mask.any():  # too small to survive the step
        return thumbnail(image, side=side)
    region = largest_component(mask)
    rows, cols = _frame(region)
    crop = image[rows, cols].astype(np.float32)
    faded = 0.35 * crop + 0.65 * 235
    cut = np.where(region[rows, cols, None], crop, faded)
    return thumbnail(cut.astype(np.uint8), side=side)


def _frame(region: np.ndarray) -> tuple[slice, slice]:
    """The region's box with a margin, widened to a sociable aspect within the image."""
    spans = []
    for axis in (1, 0):
        hit = np.flatnonzero(region.any(axis=axis))
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    lengths = [(end - start) * (1 + 2 * MARGIN) for start, end in spans]
    lengths = [max(length, max(lengths) / WIDEST, 24) for length in lengths]
    frame = []
    for (start, end), length, limit in zip(spans, lengths, region.shape, strict=True):
        length = min(round(length), limit)
        first = min(max(0, (start + end - length) // 2), limit - length)
        frame.append(slice(first, first + length))
    return frame[0], frame[1]
