"""Pictures of label maps: colours laid over the photo, thumbnails, JPEG bytes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from zerolabel.errors import UsageError
from zerolabel.types import Image, LabelMap

OUTLINE_EVERY = 800  # pixels of the longer side per pixel of outline


def overlay(
    image: Image,
    label_map: LabelMap,
    *,
    colours: NDArray[np.uint8],
    alpha: float = 0.5,
    outline: bool = True,
) -> Image:
    """Lay the colours of the categories over a photo, with thin white lines between them.

    Args:
        image: uint8 (H, W, 3).
        label_map: integer (H, W); a pixel whose value is no category, 0..K-1, keeps its colour.
        colours: RGB per category, uint8 (K, 3).
        alpha: 0 shows the photo, 1 the colours.
        outline: draw the borders between categories.

    Returns:
        A new image, uint8 (H, W, 3).

    Raises:
        UsageError: photo and label map differ in size, or `alpha` is not in 0..1.
    """
    if image.shape[:2] != label_map.shape or image.shape[2:] != (3,):
        raise UsageError(
            f"Expected a photo (H, W, 3) and a label map (H, W) of one size, found {image.shape} "
            f"and {label_map.shape}. Resize the label map by nearest neighbour first."
        )
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is between 0 (photo) and 1 (colours), not {alpha}.")
    covered = (label_map >= 0) & (label_map < len(colours))
    painted = colourise(label_map, colours)
    blended = np.array(Pillow.blend(Pillow.fromarray(image), Pillow.fromarray(painted), alpha))
    if outline:
        blended[_borders(label_map)] = 255
    if not covered.all():
        np.copyto(blended, image, where=~covered[..., None])
    return blended


def colourise(label_map: LabelMap, colours: NDArray[np.uint8]) -> Image:
    """Draw a label map in the colours of its categories, and black where there is none.

    Args:
        label_map: integer (H, W).
        colours: RGB per category, uint8 (K, 3).

    Returns:
        uint8 (H, W, 3).
    """
    table = np.zeros((len(colours) + 1, 3), dtype=np.uint8)
    table[:-1] = colours
    covered = (label_map >= 0) & (label_map < len(colours))
    return table.take(np.where(covered, label_map, len(colours)), axis=0)


def thumbnail(image: Image, *, side: int) -> Image:
    """Shrink an image, antialiased, until its longer side fits; a small one is returned as it is.

    Args:
        image: uint8 (H, W, 3).
        side: longest side allowed, pixels.

    Returns:
        uint8 (h, w, 3), same aspect ratio.
    """
    height, width = fitted(image.shape[0], image.shape[1], side=side)
    if (height, width) == image.shape[:2]:
        return image
    small = Pillow.fromarray(image).resize(
        (width, height), Pillow.Resampling.BICUBIC, reducing_gap=2.0
    )
    return np.array(small)


def fitted(height: int, width: int, *, side: int) -> tuple[int, int]:
    """Return the height and width, at least 1, after shrinking the longer side to `side`."""
    scale = min(1.0, side / max(height, width, 1))
    return max(1, round(height * scale)), max(1, round(width * scale))


def jpeg(image: Image, quality: int = 85) -> bytes:
    """Encode an image as JPEG.

    Args:
        image: uint8 (H, W, 3).
        quality: 1..95.

    Returns:
        The file's content.
    """
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _borders(label_map: LabelMap) -> NDArray[np.bool_]:
    """Mark the pixels beside another category, in a line that stays visible on large images."""
    height, width = label_map.shape
    borders = np.zeros((height, width), dtype=bool)
    for step in range(1, 1 + max(1, round(max(height, width) / OUTLINE_EVERY))):
        borders[:, :-step] |= label_map[:, step:] != label_map[:, :-step]
        borders[:-step] |= label_map[step:] != label_map[:-step]
    return borders
