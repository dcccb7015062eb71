"""Which regions of an image are background: those that the network does not look at.

Between discover and describe. Every region gets a score, and two clusters of scores part the
background from the foreground. Shapes: `h w` patch grid, `R` regions of one image.

Source: Li et al., "ACSeg: Adaptive Conceptualization for Unsupervised Semantic Segmentation",
CVPR 2023: attention is summed inside every region, and k-means makes two clusters of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.two_means import two_means
from zerolabel.stages.discover import Encoded
from zerolabel.types import RegionMap


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """Options of the step.

    Attributes:
        background: "none" (all regions are foreground), "attention" (those of the lower cluster of
            attention are background) or "border" (the one region that covers most of the image's
            border is).
        importance: attention of a patch: "cls" (what CLS gives to it, mean over heads) or
            "received" (what all tokens give to it, in the head where they give least).
        area: attention of a region: "sum" over its patches, as in ACSeg, which favours large
            regions whatever they show, or "mean".
        grouping: where attention is clustered: "image" (every image alone, so that each of two
            regions or more has a background unless all have one score) or "dataset" (all regions of
            all images, so that an image may be all background or have none).
    """

    background: str = "none"
    importance: str = "cls"
    area: str = "sum"
    grouping: str = "image"


CHOICES = {
    "background": ("none", "attention", "border"),
    "importance": ("cls", "received"),
    "area": ("sum", "mean"),
    "grouping": ("image", "dataset"),
}


def wants(options: Foreground) -> frozenset[str]:
    """Fields of `Features` that the step looks at beside the patch features.

    Raises:
        UsageError: a setting is unknown.
    """
    _check(options)
    if options.background != "attention":
        return frozenset()
    return frozenset({"attention" if options.importance == "cls" else "received"})


def region_scores(image: Encoded, regions: RegionMap, options: Foreground) -> Tensor:
    """Score how much every region looks like foreground.

    Args:
        image: what the backbone saw.
        regions: regions of its patch grid.
        options: what is looked at.

    Returns:
        float32 (R,), on the CPU. For "attention" its sum or mean inside the region, 0 or more; for
        "border" minus the share of the image's outermost patches that the region covers, -1..0;
        for "none" 0.

    Raises:
        UsageError: a setting is unknown, there is no attention, or it has another grid.
    """
    _check(options)
    ids, R = torch.from_numpy(regions.ids).long(), regions.count
    if options.background == "none":
        return torch.zeros(R)
    if options.background == "border":
        inner = ids[1:-1, 1:-1].flatten()
        outer = ids.flatten().bincount(minlength=R) - inner.bincount(minlength=R)
        return -(outer / outer.sum())
    attention = _importance(image, options)
    if attention.shape != ids.shape:
        raise UsageError(
            f"Expected attention on the grid of the regions, {tuple(ids.shape)}, found "
            f"{tuple(attention.shape)}."
        )
    weights = attention.detach().cpu().double().flatten()
    scores = ids.flatten().bincount(weights, minlength=R)
    if options.area == "mean":
        scores = scores / ids.flatten().bincount(minlength=R).clamp_min(1)
    return scores.float()


def threshold(scores: Sequence[Tensor], options: Foreground) -> float:
    """Find the score that parts background from foreground in all images.

    Args:
        scores: float32 (R,) per image, from `region_scores`.
        options: grouping "dataset".

    Returns:
        Scores up to it are background. Minus infinity, which leaves none, if all scores are equal,
        and where every image is judged alone.

    Raises:
        UsageError: a setting is unknown, or a score is not finite.
    """
    _check(options)
    if options.background != "attention" or options.grouping == "image" or not scores:
        return -math.inf
    return two_means(torch.cat(list(scores)))


def is_background(scores: Tensor, options: Foreground, *, threshold: float | None = None) -> Tensor:
    """Decide which regions of one image are background.

    For "attention" they are the lower of two clusters: of this image, where a region stays if it is
    alone or all have one score, or of the data set. For "border" it is the region with the lowest
    score, the first of equals, unless it is alone.

    Args:
        scores: float32 (R,), from `region_scores`.
        options: those that the scores were made with.
        threshold: from the function of this name; needed for grouping "dataset" alone.

    Returns:
        bool (R,).

    Raises:
        UsageError: a setting is unknown, a score is not finite, or the threshold is missing.
    """
    _check(options)
    found = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if options.background == "none":
        return found
    if options.background == "border":
        if len(scores) > 1:
            found[scores.argmin()] = True  # documented to be the first of equals
        return found
    if options.grouping == "image":
        return scores <= two_means(scores)
    if threshold is None:
        raise UsageError("Grouping 'dataset' needs the threshold that holds for all images.")
    return scores <= threshold


def _importance(image: Encoded, options: Foreground) -> Tensor:
    """Attention of every patch (h, w)."""
    found = image.attention if options.importance == "cls" else image.received
    if found is None:
        raise UsageError(
            "To tell background by attention, the attention of the backbone is needed, and the "
            "method did not ask for it. Choose background 'border' or 'none'."
        )
    return found.mean(0) if options.importance == "cls" else found


def _check(options: Foreground) -> None:
    """Every setting must be one of its choices."""
    for name, known in CHOICES.items():
        value = getattr(options, name)
        if value not in known:
            raise unknown_name(f"choice of {name}", value, known)
