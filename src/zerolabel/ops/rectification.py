"""How ReCLIP++ turns rectified scores into masks that learn, and judges them by their words.

Shapes: `B` images, `Q` words, `h w` patch grid, `P` channels of the space of images and texts.

Source: Wang and Kang, "ReCLIP++: Learn to rectify the bias of CLIP for unsupervised semantic
segmentation", 2024, equations 5 and 7; where the published code differs, see each function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name

POOLS = ("area", "mask")


def gumbel_mask(logits: Tensor, *, generator: torch.Generator, tau: float = 1.0) -> Tensor:
    """Draw one word per position, straight through: hard forwards, soft backwards.

    With Gumbel noise g the word with the largest M_o + g wins; the gradient is that of
    softmax((M_o + g) / tau) over words.

    Args:
        logits: float (B, Q, h, w); as published 100 M_o, and 1000 M_o in ReCLIP (v1).
        generator: source of the noise, on any device; a CPU's gives the same noise everywhere.
        tau: tau_1 of equation 5, above 0; its value is not in the paper, 1 in the code.

    Returns:
        (B, Q, h, w), exactly 0 and 1, one 1 per position.

    Raises:
        UsageError: another shape, or a tau that is not above 0.

    Source:
        Equation 5; Jang et al., "Categorical reparameterization with Gumbel-softmax", ICLR 2017.
    """
    if logits.ndim != 4 or not tau > 0:
        found = f"{tuple(logits.shape)} and {tau}"
        raise UsageError(f"Expected logits (B, Q, h, w) and a tau above 0; found {found}.")
    drawn = torch.empty(logits.shape, device=generator.device).exponential_(generator=generator)
    noise = -drawn.clamp_min_(torch.finfo(drawn.dtype).tiny).log_().to(logits)
    noisy = logits + noise
    soft = (noisy / tau).softmax(dim=1)
    hard = torch.zeros_like(soft).scatter_(1, noisy.argmax(dim=1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())  # the bracket is exactly 0, so the mask stays one-hot


def contrastive(
    mask: Tensor,
    dense: Tensor,
    queries: Tensor,
    present: Tensor,
    *,
    pool: str = "area",
    cosine: bool = False,
    scale: float = 100.0,
) -> Tensor:
    """Judge masks: what lies under that of a present word should be nearest to this word.

    Z_g[k] is what `dense` is under the mask of word k, S = scale Z_g W_q^T, and the loss of an
    image is the mean over its present words k of -log softmax(S_k)_k over all words.

    Args:
        mask: float (B, Q, h, w), 0..1, what `gumbel_mask` returned.
        dense: same type (B, h, w, P); unit vectors in the rectification.
        queries: same type (Q, P), unit rows.
        present: bool (B, Q), the words that an image is thought to hold; images with none are left
            out.
        pool: "area" divides the sum under a mask by all positions, as the published code, so small
            masks say little; "mask" by the mask's own (or by 1 if that is smaller, so that a mask
            without positions gets a gradient like one with a single position).
        cosine: let S be cosines, as equation 7 says; the code takes Z_g as it is, whose length
            is that of the pool. Then `pool` does not matter.
        scale: 1 / tau of equation 7.

    Returns:
        The mean over images, 0-dimensional; 0 if none holds anything.

    Raises:
        UsageError: another pool, or shapes that do not fit together.
    """
    _check(mask, dense, queries, present, pool=pool)
    pooled = torch.einsum("bqhw,bhwp->bqp", mask, dense)
    if cosine:
        length = pooled.norm(dim=2, keepdim=True)
        pooled = pooled / torch.where(length > 0, length, 1)  # nothing under a mask: no direction
    elif pool == "area":
        pooled = pooled / mask[0, 0].numel()
    else:
        pooled = pooled / mask.sum(dim=(2, 3)).clamp_min(1)[:, :, None]
    logits = scale * pooled @ queries.T  # (B, Q, Q), row k: S_k
    wrong = logits.logsumexp(dim=2) - logits.diagonal(dim1=1, dim2=2)  # (B, Q)
    count = present.sum(dim=1, keepdim=True)  # |H|
    images = (count > 0).sum().clamp_min(1)
    return (wrong * present / (count.clamp_min(1) * images)).sum()


def _check(mask: Tensor, dense: Tensor, queries: Tensor, present: Tensor, *, pool: str) -> None:
    if pool not in POOLS:
        raise unknown_name("pool", pool, POOLS)
    fits = mask.ndim == 4 and dense.ndim == 4 and queries.ndim == 2
    if fits:
        (B, Q, h, w), P = mask.shape, queries.shape[1]
        fits = (dense.shape, queries.shape, present.shape) == ((B, h, w, P), (Q, P), (B, Q))
    if not fits:
        found = ", ".join(str(tuple(x.shape)) for x in (mask, dense, queries, present))
        raise UsageError(
            "Expected masks (B, Q, h, w), dense (B, h, w, P), queries (Q, P) and present (B, Q); "
            f"found {found}."
        )
