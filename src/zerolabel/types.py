"""The words everyone shares, and the legend of shapes.

Shape letters, everywhere: `B` batch, `H W` pixels, `h w` patch grid, `N = h*w` patches,
`D` channels, `P` channels of a space shared with texts, `K` clusters, `C` ground-truth classes,
`R` regions. Grids are (row, column).
An `image` is uint8 RGB (H, W, 3); a `label map` holds category ids, and 255 means "ignore" in
ground truth only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255  # "ignore" in ground truth, and "no category" in the masks of a paper's protocol

Image = NDArray[np.uint8]  # (H, W, 3) RGB
LabelMap = NDArray[np.integer[Any]]  # (H, W)


@dataclass(frozen=True)
class Sample:
    """One image of a data set, read only when asked for.

    Attributes:
        id: relative POSIX path inside the data set; unique, and the sort key of every job.
        load: returns the image, uint8 (H, W, 3) RGB; raises `ImageError`.
        digest: returns a hash of the file's content.
        load_label: returns the ground truth, uint8 (H, W), 255 = ignore; None without labels.
        load_regions: returns one region map per annotator, int (H, W), ids local to each; None
            where nobody outlined regions.
        classes: names of the classes that `load_label` gives, index = id; empty where unknown.
        load_bands: returns the image with the values and bands of its file, float32 (H, W, C), C in
            1..16, of the height and width that `load` gives; raises `ImageError`. None for photos,
            which have no more to give than `load` does.
    """

    id: str
    load: Callable[[], Image]
    digest: Callable[[], str]
    load_label: Callable[[], LabelMap] | None = None
    load_regions: Callable[[], list[LabelMap]] | None = None
    classes: tuple[str, ...] = ()
    load_bands: Callable[[], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Features:
    """What a backbone computed for a batch; only what was asked for is there.

    Attributes:
        tokens: patch tokens after the last norm, float32 (B, h, w, D).
        keys: last-block keys of the patches, heads concatenated, float32 (B, h, w, D).
        queries, values: likewise.
        cls: CLS token after the last norm, float32 (B, D).
        attention: softmaxed last-block attention from CLS to the patches, float32 (B, heads, h, w).
        received: attention that each patch receives in the last block, float32 (B, h, w), 0 or
            more: the minimum over heads, summed over all queries, those of CLS and registers too.
        context: all tokens (CLS, registers, patches) as they enter the last block, float32
            (B, T, D); what `Backbone.within` takes.
        slopes: how much each channel of `cls` rises with the attention, mean over heads, that CLS
            pays to each patch in the last block, float32 (B, h, w, D).
        dense: what the patches' values in the last block are in the space of texts, not normalised,
            float32 (B, h, w, P); of CLIP.
        joint: the CLS token in the space of texts, not normalised, float32 (B, P); of CLIP.
    """

    tokens: Tensor | None = None
    keys: Tensor | None = None
    queries: Tensor | None = None
    values: Tensor | None = None
    cls: Tensor | None = None
    attention: Tensor | None = None
    received: Tensor | None = None
    context: Tensor | None = None
    slopes: Tensor | None = None
    dense: Tensor | None = None
    joint: Tensor | None = None


@dataclass(frozen=True)
class RegionMap:
    """The regions of one image on its patch grid.

    Attributes:
        ids: int32 (h, w), values 0..R-1, every region non-empty.
        valid: bool (R,), False for noise: regions too small to be described on their own.
        groups: int32 (R,), the group that a region is, or is a piece of.
    """

    ids: NDArray[np.int32]
    valid: NDArray[np.bool_]
    groups: NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of regions R."""
        return len(self.valid)


@dataclass(frozen=True)
class Naming:
    """How a category came by its name.

    Attributes:
        way: "vocabulary", "csv" or "truth".
        was: what it was called before anybody named it.
        score: how well the name fits, a cosine (vocabulary) or a share of its pixels (truth); None
            where a person chose it.
        margin: by how much it fits better than the next class; below 0 where classes were shared
            out and another got the better one; None where there is no other.
        alternatives: the next classes and their scores, best first.
    """

    way: str
    was: str
    score: float | None = None
    margin: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Category:
    """A category that holds across the data set.

    Attributes:
        id: value in the masks, 0..K-1.
        name: "category 3" until somebody names it.
        colour: RGB, each 0..255; the palette entry of the masks.
        pixel_share: share of all pixels, 0..1.
        image_count: images in which it occurs.
        exemplars: ids of the images that show it best, best first.
        naming: how it came by its name, if somebody named it.
    """

    id: int
    name: str
    colour: tuple[int, int, int]
    pixel_share: float = 0.0
    image_count: int = 0
    exemplars: tuple[str, ...] = ()
    naming: Naming | None = None


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Attributes:
        label_map: uint8 or uint16 (H, W), category ids; `IGNORE` only where a protocol asks for it.
        categories: all categories of the model, index = id.
    """

    label_map: LabelMap
    categories: tuple[Category, ...]


@dataclass(frozen=True)
class Exhibit:
    """One picture, plot or table for the report, which draws it by kind and knows no method.

    Attributes:
        kind: "table" (data: columns, rows, and optionally the numbers of columns that are set
            right), "facts" (data: name -> value), "svg" (data: svg) or "images" (data: rows of
            name and views, each with its label; legend of name and colour, and id where it is a
            category of the run, as which a dict may stand in a table too). A table or plot with
            data "wide" gets the whole width of the page, and such a plot keeps its own size and
            scrolls; images with data "narrow" share it ("broad": the first of a row above the
            others, "tall": three beside each other). "slider" is like "images", but shows one view
            of a row at a time, first that of number "start".
        title: heading.
        data: what the kind needs.
        caption: one or two sentences below it.
    """

    kind: str
    title: str
    data: Mapping[str, Any] = field(default_factory=dict)
    caption: str = ""
