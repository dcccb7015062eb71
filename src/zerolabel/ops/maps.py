"""Maps on a patch grid: mass threshold, choice of heads, ranges of values, and the way to pixels.

Shapes: `heads`, `C` maps at once, `h w` patch grid, `H W` pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.resize import linear_models, resize, upsample_rows

Limits = tuple[float, float]  # the values that get the first and the last colour
UPSAMPLE = ("nearest", "bilinear", "guided")
EPSILON = 1e-2  # of the guided filter, colours in 0..1


def mass_threshold(attention: Tensor, mass: float) -> Tensor:
    """Keep the fewest patches that hold a share of a map's mass.

    In ascending order of attention, scaled to the sum 1, a patch is kept if the cumulative sum up
    to and including it exceeds 1 - mass. Equal patches are taken in reading order.

    Args:
        attention: float (..., h, w), 0 or more; every map on its own.
        mass: share of the mass that is kept, 0..1; 1 keeps every positive patch, 0 none.

    Returns:
        bool (..., h, w). Masks of rising `mass` contain each other.

    Raises:
        UsageError: `mass` is outside 0..1, or a value is negative or not a number.

    Source: Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021,
    section 4.2.2, where the mass is 0.6.
    """
    if not 0 <= mass <= 1:
        raise UsageError(f"The mass to keep is a share, 0..1, found {mass}.")
    flat = attention.detach().cpu().double().flatten(-2)  # (..., h*w); MPS has no float64
    if not bool((flat >= 0).all()):
        raise UsageError("A map to threshold holds values of 0 or more, found others.")
    values, order = flat.sort(dim=-1, stable=True)
    sums = values.cumsum(-1)
    kept = sums > (1 - mass) * sums[..., -1:]
    if mass == 0:  # the sum is above itself nowhere, but this must not hang on rounding
        kept = torch.zeros_like(kept)
    mask = torch.zeros_like(kept).scatter(-1, order, kept)
    return mask.reshape(attention.shape).to(attention.device)


def combine(maps: Tensor, heads: int | str) -> Tensor:
    """Turn the maps of all heads into one.

    Args:
        maps: float or, for "union", also bool (..., heads, h, w).
        heads: the index of one, "mean", "max", or "union", which is the maximum too: of masks it
            is every patch that some head keeps.

    Returns:
        (..., h, w) of the same type.

    Raises:
        UsageError: no such head, or another word.
    """
    count = maps.shape[-3]
    if heads == "mean":
        return maps.mean(-3)
    if heads in ("max", "union"):
        return maps.amax(-3)
    if not isinstance(heads, int):
        raise unknown_name("way to combine heads", heads, ("mean", "max", "union"))
    if not 0 <= heads < count:
        raise UsageError(f"This network has the heads 0 to {count - 1}; there is no head {heads}.")
    return maps[..., heads, :, :]


def best_head(masks: Tensor, truth: Tensor, *, valid: Tensor | None = None) -> tuple[int, float]:
    """Find the head whose mask agrees best with an object, by the Jaccard index.

    Args:
        masks: bool (heads, H, W).
        truth: bool (H, W), the object.
        valid: bool (H, W), False where the ground truth says nothing; everywhere by default.

    Returns:
        The head, the first of equals, and its Jaccard index, 0..1.

    Raises:
        UsageError: the sizes differ, or there is no object.
    """
    if masks.shape[1:] != truth.shape:
        found = f"{tuple(masks.shape[1:])} and {tuple(truth.shape)}"
        raise UsageError(f"Expected masks and ground truth of one size, found {found}.")
    if valid is not None:
        masks, truth = masks & valid, truth & valid
    if not bool(truth.any()):
        raise UsageError("The ground truth holds no object, so no head is the best one.")
    scores = (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))
    best = int(scores.argmax())
    return best, float(scores[best])


def normalise(maps: Tensor, limits: Limits | None = None) -> Tensor:
    """Bring maps to 0..1, each by its own extremes or all by fixed limits.

    Args:
        maps: float (..., h, w).
        limits: values that become 0 and 1, what lies beyond is cut off; None for the extremes.

    Returns:
        float (..., h, w) in 0..1; a map without contrast becomes 0.
    """
    if limits is None:
        low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    else:
        low, high = (torch.tensor(value, dtype=maps.dtype, device=maps.device) for value in limits)
    span = high - low
    return torch.where(span > 0, (maps - low) / span.clamp_min(math.ulp(0.0)), 0.0).clamp(0, 1)


def to_pixels(
    maps: Tensor, size: tuple[int, int], *, cover: Limits = (1.0, 1.0), mode: str = "nearest"
) -> Tensor:
    """Bring maps from the patch grid to pixels.

    Args:
        maps: float (C, h, w).
        size: (H, W).
        cover: shares of the image's height and width that the grid covers, from the top left, each
            in (0, 1]; what lies beyond, less than a patch, continues the last row and column.
        mode: "nearest", whole patches, or "bilinear".

    Returns:
        float (C, H, W).

    Raises:
        UsageError: another mode.
    """
    if mode not in ("nearest", "bilinear"):
        raise unknown_name("way to pixels", mode, ("nearest", "bilinear"))
    for axis in (1, 2):
        n, length = maps.shape[axis], size[axis - 1]
        # centres of the pixels, in patches from the edge
        at = (torch.arange(length, dtype=torch.float64) + 0.5) * (n / (length * cover[axis - 1]))
        if mode == "nearest":
            maps = maps.index_select(axis, at.long().clamp_max(n - 1).to(maps.device))
            continue
        at = (at - 0.5).clamp(0, n - 1)
        low = at.long()
        part = (at - low).to(maps).reshape(-1, *[1] * (2 - axis))  # (H, 1) or (W,)
        ends = (low, (low + 1).clamp_max(n - 1))
        first, last = (maps.index_select(axis, end.to(maps.device)) for end in ends)
        maps = torch.lerp(first, last, part)
    return maps


def guided(maps: Tensor, image: Tensor, *, cover: Limits = (1.0, 1.0)) -> Tensor:
    """Bring maps to pixels along the edges of the photo (fast guided filter).

    Args:
        maps: float32 (C, h, w).
        image: uint8 (3, H, W), the photo.
        cover: as in `to_pixels`.

    Returns:
        float32 (C, H, W), within the extremes of each map.

    Source: He and Sun, "Fast guided filter", 2015; as `ops.resize.guided_argmax`.
    """
    _, H, W = image.shape
    C, h, w = maps.shape
    radius = max(2, round(max(H * cover[0] / h, W * cover[1] / w)))  # a patch
    step = max(4, radius // 8)
    coarse = (max(1, round(H / step)), max(1, round(W / step)))
    guide = resize(image[None], coarse, mode="bilinear")[0].float() / 255
    start = to_pixels(maps, coarse, cover=cover, mode="bilinear")
    a, b = linear_models(guide, start, max(1, round(radius / step)), EPSILON)
    fine = upsample_rows(torch.cat([a.flatten(0, 1), b]), (H, W), 0, H)  # (4C, H, W)
    out = (fine[: 3 * C].reshape(C, 3, H, W) * (image.float() / 255)).sum(1) + fine[3 * C :]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return out.maximum(low).minimum(high)
