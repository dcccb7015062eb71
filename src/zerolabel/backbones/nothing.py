"""No backbone at all, for methods that learn everything from the images at hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.types import Features


class NoBackbone:
    """What stands where a backbone would.

    Attributes:
        name: "none".
        gives: nothing.
        learns: no images.
        stride: a pixel.
        dim: no channels.
        digest: a word, as there are no weights.
        device: where the method computes.
    """

    name = digest = "none"
    gives: frozenset[str] = frozenset()
    learns, stride, dim = 0, 1, 0

    def __init__(self, *, device: torch.device) -> None:
        self.device = device

    def encode(self, images: Tensor, *, want: Collection[str]) -> Features:
        """Refuse, unless nothing is wanted."""
        if want:
            raise UsageError(f"There is no backbone to give {', '.join(sorted(want))}.")
        return Features()

    def within(self, context: Tensor, masks: Tensor) -> Tensor:
        """Refuse."""
        raise UsageError("There is no backbone to describe regions.")

    def learn(self, batches: Iterable[Tensor], *, seed: int) -> NoBackbone:
        """Do nothing."""
        return self

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> NoBackbone:
        """Do nothing."""
        return self
