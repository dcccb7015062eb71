"""The Jaccard protocol of DINO: how well attention maps outline annotated objects.

Every head's map is cut to the patches that hold 60 % of its mass; an object is compared with the
mask of the head that fits it best; mean over the objects of an image, then over images (Caron et
al., "Emerging properties in self-supervised vision transformers", ICCV 2021, figure 4, as its
maintainers describe their evaluation). The ground truth chooses the head, so this says what
attention holds, not what a method without labels gets out of it.
Shapes: `heads`, `h w` patch grid, `H W` pixels, `O` objects of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.maps import mass_threshold, to_pixels
from zerolabel.types import IGNORE, LabelMap

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class JaccardScore:
    """Means over objects, then over images, 0..1.

    Attributes:
        jaccard: of the best head of every object.
        per_head: of the same head for all objects, index = head.
        everything: of a mask that holds the whole image; what knows nothing scores this.
        best: objects for which each head was the best one.
        objects: objects that were scored.
        images: images with an object.
    """

    jaccard: float
    per_head: tuple[float, ...]
    everything: float
    best: tuple[int, ...]
    objects: int
    images: int


class Jaccard:
    """Adds up images one by one."""

    def __init__(self, *, mass: float = 0.6) -> None:
        self.mass = mass
        self._means: list[Shares] = []  # per image: best head, everything, each head
        self._best: list[NDArray[np.int64]] = []  # per image: best head of every object

    def add(
        self,
        attention: Tensor,
        label: LabelMap,
        *,
        background: int | None = 0,
    ) -> float | None:
        """Score one image.

        Args:
            attention: float (heads, h, w), from CLS to the patches.
            label: integers (H, W), one id per object, or per class; 255 is left out.
            background: id that is no object; None if all are.

        Returns:
            The image's mean over its objects, 0..1; None if it has none.

        Raises:
            UsageError: another number of heads than before, or no maps.
        """
        if attention.ndim != 3 or not len(attention):
            raise UsageError(f"Expected attention (heads, h, w), found {tuple(attention.shape)}.")
        if self._means and len(self._means[0]) != 2 + len(attention):
            raise UsageError(
                f"Expected {len(self._means[0]) - 2} heads as before, found {len(attention)}."
            )
        masks = mass_threshold(attention, self.mass).float().cpu()
        size = (label.shape[0], label.shape[1])
        fine = to_pixels(masks, size).numpy().astype(np.bool_)  # (heads, H, W)
        found = overlaps(np.concatenate([fine, np.ones((1, *size), np.bool_)]), label, background)
        if not found.shape[1]:
            return None
        heads, everything = found[:-1], found[-1]
        mean = float(heads.max(0).mean())
        self._means.append(np.array([mean, everything.mean(), *heads.mean(1)]))
        self._best.append(heads.argmax(0))
        return mean

    def score(self) -> JaccardScore:
        """Average over images.

        Raises:
            DataError: no image had an object.
        """
        if not self._means:
            raise DataError(
                "There is no object to score: expected labels with ids beside the background and "
                f"{IGNORE}, found none. Check that the labels and the split are the right ones."
            )
        jaccard, everything, *heads = np.mean(self._means, axis=0).tolist()
        best = np.bincount(np.concatenate(self._best), minlength=len(heads))
        return JaccardScore(
            jaccard=jaccard,
            per_head=tuple(heads),
            everything=everything,
            best=tuple(best.tolist()),
            objects=int(best.sum()),
            images=len(self._means),
        )


def overlaps(masks: NDArray[np.bool_], label: LabelMap, background: int | None) -> Shares:
    """Jaccard index of every mask with every object of a label map.

    Args:
        masks: bool (M, H, W).
        label: integers (H, W); pixels of 255 count nowhere.
        background: id that is no object, or None.

    Returns:
        float64 (M, O), |mask and object| / |mask or object|, objects by rising id.
    """
    valid = label != IGNORE
    ids, places, areas = np.unique(label[valid], return_inverse=True, return_counts=True)
    shared = np.array([np.bincount(places.ravel()[m[valid]], minlength=len(ids)) for m in masks])
    either = shared.sum(1, keepdims=True) + areas - shared
    found: Shares = (shared / either)[:, ids != background]
    return found
