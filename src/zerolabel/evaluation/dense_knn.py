"""Segmentation by neighbours: every patch asks the nearest labelled patches of other images.

Shapes: `B` images, `h w` patch grid, `D` channels, `N` patches in the bank, `C` classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import DataError, UsageError
from zerolabel.ops.neighbours import nearest, vote
from zerolabel.ops.regions import patch_labels
from zerolabel.types import IGNORE, LabelMap


@dataclass(frozen=True, kw_only=True)
class DenseKnn:
    """Settings of the probe.

    Attributes:
        patches: drawn from every labelled image; fewer where an image has fewer with a class.
        k: neighbours that vote.
        temperature: T, a vote weighs exp(cosine / T).
    """

    patches: int = 64
    k: int = 20
    temperature: float = 0.07


class PatchBank:
    """Patches with known class, drawn image by image.

    Attributes:
        classes: C.
    """

    def __init__(self, config: DenseKnn, classes: int, *, seed: int = 0) -> None:
        """Start empty.

        Args:
            config: settings of the probe.
            classes: C.
            seed: fixes the draw, which also depends on the order of the images.

        Raises:
            UsageError: a setting that no probe can have.
        """
        if min(config.patches, config.k) < 1 or not config.temperature > 0:
            raise UsageError(
                "patches and k must be at least 1 and the temperature above 0; found "
                f"{config.patches}, {config.k} and {config.temperature:g}."
            )
        self.classes = classes
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self._vectors: list[Tensor] = []
        self._labels: list[Tensor] = []

    def __len__(self) -> int:
        """Number of patches N."""
        return sum(map(len, self._labels))

    def add(self, tokens: Tensor, label: LabelMap) -> None:
        """Draw patches of one image without replacement, all that have a class alike.

        Args:
            tokens: float (h, w, D).
            label: integers (H, W); a patch has the class of most of its scored pixels.
        """
        h, w, D = tokens.shape
        labels = torch.from_numpy(patch_labels(label, (h, w), self.classes)).flatten()
        known = (labels != IGNORE).nonzero()[:, 0]
        order = torch.randperm(len(known), generator=self._generator)[: self._config.patches]
        rows = known[order]
        self._vectors.append(tokens.reshape(h * w, D)[rows.to(tokens.device)].half())
        self._labels.append(labels[rows])

    def votes(self, tokens: Tensor) -> Tensor:
        """Ask the neighbours of every patch.

        Args:
            tokens: float (B, h, w, D).

        Returns:
            float32 (B, C, h, w), the share of the vote that each class gets; sums to 1 over C.

        Raises:
            DataError: the bank is empty.
        """
        if not len(self):
            raise DataError(
                f"No patch of the training images has a class: expected ids 0..{self.classes - 1}, "
                "found only ignored pixels. Check that labels and classes belong together."
            )
        B, h, w, D = tokens.shape
        bank, labels = self._joined()
        similarities, rows = nearest(tokens.reshape(-1, D), bank, self._config.k)
        known = labels.to(rows.device)[rows]
        found = vote(similarities, known, self.classes, self._config.temperature)  # (B*h*w, C)
        shares = found / found.sum(1, keepdim=True)
        return shares.reshape(B, h, w, self.classes).permute(0, 3, 1, 2)

    def _joined(self) -> tuple[Tensor, Tensor]:
        """The bank as one tensor (N, D) and its classes (N,); joined once."""
        if len(self._vectors) > 1:
            self._vectors, self._labels = [torch.cat(self._vectors)], [torch.cat(self._labels)]
        return self._vectors[0], self._labels[0]
