"""The verb refine: from scores on the patch grid to a label map at the size of the photo.

Similarities are upsampled, never ids. Shapes: `K` categories, `h w` patch grid, `H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.data.transforms import to_tensor
from zerolabel.errors import unknown_name
from zerolabel.ops import crf as dense
from zerolabel.ops.resize import guided_argmax, resize, upsample, upsample_rows
from zerolabel.ops.specks import absorb
from zerolabel.types import IGNORE, Image, LabelMap

SHARPNESS = 2.0  # of the CRF's log-probabilities; chosen on training images, see docs/crf.md
MOST_PIXELS = 1 << 19  # that the CRF works on; with 21 categories they take about 0.9 GB
SPECK = 0.25  # of a patch: smaller pieces are grain of the photo, no score saw them; docs/refine.md
STRIP = 1 << 20  # pixels decided at once


def refine(scores: Tensor, image: Image, *, name: str, covered: Tensor | None = None) -> LabelMap:
    """Decide the category of every pixel.

    Args:
        scores: float32 (K, h, w); only categories that win somewhere on the grid take part.
        image: uint8 (H, W, 3), the photo.
        name: "guided" (follows the photo's edges), "crf" (pixels of one colour pull each other to
            one category), "bilinear", or "nearest" (whole patches, as DatUS2 paints its initial
            masks).
        covered: bool (h, w), False where no category was found; those patches become `IGNORE`.

    Returns:
        (H, W), uint8 up to 255 categories, else uint16.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in REFINE:
        raise unknown_name("refine stage", name, REFINE)
    present = torch.unique(scores.flatten(1).argmax(0))
    best = present[REFINE[name](scores[present].cpu(), to_tensor(image))]
    wide = len(scores) > IGNORE
    label_map: LabelMap = best.numpy().astype(np.uint16 if wide else np.uint8)
    if covered is not None:
        hidden = ~_nearest(covered[None].float(), image.shape[:2])[0].bool().numpy()
        label_map[hidden] = np.iinfo(label_map.dtype).max
    return label_map


def guided(scores: Tensor, image: Tensor) -> Tensor:
    """Follow the photo's edges within about a patch (fast guided filter), and leave no specks."""
    high, wide = image.shape[1] / scores.shape[1], image.shape[2] / scores.shape[2]
    radius = max(2, round(max(high, wide)))
    # Eight cells in the radius are enough; of a large photo finer ones would cost gigabytes.
    best = guided_argmax(scores, image, radius=radius, subsample=max(4, radius // 8))
    return torch.from_numpy(absorb(best.numpy(), least=SPECK * high * wide))


def crf(scores: Tensor, image: Tensor, *, sharpness: float = SHARPNESS) -> Tensor:
    """Interpolate the scores, let the pixels agree in a dense CRF, then decide.

    The log-probabilities are a log-softmax over `sharpness` times the scores. A photo of more than
    `MOST_PIXELS` is shrunk first, and the probabilities found are interpolated.
    """
    H, W = image.shape[1:]
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (H * W)))
    size = max(1, int(H * shrink)), max(1, int(W * shrink))
    start = (sharpness * upsample(scores, size)).log_softmax(0)
    found = dense.crf(start, resize(image[None], size, mode="bilinear")[0])
    out = torch.empty(H, W, dtype=torch.int64, device=image.device)
    rows = max(1, STRIP // W)
    for top in range(0, H, rows):
        bottom = min(top + rows, H)
        out[top:bottom] = upsample_rows(found, (H, W), top, bottom).argmax(0)
    return out


def bilinear(scores: Tensor, image: Tensor) -> Tensor:
    """Interpolate the scores, then decide."""
    return upsample(scores, (image.shape[1], image.shape[2])).argmax(0)


def nearest(scores: Tensor, image: Tensor) -> Tensor:
    """Decide per patch."""
    winners = scores.argmax(0, keepdim=True).float()
    return _nearest(winners, (image.shape[1], image.shape[2]))[0].long()


def _nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x[None], size=size, mode="nearest-exact")[0]


REFINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "guided": guided,
    "crf": crf,
    "bilinear": bilinear,
    "nearest": nearest,
}
