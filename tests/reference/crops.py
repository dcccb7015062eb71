"""Segments cut out of an image with Pillow, as the published DatUS2 code prepares them."""

import numpy as np
from PIL import Image as Pillow


def cut_out(image, ids, region, *, patch, fill=(0, 0, 0)):
    """The tight box of a region's patches with everything else filled; a Pillow image.

    image is uint8 (H, W, 3), ids (h, w), patch in pixels; fill None leaves the others as they are.
    """
    rows, cols = np.nonzero(ids == region)
    image = image.copy()
    for row in range(ids.shape[0]):
        for col in range(ids.shape[1]):
            if ids[row, col] != region and fill is not None:
                here = slice(row * patch, (row + 1) * patch), slice(col * patch, (col + 1) * patch)
                image[here] = fill
    box = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
    return Pillow.fromarray(image).crop(tuple(int(patch * side) for side in box))


def centre_crop(crop, *, resize=256, size=224):
    """Short side to `resize`, long side in proportion (rounded down), then the middle square."""
    scale = resize / min(crop.size)
    wide, high = (int(scale * side) for side in crop.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    large = crop.resize((wide, high), Pillow.Resampling.BICUBIC)
    return np.asarray(large.crop((left, top, left + size, top + size)))


def pad(crop, *, size=224, fill=(0, 0, 0)):
    """The whole crop in the middle of a square of its longer side."""
    side = max(crop.size)
    square = Pillow.new("RGB", (side, side), fill)
    square.paste(crop, ((side - crop.size[0]) // 2, (side - crop.size[1]) // 2))
    return np.asarray(square.resize((size, size), Pillow.Resampling.BICUBIC))


def stretch(crop, *, size=224):
    """The whole crop, out of proportion."""
    return np.asarray(crop.resize((size, size), Pillow.Resampling.BICUBIC))
