"""Losses between what a student and its teacher say of an image.

Three objectives, each on rows that belong together (same image, or same place in an image):
`dino` compares distributions over prototypes, `infonce` finds the partner among all images of the
batch, `coding-rate` pulls partners together and keeps all vectors spread out. All sums run over the
whole batch of all processes, so one loss means the same on one device and on many.

Shapes: `B` rows of this process, `V` views, `K` prototypes, `d` channels of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zerolabel.training import distributed

OBJECTIVES = ("dino", "infonce", "coding-rate")
EPSILON = 0.05  # squared distortion of the coding rate (Wu et al. 2025, SimDINO)


def dino_loss(
    student: Sequence[Tensor],
    targets: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Cross-entropy from the teacher's to the student's distributions, averaged over pairs.

    Every view's log-softmax is computed once: the targets of all its partners are summed first.

    Args:
        student: cosines to the prototypes, one (B, K) per student view.
        targets: distributions of the teacher, one (B, K) per teacher view, float32, no gradient.
        pairs: (teacher view, student view); DINO pairs every two different views.
        temperature: of the student.

    Returns:
        Scalar, float32.

    Source:
        Caron et al. 2021, eq. 3.
    """
    total = _wide(student[0].new_zeros(()))
    sums: dict[tuple[int, ...], Tensor] = {}  # local views share all their partners
    for s, logits in enumerate(student):
        partners = tuple(t for t, other in pairs if other == s)
        if not partners:
            continue
        if partners not in sums:
            sums[partners] = sum((targets[t] for t in partners[1:]), start=targets[partners[0]])
        logs = (_wide(logits) / temperature).log_softmax(-1)
        total = total - (sums[partners].flatten() @ logs.flatten()) / len(logits)
    return total / len(pairs)


class Centre:
    """Centring and sharpening of the teacher's answers.

    Attributes:
        value: float32 (K,), running mean of the teacher's cosines; part of a checkpoint.

    Source:
        Caron et al. 2021, eq. 4.
    """

    def __init__(self, prototypes: int, *, device: torch.device, momentum: float = 0.9) -> None:
        self.value = torch.zeros(prototypes, device=device)
        self.momentum = momentum

    def targets(self, teacher: Sequence[Tensor], *, temperature: float) -> list[Tensor]:
        """Turn cosines (B, K) of every teacher view into distributions; `update` comes after."""
        return [((_wide(x) - self.value) / temperature).softmax(-1) for x in teacher]

    def update(self, teacher: Sequence[Tensor]) -> None:
        """Move the centre towards the mean over all teacher views and processes."""
        rows = sum(len(x) for x in teacher) * distributed.world()
        sums = torch.stack([_wide(x).sum(0) for x in teacher]).sum(0)
        self.value.lerp_(distributed.total(sums) / rows, 1 - self.momentum)


def sinkhorn(cosines: Tensor, *, temperature: float, iterations: int = 3) -> Tensor:
    """Turn cosines into distributions that together use all prototypes equally.

    Args:
        cosines: (B, K), no gradient needed.
        temperature: of the teacher.
        iterations: alternations of the two normalisations.

    Returns:
        float32 (B, K), rows sum to 1.

    Source:
        Caron et al. 2020 (SwAV), section 3; used on patches by DINOv2.
    """
    rows = len(cosines) * distributed.world()
    q = ((_wide(cosines) - 1) / temperature).exp()  # cosines are at most 1, so nothing overflows
    q = q / distributed.total(q.sum())
    for _ in range(iterations):
        q = q / (distributed.total(q.sum(0)) * q.shape[1]).clamp(min=1e-30)
        q = q / (q.sum(1, keepdim=True) * rows).clamp(min=1e-30)
    return q * rows


def infonce_loss(student: Tensor, teacher: Tensor, *, temperature: float = 0.2) -> Tensor:
    """Cross-entropy of finding the teacher's view of the same image among those of all images.

    Args:
        student: unit vectors (B, d).
        teacher: unit vectors (B, d) of the same images, no gradient.
        temperature: of the softmax.

    Returns:
        Scalar; ln B while the student knows nothing.

    Source:
        van den Oord et al. 2018, eq. 4; with an averaged teacher as in MoCo.
    """
    everyone = distributed.gather(teacher)
    logits = student @ everyone.T / temperature
    partner = torch.arange(len(student), device=student.device) + distributed.rank() * len(student)
    return torch.nn.functional.cross_entropy(logits, partner)


def coding_rate_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Negative cosine of partners minus the coding rate of the student's vectors.

    Args:
        student: unit vectors (B, d).
        teacher: unit vectors (B, d), no gradient.
        weight: (B,) in 0..1, how much each row counts; all count fully by default.

    Returns:
        Scalar, bounded below by about -1 - (d + n) / (2 n) * log(1 + 1 / EPSILON).

    Source:
        Wu et al. 2025 (SimDINO), eq. 8 and their published scale (d + n) / (d n).
    """
    weight = student.new_ones(len(student)) if weight is None else weight
    count = distributed.total(weight.sum()).clamp(min=1)
    d = student.shape[1]
    agreement = ((student * teacher).sum(1) * weight).sum() / count * distributed.world()
    second = distributed.total_with_gradient(student.T @ (student * weight[:, None]))  # (d, d)
    eye = torch.eye(d, device=student.device)
    # Unchecked: a check waits for the device, and a loss that is not a number is seen anyway.
    chol = torch.linalg.cholesky_ex(eye + second * d / (count * EPSILON)).L
    rate = chol.diagonal().log().sum()  # half the log-determinant
    spread: Tensor = rate * (d + count) / (d * count)
    return -agreement - spread


def koleo_loss(embeddings: Tensor) -> Tensor:
    """Push every embedding away from its nearest neighbour in this process's batch.

    Args:
        embeddings: (B, d), B >= 2.

    Returns:
        Scalar.

    Source:
        Sablayrolles et al. 2019, eq. 2; in DINOv2 with weight 0.1.
    """
    z = torch.nn.functional.normalize(_wide(embeddings), dim=1)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-math.inf).argmax(1)
    distance = torch.nn.functional.pairwise_distance(z, z[nearest], eps=1e-8)
    return -(distance + 1e-8).log().mean()


def _wide(x: Tensor) -> Tensor:
    """At least float32: half precision is too coarse for logarithms and sums over a batch."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
