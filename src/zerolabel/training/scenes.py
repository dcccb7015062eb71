"""What a supervised step sees of a labelled photo: a random square of it, at a random size.

The square is chosen first, on the labels alone, of which only its own pixels are looked up; the
photo is resized once, when the square is settled. Shapes: `c` side of the square.

Source: Strudel et al., "Segmenter: Transformer for semantic segmentation", ICCV 2021, and its
code: resizing, a crop in which no class prevails, a flip, and padding. Photometric distortion and
normalisation are for whole batches and come later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerolabel.data.transforms import to_tensor
from zerolabel.errors import DataError, UsageError
from zerolabel.ops.resize import nearest, resize
from zerolabel.types import IGNORE, Image, LabelMap

GREY = (124, 116, 104)  # ImageNet's mean colour, which normalisation turns to about 0
REDRAWS = 10  # of a crop in which one class prevails


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How a square is drawn; the defaults are those that Segmenter has for all data sets.

    Attributes:
        short: the photo's shorter side is resized to this many pixels, before the random ratio.
        crop: side c of the square in pixels.
        ratio: least and largest factor on that size.
        longest: the longer side has at most this many times `short`, before the random ratio; of
            longer photos the shorter side becomes less than `short`.
        single: largest share, above 0 and up to 1, of one class in the labelled pixels of a crop.
        flip: probability of mirroring left and right.
        plain: squash the whole photo to the square and flip it, nothing else, as the comparison
            "Context is all you need" does.
    """

    short: int
    crop: int
    ratio: tuple[float, float] = (0.5, 2.0)
    longest: float = 4.0
    single: float = 0.75
    flip: float = 0.5
    plain: bool = False

    def __post_init__(self) -> None:
        if min(self.short, self.crop) < 1:
            raise UsageError(
                f"Expected sides of 1 pixel or more, found short {self.short}, crop {self.crop}."
            )
        if not 0 < self.ratio[0] <= self.ratio[1] or not self.longest >= 1:
            raise UsageError(
                "Expected ratios above 0, the lesser first, and a longer side of at least 1 times "
                f"the shorter; found ratio {self.ratio}, longest {self.longest}."
            )
        if not 0 < self.single <= 1 or not 0 <= self.flip <= 1:
            raise UsageError(
                f"Expected shares in 0..1, found single {self.single}, flip {self.flip}."
            )


def scene(
    image: Image, label: LabelMap, config: SceneConfig, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw what a training step sees of a labelled photo.

    The photo is resized bilinearly and antialiased, its labels to the nearest pixel. A crop in
    which one class has too large a share of the labelled pixels, or which has no labelled pixel, is
    drawn again, at most 10 times; the last one is taken as it is. What is smaller than the square
    lies at its top left.

    Args:
        image: uint8 (H, W, 3).
        label: uint8 (H, W), 255 = ignore.
        config: how it is drawn.
        generator: the source of all randomness, on the CPU.

    Returns:
        The image, uint8 (3, c, c), and its labels, uint8 (c, c); beyond the photo `GREY` and 255.

    Raises:
        DataError: the labels are not of the photo's size, or not uint8.
    """
    if label.shape != image.shape[:2] or label.dtype != np.uint8:
        raise DataError(
            f"Expected labels uint8 {image.shape[:2]}, as large as the photo; found {label.dtype} "
            f"{label.shape}. `zerolabel data check` lists photos whose masks have another size."
        )
    size = _size(label.shape, config, generator)
    (top, left), part = _crop(label, size, config, generator)
    height, width = part.shape
    photo = resize(to_tensor(image)[None], size, mode="bilinear")[0]
    photo, ids = photo[:, top : top + height, left : left + width], torch.from_numpy(part)
    if torch.rand((), generator=generator) < config.flip:
        photo, ids = photo.flip(-1), ids.flip(-1)
    seen = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, config.crop, config.crop)
    seen[:, :height, :width] = photo
    known = torch.full((config.crop, config.crop), IGNORE, dtype=torch.uint8)
    known[:height, :width] = ids
    return seen, known


def _size(
    shape: tuple[int, ...], config: SceneConfig, generator: torch.Generator
) -> tuple[int, int]:
    """Draw the size of the whole photo, of which the square is a part."""
    if config.plain:
        return config.crop, config.crop
    low, high = config.ratio
    ratio = low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
    scale = min(config.short / min(shape), config.longest * config.short / max(shape)) * ratio
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _crop(
    label: LabelMap, size: tuple[int, int], config: SceneConfig, generator: torch.Generator
) -> tuple[tuple[int, int], LabelMap]:
    """Draw the crop: its first row and column in the resized photo, and its labels."""
    spare = [max(0, length - config.crop) for length in size]
    for _ in range(1 + REDRAWS):
        top, left = (int(torch.randint(n + 1, (), generator=generator)) for n in spare)
        rows = nearest(label.shape[0], size[0])[top : top + config.crop]
        columns = nearest(label.shape[1], size[1])[left : left + config.crop]
        part: LabelMap = label[rows].take(columns, axis=1)
        if not any(spare) or _varied(part, config.single):
            break
    return (top, left), part


def _varied(label: LabelMap, single: float) -> bool:
    """Say whether there are labels, and none of them has more than its share."""
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return 0 < int(counts.max()) <= single * int(counts.sum())
