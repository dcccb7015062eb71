"""What every method is: settings, fit on a data set, evidence for one batch.

Shapes: `K` categories, `h w` patch grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import AUTO, Backbone
from zerolabel.errors import UsageError
from zerolabel.store import Store
from zerolabel.types import Image, LabelMap, Sample

BATCH = (
    16  # images per forward; batches are cut from the sorted list, so a resumed job repeats them
)
ENOUGH = 50_000  # vectors that k-means sees; beyond it a fixed share of every image is drawn


@dataclass(frozen=True)
class Evidence:
    """What a method found in one image, before refinement.

    Attributes:
        scores: float32 (K, h, w), higher is more likely; the argmax is the category of a patch.
        typical: float32 (K,), similarity of the image's most typical part to each category's
            centroid; -1 where the category does not occur.
        covered: bool (h, w), False where a protocol leaves patches without a category; or None.
        parts: int64 (h, w), the region of every patch, 0..R-1 of this image; None where the method
            knows no regions.
        labels: int64 (H, W) of the photo, 0..K-1, where the method decides pixels by itself;
            refinement is then left out, and `covered` is about the patches only.
    """

    scores: Tensor
    typical: Tensor
    covered: Tensor | None = None
    parts: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Anatomy:
    """What a method sees in one image, before anything is categorised or refined.

    Attributes:
        tokens: float32 (h, w, D), what it compares patches by.
        parts: int64 (h, w), the region of every patch, 0..R-1, local to the image; or, where the
            method knows no regions, its category.
        valid: bool (R,), False for regions too small to be described; None where parts are
            categories.
        concepts: float32 (C, D), what patches are compared with; None where there are none.
        homes: int64 (C,), the region of most patches that are nearest to a concept, -1 where none
            are: the concept is not used.
        maps: name -> float32 (h, w) of any size, over the whole image: what else there is to draw,
            e.g. "response to category 3", the most telling ones first.
    """

    tokens: Tensor
    parts: Tensor
    valid: Tensor | None = None
    concepts: Tensor | None = None
    homes: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Portrait:
    """Pictures of one image that the report shows in a section of their own.

    Attributes:
        title: of the section, the same for every image.
        caption: one or two sentences below it, likewise.
        pictures: label -> uint8 (H, W, 3), or a region map, integers (H, W), that is drawn over the
            image; in their order.
        slider: whether they are shown one at a time.
    """

    title: str
    caption: str
    pictures: Mapping[str, Image | LabelMap]
    slider: bool = False


class Method(ABC):
    """A method with its settings and its backbone; `fit` it, then ask for evidence."""

    name: ClassVar[str]
    PRESETS: ClassVar[Mapping[str, Any]]
    auto_backbone: ClassVar[str] = AUTO  # what "auto" is for it

    def __init__(self, config: Any, backbone: Backbone) -> None:
        self.config = config
        self.backbone = backbone
        self.notes: list[str] = []  # where the backbone forced another way than the paper's
        self.curve: dict[int, float] = {}  # score of every k tried, if k was chosen
        self.losses: dict[int, float] = {}  # by step, if something was trained
        self.arrays: dict[str, Tensor] = {}  # what fit found; saved with the model
        self.class_names: tuple[str, ...] = ()  # if categories are the classes of labels; saved too

    @abstractmethod
    def fit(self, samples: Sequence[Sample], *, store: Store) -> None:
        """Find the categories of a data set, keeping finished stages in the store.

        Args:
            samples: sorted by id.
            store: where stages are kept.

        Raises:
            DataError: no image could be read.
            UsageError: the settings do not fit the data or the backbone.
        """

    @abstractmethod
    def evidence(
        self, samples: Sequence[Sample], *, store: Store
    ) -> tuple[list[tuple[Sample, Evidence]], dict[str, str]]:
        """Find the evidence for every category in a batch of images.

        Args:
            samples: one batch, not necessarily of the data set that was fitted.
            store: stages that `fit` has done on the same batch are not redone.

        Returns:
            Sample and evidence for all that could be read, and id -> reason for the others.
        """

    @abstractmethod
    def look_into(self, sample: Sample, *, store: Store) -> Anatomy:
        """Show what the method sees in one image, once fitted.

        Args:
            sample: not necessarily of the data set that was fitted.
            store: what `evidence` has found in it is not computed again, nor the other way round.

        Returns:
            Its patches and what they became.

        Raises:
            ImageError: the image cannot be read.
        """

    @property
    def k(self) -> int:
        """Number of categories K, once fitted."""
        return len(self.arrays["centroids"])

    def others(self) -> dict[str, str]:
        """Networks that it uses beside its backbone: name -> hash of their weights."""
        return {}

    def counted(self) -> dict[str, float]:
        """What it counted in the images it was fitted on, by name; for most methods nothing."""
        return {}

    def portray(self, sample: Sample) -> Sequence[Portrait]:
        """Draw what the report shall show of an image beside its mask; for most methods nothing.

        Raises:
            ImageError: the image cannot be read.
        """
        return ()

    def names(self) -> dict[int, str]:
        """What the method itself can say of a category: id -> name, for some or none."""
        return {}


def class_names(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Take the names of the classes from samples of which some have labels.

    Args:
        samples: in any order; those that know no names are passed over.

    Returns:
        The names, index = id; empty where no sample knows them.

    Raises:
        UsageError: samples differ in them, so that one id means two things.
    """
    known = {sample.classes for sample in samples if sample.classes}
    if len(known) > 1:
        lists = " and ".join(f"{', '.join(names[:3])}, ..." for names in sorted(known)[:2])
        raise UsageError(
            f"Expected images whose labels have the same classes, found {len(known)} lists of "
            f"them: {lists}. Fit on one data set and one label space."
        )
    return next(iter(known), ())


def surest(scores: Tensor) -> Tensor:
    """The highest score (K, h, w) of every category that wins somewhere, -1 of the others: (K,)."""
    won = torch.zeros(len(scores), dtype=torch.bool)
    won[torch.unique(scores.argmax(0))] = True
    return torch.where(won, scores.flatten(1).amax(1), -1.0)


def sample_rows(x: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw at most `count` rows without replacement, in their order."""
    if len(x) <= count:
        return x
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(x))[:count])
    return x[chosen.sort().values]
