"""Where an image looks like a cluster: gradients pulled back by hand, and what is made of them.

How much a patch speaks for a cluster is how the likeness of the CLS token to the cluster's centre
rises with the attention paid to the patch (Grad-CAM). Only one token lies between that attention
and the CLS token, so the gradients of all centres follow from small products, without a graph.
Shapes: `B` images, `D` channels, `K` centres, `h w` patch grid.

Source: Yin et al., "TransFGU: a top-down approach to fine-grained unsupervised semantic
segmentation", ECCV 2022, equations 5 to 7.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.activations import Activation, activation_slope
from zerolabel.ops.maps import mass_threshold

LOSSES = ("cosine", "dot")
MASS = 0.8


def cls_gradients(cls: Tensor, centres: Tensor, *, loss: str = "cosine") -> Tensor:
    """Differentiate the loss of every centre with respect to the CLS token.

    The loss is 1 - cos(x, S), as the authors compute it, or 1 - x.S / sqrt(D), as they write it in
    equation 5. Both gradients are linear in S, the first in S of length 1.

    Args:
        cls: float (B, D), after the last norm.
        centres: same type (K, D), finite.
        loss: "cosine" or "dot".

    Returns:
        (B, K, D); 0 where the cosine does not exist, which is at a centre or a token of length 0.

    Raises:
        UsageError: another loss, shapes that do not fit together, or centres that are not finite.
    """
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    if cls.ndim != 2 or centres.ndim != 2 or cls.shape[1] != centres.shape[1]:
        raise UsageError(
            f"Expected CLS tokens (B, D) and centres (K, D), found {tuple(cls.shape)} and "
            f"{tuple(centres.shape)}."
        )
    if not bool(centres.isfinite().all()):
        raise UsageError(
            "Expected finite centres, found infinite ones or no numbers; leave out the clusters "
            "that nothing belongs to."
        )
    if loss == "dot":
        return (centres / -math.sqrt(cls.shape[1])).expand(len(cls), -1, -1)
    to_centre = centres * _inverse_length(centres)
    shrink = _inverse_length(cls)  # (B, 1)
    direction = cls * shrink
    cosines = direction @ to_centre.T  # (B, K)
    across = cosines[..., None] * direction[:, None] - to_centre  # (B, K, D)
    return across * shrink[:, None]


def _inverse_length(rows: Tensor) -> Tensor:
    """One over the length of every row (..., D) as (..., 1), 0 where the length is 0."""
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, 1 / length, 0)


def layer_norm_pull(upstream: Tensor, x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """Pull gradients back through the layer norm of one token per image.

    Args:
        upstream: gradients with respect to the norm's result, float (B, K, D).
        x: what was normalised, same type (B, D).
        weight: scale of the norm, same type (D,).
        eps: epsilon of the norm.

    Returns:
        Gradients with respect to x, (B, K, D).

    Source: Ba et al., "Layer normalization", 2016, equation 4, differentiated.
    """
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()  # (B, 1)
    unit = (centred * scale)[:, None]  # (B, 1, D)
    inside = upstream * weight
    along = (inside * unit).mean(-1, keepdim=True)
    return (inside - inside.mean(-1, keepdim=True) - unit * along) * scale[:, None]


def mlp_pull(
    upstream: Tensor,
    hidden: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    activation: Activation = "gelu",
) -> Tensor:
    """Pull gradients back through a linear layer, an activation and another linear layer.

    Args:
        upstream: gradients with respect to the result, float (B, K, D).
        hidden: what enters the activation, same type (B, E).
        first: weight of the first layer, same type (E, D).
        second: weight of the second layer, same type (D, E).
        activation: between the layers.

    Returns:
        Gradients with respect to what enters the first layer, (B, K, D).
    """
    return ((upstream @ second) * activation_slope(hidden, activation)[:, None]) @ first


def gains(gradients: Tensor, *, mass: float = MASS, scale: float = 1.0) -> Tensor:
    """Keep from every map of gradients the patches where attention lowers the loss most.

    Args:
        gradients: of a loss with respect to the attention, float (..., h, w).
        mass: share of the summed gains of a map that is kept, 0..1, in the fewest patches.
        scale: what gradients are multiplied by, above 0. The authors average the loss over a batch
            of 8 images, or of 2 of Cityscapes and LIP: 1/8 and 1/2 give their numbers.

    Returns:
        (..., h, w), 0 or more: minus the gradient where that is positive and kept, else 0.

    Raises:
        UsageError: a mass or scale out of range, or gradients that are no numbers.

    Source: the gate is in the authors' code, not in the paper; see `ops.maps.mass_threshold`.
    """
    if not 0 < scale < math.inf:
        raise UsageError(f"Gradients are scaled by a number above 0, found {scale}.")
    found = (-gradients).clamp_min(0)
    return torch.where(mass_threshold(found, mass), found * scale, 0)


def responses(
    attention: Tensor,
    gradients: Tensor,
    *,
    mass: float = MASS,
    veto: bool = True,
    relative: bool = True,
    scale: float = 1.0,
) -> Tensor:
    """Say how strongly every patch responds to every cluster.

    All clusters share the attention of a patch, and differ by gain and veto only.

    Args:
        attention: from CLS, mean over heads, float (B, h, w), 0 or more.
        gradients: of every cluster's loss with respect to it, same type (B, K, h, w).
        mass: as in `gains`.
        veto: whether a patch whose attention raises the loss of a cluster does not respond to it.
        relative: whether attention is divided by its maximum over the image, as in the authors'
            code, or taken as it is, as in equation 7.
        scale: as in `gains`.

    Returns:
        (B, K, h, w), 0 or more.

    Raises:
        UsageError: shapes that do not fit together, or as in `gains`.

    Source: Yin et al. 2022, equation 7.
    """
    if gradients.ndim != 4 or attention.shape != (len(gradients), *gradients.shape[2:]):
        raise UsageError(
            f"Expected attention (B, h, w) and gradients (B, K, h, w), found "
            f"{tuple(attention.shape)} and {tuple(gradients.shape)}."
        )
    if relative:
        peak = attention.amax((1, 2), keepdim=True)
        attention = torch.where(peak > 0, attention / peak, 0)
    found = attention[:, None] + gains(gradients, mass=mass, scale=scale)
    return torch.where(gradients > 0, 0, found) if veto else found
