"""How a decoder learns from responses: what it is told, and what its answers cost.

Responses to clusters become targets, to which a teacher adds its own opinion. The student pays for
answers that differ from them, for answers that agree with wrong ones too little (peer loss), for
being undecided, and for classes that look alike. Shapes: `B` images, `K` channels, `D` width of a
class embedding, `h w` patch grid.

Source: Yin et al., "TransFGU: a top-down approach to fine-grained unsupervised semantic
segmentation", ECCV 2022, equations 8 and 10 to 15; what is not in the paper follows the authors'
published code, and says so.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError, unknown_name

THRESHOLD = 0.1  # T of equation 8: below this response a patch may be background
DIVERSITIES = ("code", "paper")


def normalise(responses: Tensor) -> Tensor:
    """Bring the responses of every image to 0..1, all channels by the same extremes.

    Args:
        responses: float (B, K, h, w).

    Returns:
        (B, K, h, w), 0 everywhere in an image without contrast.

    Raises:
        UsageError: another shape, or no channel or patch.

    Source: the authors' code; equation 8 compares the result with a fixed threshold.
    """
    _check(responses)
    low, high = (x[:, None, None, None] for x in responses.flatten(1).aminmax(dim=1))
    span = high - low
    return torch.where(span > 0, (responses - low) / torch.where(span > 0, span, 1), 0)


def with_background(normalised: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    """Put the background before the other channels: what responds to none of them.

    Args:
        normalised: float (B, K, h, w) in 0..1, from `normalise`.
        threshold: T, in 0..1. Background is the largest channel where all others stay below T / 2.

    Returns:
        (B, K + 1, h, w), channel 0 is background, in 0..T.

    Raises:
        UsageError: another shape, no channel or patch, or a threshold out of range.

    Source: Yin et al. 2022, equation 8.
    """
    _check(normalised)
    _check_share("The threshold of background", threshold)
    background = (threshold - normalised.amax(1, keepdim=True)).clamp_min(0)
    return torch.cat([background, normalised], dim=1)


def responding(normalised: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    """Find the patches that respond to some channel, where the background of equation 8 is 0.

    Args:
        normalised: float (B, K, h, w) in 0..1, without background.
        threshold: T, as in `with_background`.

    Returns:
        bool (B, h, w), what `uncertainty_loss` takes as `certain`.

    Raises:
        UsageError: another shape, no channel or patch, or a threshold out of range.
    """
    _check(normalised)
    _check_share("The threshold of background", threshold)
    return normalised.amax(1) > threshold


def separate(responses: Tensor, foreground: Tensor, *, stuff: int) -> Tensor:
    """Let categories of things respond in the foreground only, those of stuff outside of it only.

    Args:
        responses: float (B, K, h, w), 0 or more; the last channels are those of stuff.
        foreground: bool (B, h, w).
        stuff: how many channels are stuff, 0..K.

    Returns:
        (B, K, h, w), 0 where a channel has no business.

    Raises:
        UsageError: shapes that do not fit together, or more stuff than channels.
    """
    _check(responses)
    B, K, h, w = responses.shape
    if foreground.shape != (B, h, w) or foreground.dtype != torch.bool:
        found = f"{foreground.dtype} {tuple(foreground.shape)}"
        raise UsageError(f"Expected a bool foreground {(B, h, w)}, found {found}.")
    if not 0 <= stuff <= K:
        raise UsageError(f"Expected 0 to {K} channels of stuff, found {stuff}.")
    is_stuff = torch.arange(K, device=responses.device) >= K - stuff
    return torch.where(foreground[:, None] != is_stuff[:, None, None], responses, 0)


def mix(targets: Tensor, teacher_logits: Tensor, *, share: float = 0.5) -> Tensor:
    """Add what the teacher says to the targets.

    Args:
        targets: float (B, K, h, w) in 0..1.
        teacher_logits: float (B, K, h, w), of the same channels; no gradient flows into them.
        share: of the teacher, 0..1.

    Returns:
        (B, K, h, w) in 0..1.

    Raises:
        UsageError: shapes that differ, or a share out of range.

    Source: Yin et al. 2022, equations 10 and 12.
    """
    _check_alike(targets, teacher_logits)
    _check_share("The share of the teacher", share)
    return (1 - share) * targets + share * teacher_logits.detach().softmax(1)


def peer_weight(epochs_since: int) -> float:
    """Say how much agreement with wrong labels costs, some epochs after the teacher was renewed.

    Args:
        epochs_since: whole epochs, 0 or more; before there is a teacher the weight is 0, not this.

    Returns:
        .03, .04, ... .1, and .1 ever after.

    Raises:
        UsageError: a negative number.

    Source: the authors' code; the paper calls it alpha and gives no value.
    """
    if epochs_since < 0:
        raise UsageError(f"Expected 0 epochs since the teacher's renewal or more: {epochs_since}.")
    return min(3 + epochs_since, 10) / 100


def peer_loss(
    logits: Tensor, targets: Tensor, *, weight: float, generator: torch.Generator
) -> Tensor:
    """Ask for the strongest target of every patch, and for disagreement with a wrong one.

    Wrong targets are the same ones with their channels in another order, one for the batch.

    Args:
        logits: of the student, float (B, K, h, w).
        targets: float (B, K, h, w); the first of equally strong channels counts.
        weight: alpha, of the wrong targets, 0 or more; see `peer_weight`.
        generator: gives the order, from the CPU or where it is; one is drawn even at weight 0, so
            that what is drawn later does not depend on the weight.

    Returns:
        Scalar, mean over all patches; negative where wrong targets are answered badly enough.

    Raises:
        UsageError: shapes that differ, or a negative weight.

    Source: Yin et al. 2022, equation 13; Liu and Guo, "Peer loss functions", ICML 2020. That the
    channels of a whole batch are permuted at once is the authors' code.
    """
    _check_alike(logits, targets)
    if not 0 <= weight < math.inf:
        raise UsageError(f"Wrong targets weigh 0 or more, found {weight}.")
    order = torch.randperm(logits.shape[1], generator=generator, device=generator.device)
    right = F.cross_entropy(logits, targets.argmax(1))
    if weight == 0:
        return right
    wrong = targets.index_select(1, order.to(targets.device)).argmax(1)
    return right - weight * F.cross_entropy(logits, wrong)


def uncertainty_loss(
    logits: Tensor, *, background: bool = False, certain: Tensor | None = None
) -> Tensor:
    """Measure how close the second most probable channel comes to the first.

    Args:
        logits: of the student, float (B, K, h, w).
        background: whether channel 0 is background, which then takes no part.
        certain: bool (B, h, w), the patches that count, see `responding`; None for all of them.

    Returns:
        Scalar in 0..1, mean over the patches that count; 0 if none does, or if there is one channel
        only.

    Raises:
        UsageError: another shape, no channel beside the background, or patches that do not fit.

    Source: Yin et al. 2022, equation 14; the two exceptions for background are the authors' code.
    """
    asked = logits[:, 1:] if background else logits
    _check(asked)
    most = asked.softmax(1).topk(min(2, asked.shape[1]), dim=1).values  # (B, 1 or 2, h, w)
    loss = 1 - (most[:, 0] - most[:, 1]) if most.shape[1] == 2 else 1 - most[:, 0]
    if certain is None:
        return loss.mean()
    if certain.shape != loss.shape or certain.dtype != torch.bool:
        found = f"{certain.dtype} {tuple(certain.shape)}"
        raise UsageError(f"Expected bool patches {tuple(loss.shape)}, found {found}.")
    return torch.where(certain, loss, 0).sum() / certain.sum().clamp_min(1)


def diversity_loss(classes: Tensor, *, rule: str = "code") -> Tensor:
    """Measure how much the classes of an image look alike.

    "code": the mean of 1 + cos over all pairs of two classes, 0..2, and 0 for a single class.

    "paper": 1 + the sum of all scalar products, of a class with itself too, divided by
    K^2 sqrt(D): 1 where the embeddings of an image sum to 0. It hardly changes with the classes:
    for D = 384 it stays within 1 and 1.052.

    Args:
        classes: float (B, K, D), each embedding of length 1.
        rule: "code" or "paper".

    Returns:
        Scalar, mean over the images.

    Raises:
        UsageError: another rule or shape.

    Source: Yin et al. 2022, equation 15, and the authors' code, which differs from it.
    """
    if rule not in DIVERSITIES:
        raise unknown_name("rule of diversity", rule, DIVERSITIES)
    if classes.ndim != 3 or 0 in classes.shape:
        raise UsageError(f"Expected class embeddings (B, K, D), found {tuple(classes.shape)}.")
    _, K, D = classes.shape
    products = classes.sum(1).square().sum(1)  # (B,), all K x K of them: |sum of C|^2
    if rule == "paper":
        return (1 + products / (K**2 * math.sqrt(D))).mean()
    if K == 1:
        return products.mean() * 0
    ordered = products - classes.square().sum((1, 2))  # every pair twice, none with itself
    return (1 + ordered / (K * (K - 1))).mean()


def _check(maps: Tensor) -> None:
    """Complain of maps that hold nothing, or of another shape."""
    if maps.ndim != 4 or 0 in maps.shape:
        raise UsageError(
            f"Expected one channel and patch or more, (B, K, h, w); found {tuple(maps.shape)}."
        )


def _check_alike(targets: Tensor, logits: Tensor) -> None:
    """Complain of maps that are not of one shape."""
    _check(targets)
    if targets.shape != logits.shape:
        found = f"{tuple(targets.shape)} and {tuple(logits.shape)}"
        raise UsageError(
            f"Expected targets and logits of one shape, found {found}. With a background, both "
            "have a channel for it."
        )


def _check_share(name: str, value: float) -> None:
    """Complain of what is not in 0..1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is a number in 0..1, found {value}.")
