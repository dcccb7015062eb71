"""Is the run alive? What a loss does not tell: whether all answers have become the same.

Shapes: `B` images, `N` patches, `D` channels, `K` prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import ZerolabelError

SAME_IMAGES, SAME_PATCHES = 0.95, 0.9  # mean cosines beyond which nothing is told apart
UNIFORM = 1e-3  # distance of DINO's loss from ln K below which every answer is uniform
FEW = 0.02  # share of the prototypes that must be somebody's first choice
PATIENCE = 4  # looks in a row that must be bad


class CollapseError(ZerolabelError):
    """A run whose answers have become the same for all images."""


@torch.no_grad()
def measure(cls: Tensor, tokens: Tensor) -> dict[str, float]:
    """Measure how much a network tells images and patches apart.

    Args:
        cls: CLS tokens (B, D).
        tokens: patch tokens (B, h, w, D).

    Returns:
        "image_cosine" and "patch_cosine", mean cosine of two different images, and of two different
        patches of an image, -1..1; "norm_ratio", largest over median norm of a patch token; "rank",
        effective rank of the CLS tokens over min(B, D).
    """
    patches = tokens.flatten(1, 2)  # (B, N, D)
    norms = patches.norm(dim=-1)
    # A dead network's tokens are no numbers, which the decomposition refuses; the loss tells then.
    spectrum = torch.linalg.svdvals((cls - cls.mean(0)).nan_to_num(0, 0, 0)) + 1e-9
    p = spectrum / spectrum.sum()
    rank = torch.exp(-(p * p.log()).sum()) / min(cls.shape)
    found = [_mean_cosine(cls[None]), _mean_cosine(patches), norms.max() / norms.median(), rank]
    values = torch.stack(found).tolist()  # one wait for the device
    return dict(zip(("image_cosine", "patch_cosine", "norm_ratio", "rank"), values, strict=True))


@torch.no_grad()
def measure_targets(targets: Tensor) -> dict[str, float]:
    """Measure how a teacher uses its prototypes.

    Args:
        targets: distributions (B, K).

    Returns:
        "entropy" of a row, in nats, 0..ln K; "used", share of the min(B, K) prototypes that could
        be somebody's first choice and are.
    """
    entropy = -(targets * (targets + 1e-9).log()).sum(1).mean()
    used = len(torch.unique(targets.argmax(1))) / min(targets.shape)
    return {"entropy": float(entropy), "used": used}


class Watch:
    """Stops a run that is bad several looks in a row."""

    def __init__(self, *, prototypes: int = 0, warmup: int = 0) -> None:
        """Start watching.

        Args:
            prototypes: K of the objective "dino", else 0.
            warmup: steps before which nothing is judged.
        """
        self.prototypes, self.warmup = prototypes, warmup
        self.bad = 0  # looks in a row

    def look(self, step: int, values: Mapping[str, float]) -> None:
        """Judge the monitors of one step.

        Args:
            step: number of the step.
            values: of `measure`, `measure_targets` and the losses.

        Raises:
            CollapseError: the loss is not a number, or the same thing was wrong several times.
        """
        if not math.isfinite(values["loss"]):
            raise CollapseError(
                f"The loss is {values['loss']} at step {step}. Lower --lr, or switch mixed "
                "precision off with --amp off, and run again with another --out."
            )
        reason = self._reason(values) if step >= self.warmup else ""
        self.bad = self.bad + 1 if reason else 0
        if self.bad >= PATIENCE:
            raise CollapseError(
                f"The run has collapsed at step {step}: {reason}. Try --objective infonce or "
                "coding-rate, or a lower --lr; the last checkpoint is kept."
            )

    def _reason(self, values: Mapping[str, float]) -> str:
        if values["image_cosine"] > SAME_IMAGES:
            return f"all images look the same (mean cosine {values['image_cosine']:.3f})"
        if values["patch_cosine"] > SAME_PATCHES:
            return f"all patches look the same (mean cosine {values['patch_cosine']:.3f})"
        if self.prototypes and abs(values["image"] - math.log(self.prototypes)) < UNIFORM:
            return f"the loss stays at ln K = {math.log(self.prototypes):.3f}, uniform answers"
        if self.prototypes and values.get("used", 1.0) < FEW:
            return f"only {values['used']:.1%} of the prototypes are used"
        return ""


def _mean_cosine(x: Tensor) -> Tensor:
    """Mean cosine of two different rows of (G, N, D), averaged over G."""
    z = F.normalize(x, dim=-1)
    n = x.shape[1]
    # |sum of unit vectors|^2 holds every pair twice and n ones
    return ((z.sum(1).square().sum(-1) - n) / (n * (n - 1))).mean()
