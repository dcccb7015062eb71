"""What methods share in which one network scores every pixel, or cells of a few.

Shapes: `K` categories, `h w` grid of the network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import ImageError
from zerolabel.methods.base import Anatomy, Evidence, Method, surest
from zerolabel.store import Store
from zerolabel.types import Sample

GRID = 28  # cells a side of what `explain` compares, at most
SHOWN = 4  # categories that it draws


class PixelMethod(Method):
    """A method that sees images one by one through one network."""

    auto_backbone = "none"

    @abstractmethod
    def _look(self, sample: Sample) -> Tensor:
        """Probabilities of the categories in an image, float32 (K, h, w).

        Raises:
            ImageError: it cannot be read.
        """

    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """See `Method.evidence`; scores are probabilities at the size that the network gives."""

        def see(sample: Sample) -> Evidence:
            scores = self._look(sample)
            return Evidence(scores, surest(scores))

        return one_by_one(samples, see)

    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """See `Method.look_into`; what is compared are probabilities, averaged over a grid."""
        return anatomy(self._look(sample), self.names())


def one_by_one(
    samples: Sequence[Sample], see: Callable[[Sample], Evidence]
) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
    """See images one after another, as `Method.evidence` returns them.

    Args:
        samples: images.
        see: what finds evidence in one; an `ImageError` leaves it out.

    Returns:
        Evidence, and id -> reason for images that cannot be read.
    """
    found, failures = [], {}
    for sample in samples:
        try:
            found.append((sample, see(sample)))
        except ImageError as error:
            failures[sample.id] = str(error)
    return found, failures


def anatomy(scores: Tensor, names: Mapping[int, str], *, other: str = "class") -> Anatomy:
    """Show what a network sees in an image by its probabilities.

    Args:
        scores: probabilities, float32 (K, h, w).
        names: of categories.
        other: what those without a name are called, before their number.

    Returns:
        Cells of a grid, and maps of the categories that win most places.
    """
    small = coarse(scores)
    won = scores.argmax(0).flatten().bincount(minlength=len(scores))
    chosen = won.argsort(descending=True, stable=True)[:SHOWN].tolist()
    maps = {names.get(k, f"{other} {k}"): scores[k] for k in chosen}
    return Anatomy(small.permute(1, 2, 0), small.argmax(0), maps=maps)


def coarse(scores: Tensor) -> Tensor:
    """Average (K, h, w) over a grid of at most `GRID` cells a side."""
    h, w = (min(GRID, side) for side in scores.shape[1:])
    return F.adaptive_avg_pool2d(scores, (h, w))
