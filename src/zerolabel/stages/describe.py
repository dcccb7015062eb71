"""The verb describe: one vector per region.

Shapes: `B` images, `R` regions of one image, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, require
from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.regions import boxes
from zerolabel.ops.resize import resize
from zerolabel.stages.discover import Encoded
from zerolabel.types import RegionMap


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Options of the verb.

    Attributes:
        describe: "crop-cls" (CLS token of the cut-out region), "masked-cls" (the image's CLS token,
            which in the last block sees that region only; no crop is encoded), "pool" (mean patch
            feature) or "concept" (the concept that the region's patches are nearest to).
        fill: what replaces the pixels of a crop outside the region: "black" (DatUS2's code), "mean"
            (ImageNet's mean colour, which is zero after normalisation) or "none" (they stay).
        crop_fit: how a crop becomes square: "centercrop" (short side to `crop_resize`, then the
            middle; DatUS2's code), "pad" (whole crop on a square of the fill) or "stretch".
        crop_resize, crop_size: pixels before and after the centre crop.
        crop_batch: crops per forward.
    """

    describe: str = "crop-cls"
    fill: str = "black"
    crop_fit: str = "centercrop"
    crop_resize: int = 256
    crop_size: int = 224
    crop_batch: int = 16


Encode = Callable[[Tensor], Tensor]  # uint8 crops (n, 3, S, S) -> vectors (n, D)


def wants(options: Describe) -> frozenset[str]:
    """Fields of `Features` that a description looks at beside the patch features."""
    return frozenset({"context"} if options.describe == "masked-cls" else ())


def pool(features: Tensor, regions: RegionMap) -> Tensor:
    """Average the patch features of every region, noise included.

    Args:
        features: float32 (h, w, D).
        regions: regions of the same grid.

    Returns:
        float32 (R, D), not normalised.
    """
    ids = torch.from_numpy(regions.ids).to(features.device).long().flatten()
    sums = features.new_zeros(regions.count, features.shape[-1])
    sums.index_add_(0, ids, features.flatten(0, 1))
    return sums / torch.bincount(ids, minlength=regions.count)[:, None]


def describe(
    images: Tensor,
    regions: Sequence[RegionMap],
    seen: Sequence[Encoded],
    backbone: Backbone,
    options: Describe,
    *,
    encode: Encode | None = None,
) -> Tensor:
    """Describe the valid regions of a batch.

    Args:
        images: uint8 (B, 3, H, W), the images whose patches were grouped.
        regions: one region map per image.
        seen: what the backbone saw in each image, with the fields that `wants` names.
        backbone: the same.
        options: which function, and its settings.
        encode: what describes crops, for "crop-cls"; None for the CLS token of the backbone.

    Returns:
        float32 (sum of valid regions over the batch, D), L2-normalised, in image order.

    Raises:
        UsageError: an unknown name or setting, or a backbone or method that does not give what the
            function needs.
    """
    if options.describe not in DESCRIBE:
        raise unknown_name("describe stage", options.describe, DESCRIBE)
    if min(options.crop_batch, options.crop_size) < 1:
        found = f"{options.crop_batch} and {options.crop_size}"
        raise UsageError(f"crop_batch and crop_size must be at least 1, got {found}.")
    if options.describe == "crop-cls" and encode is not None:
        vectors = by_crop(images, regions, seen, backbone, options, encode)
    else:
        vectors = DESCRIBE[options.describe](images, regions, seen, backbone, options)
    return F.normalize(vectors, dim=1)


def by_pooling(
    images: Tensor,
    regions: Sequence[RegionMap],
    seen: Sequence[Encoded],
    backbone: Backbone,
    options: Describe,
) -> Tensor:
    """Mean patch feature of each valid region (masked pooling)."""
    return torch.cat(
        [
            pool(image.features, r)[torch.from_numpy(r.valid)].cpu()
            for image, r in zip(seen, regions, strict=True)
        ]
    )


def by_concept(
    images: Tensor,
    regions: Sequence[RegionMap],
    seen: Sequence[Encoded],
    backbone: Backbone,
    options: Describe,
) -> Tensor:
    """Concept that the patches of each valid region are nearest to (ACSeg)."""
    found = []
    for image, r in zip(seen, regions, strict=True):
        count = 0 if image.concepts is None else len(image.concepts)
        groups = torch.from_numpy(r.groups[r.valid]).long()
        if image.concepts is None or not ((groups >= 0) & (groups < count)).all():
            raise UsageError(
                "To describe by concept, regions must come from concepts: use the method acseg "
                "with --discover concepts, or choose another --describe."
            )
        found.append(image.concepts.cpu()[groups])
    return torch.cat(found)


