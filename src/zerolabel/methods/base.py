"""What every method is: settings, fit on a data set, evidence for one batch.

Shapes: `K` categories, `h w` patch grid.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import AUTO, Backbone
from zerolabel.errors import UsageError, unknown_name
from zerolabel.store import Store
from zerolabel.types import Image, LabelMap, Sample

BATCH = (
    16  # images per forward; batches are cut from the sorted list, so a resumed job repeats them
)
ENOUGH = 50_000  # vectors that k-means sees; beyond it a fixed share of every image is drawn

C = TypeVar("C")


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


def configure(presets: Mapping[str, C], preset: str, changes: Mapping[str, Any]) -> C:
    """Build a method's settings from a preset and what the user changed.

    Args:
        presets: the method's presets by name.
        preset: which one to start from.
        changes: field -> value; strings are parsed to the field's type, None is left out.

    Returns:
        The settings.

    Raises:
        UsageError: an unknown preset or field, or a value of another type.
    """
    if preset not in presets:
        raise unknown_name("preset", preset, presets)
    start = presets[preset]
    known = {field.name: field.type for field in dataclasses.fields(start)}  # type: ignore[arg-type]
    values = {}
    for name, value in changes.items():
        if value is None:
            continue
        if name not in known:
            raise unknown_name("setting", name, known)
        values[name] = _parse(name, value, str(known[name]))
    return dataclasses.replace(start, **values)  # type: ignore[type-var]


def pick(kind: Any, config: Any, **more: Any) -> Any:
    """Make the settings of a part: some by name, the others as they are in those of the method.

    Args:
        kind: a dataclass; fields that neither has keep their defaults.
        config: settings of the method.
        more: what differs.

    Returns:
        An instance of `kind`.
    """
    names = {field.name for field in dataclasses.fields(kind)} - more.keys()
    return kind(**{name: getattr(config, name) for name in names if hasattr(config, name)}, **more)


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


def _parse(name: str, value: Any, kind: str) -> Any:
    """Turn a value as typed by a user into the type of its field."""
    word = kind == "int | str" and not str(value).isdigit()
    try:
        return PARSERS["str" if word else kind](value)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{name} must be of type {kind}, got {value!r}.") from None


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _whole(value: Any) -> int:
    """A whole number; True is none, and 2.5 is not rounded."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _pair(value: Any) -> tuple[int, int]:
    """One number for a square, or "rowsxcols"."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, int) else list(parts)
    rows, cols = parts * 2 if len(parts) == 1 else parts
    if min(_whole(rows), _whole(cols)) < 1:
        raise ValueError
    return _whole(rows), _whole(cols)


def _ends(value: Any) -> tuple[float, float]:
    """One number for both, or "start,end"."""
    parts = _several(value)
    first, last = parts * 2 if len(parts) == 1 else parts
    return _real(first), _real(last)


def _several(value: Any) -> list[Any]:
    """Numbers with commas between them, or one number."""
    parts = value.split(",") if isinstance(value, str) else value
    return [parts] if isinstance(parts, int | float) else list(parts)


PARSERS: dict[str, Callable[[Any], Any]] = {
    "bool": _truth,
    "int": _whole,
    "int | str": _whole,
    "float": _real,
    "str": _text,
    "tuple[int, int]": _pair,
    "tuple[float, float]": _ends,
    "tuple[int, ...]": lambda value: tuple(_whole(part) for part in _several(value)),
    "tuple[float, ...]": lambda value: tuple(_real(part) for part in _several(value)),
}