def by_masked_cls(
    images: Tensor,
    regions: Sequence[RegionMap],
    seen: Sequence[Encoded],
    backbone: Backbone,
    options: Describe,
) -> Tensor:
    """CLS token that in the last block attends to itself and one valid region."""
    require(backbone, "context")
    found = []
    for image, r in zip(seen, regions, strict=True):
        if image.context is None:
            raise UsageError(
                "To describe by masked-cls, the tokens that enter the last block are needed, and "
                "the method did not ask its backbone for them. Choose another --describe."
            )
        masks = r.ids == np.flatnonzero(r.valid)[:, None, None]  # (R valid, h, w)
        found.append(backbone.within(image.context, torch.from_numpy(masks)).cpu())
    return torch.cat(found)


def by_crop(
    images: Tensor,
    regions: Sequence[RegionMap],
    seen: Sequence[Encoded],
    backbone: Backbone,
    options: Describe,
    encode: Encode | None = None,
) -> Tensor:
    """CLS token of each valid region, cut out of its image (DatUS2, section III.D).

    Or what another network says of it: a backbone without CLS token will do then.
    """
    if encode is None:
        require(backbone, "cls")
    h, w = (backbone.stride * cells for cells in regions[0].ids.shape)  # what the grid covers
    crops = [
        crop
        for image, r in zip(images[..., :h, :w], regions, strict=True)
        for crop in cut_out(image, r, options)
    ]
    shown = (
        torch.stack(crops[i : i + options.crop_batch])
        for i in range(0, len(crops), options.crop_batch)
    )
    if encode is not None:
        return torch.cat([encode(some).cpu() for some in shown])
    parts = [backbone.encode(some, want={"cls"}).cls for some in shown]
    return torch.cat([part.cpu() for part in parts if part is not None])


def cut_out(image: Tensor, regions: RegionMap, options: Describe) -> list[Tensor]:
    """Cut every valid region out of one image, patch-aligned.

    Args:
        image: uint8 (3, H, W), a whole number of patches high and wide.
        regions: regions on its patch grid.
        options: fill and fit.

    Returns:
        One uint8 (3, crop_size, crop_size) per valid region.
    """
    h, w = regions.ids.shape
    ph, pw = image.shape[1] // h, image.shape[2] // w  # pixels per patch
    ids = torch.from_numpy(regions.ids).to(image.device)
    crops = []
    for region, (top, left, bottom, right) in enumerate(boxes(regions.ids)):
        if not regions.valid[region]:
            continue
        crop = image[:, top * ph : bottom * ph, left * pw : right * pw]
        inside = ids[top:bottom, left:right] == region
        mask = inside.repeat_interleave(ph, 0).repeat_interleave(pw, 1)
        crops.append(_square(_fill(crop, mask, options.fill), options))
    return crops


def _fill(crop: Tensor, mask: Tensor, fill: str) -> Tensor:
    """Replace what is outside the region."""
    if fill == "none":
        return crop
    return torch.where(mask, crop, _fill_colour(crop, fill))


def _fill_colour(crop: Tensor, fill: str) -> Tensor:
    """The fill as a colour (3, 1, 1); "mean" is ImageNet's, zero after normalisation."""
    colours = {"black": (0, 0, 0), "none": (0, 0, 0), "mean": (124, 116, 104)}
    if fill not in colours:
        raise UsageError(f"fill must be 'black', 'mean' or 'none', got {fill!r}.")
    return torch.tensor(colours[fill], dtype=crop.dtype, device=crop.device)[:, None, None]


def _square(crop: Tensor, options: Describe) -> Tensor:
    """Bring a crop to (3, crop_size, crop_size)."""
    size, (H, W) = options.crop_size, crop.shape[1:]
    if options.crop_fit == "stretch":
        return resize(crop[None], (size, size))[0]
    if options.crop_fit == "pad":
        side = max(H, W)
        square = _fill_colour(crop, options.fill).repeat(1, side, side)
        top, left = (side - H) // 2, (side - W) // 2
        square[:, top : top + H, left : left + W] = crop
        return resize(square[None], (size, size))[0]
    if options.crop_fit != "centercrop":
        raise UsageError(
            f"crop_fit must be 'centercrop', 'pad' or 'stretch', got {options.crop_fit!r}."
        )
    if options.crop_resize < size:
        raise UsageError(
            f"crop_resize must be at least crop_size ({size}), got {options.crop_resize}."
        )
    # Bicubic weights reach a little beyond the square that is kept, not to the ends of a long crop.
    crop = _middle(crop, 2 * min(H, W))
    scale = options.crop_resize / min(H, W)
    resized = resize(crop[None], (int(scale * crop.shape[1]), int(scale * crop.shape[2])))[0]
    return _middle(resized, size)


def _middle(crop: Tensor, side: int) -> Tensor:
    """The centred square of `side` pixels, or what there is of it."""
    _, H, W = crop.shape
    rows, cols = min(H, side), min(W, side)
    top, left = round((H - rows) / 2), round((W - cols) / 2)
    return crop[:, top : top + rows, left : left + cols]


DESCRIBE: dict[
    str,
    Callable[[Tensor, Sequence[RegionMap], Sequence[Encoded], Backbone, Describe], Tensor],
] = {
    "crop-cls": by_crop,
    "masked-cls": by_masked_cls,
    "pool": by_pooling,
    "concept": by_concept,
}
