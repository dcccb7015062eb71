"""How much a backbone's features know: k-NN on whole images, a linear layer on patches.

Labels judge here and nothing else. Everything takes features that were computed before and
encodes nothing. Shapes: `N` images, `h w` patch grid, `D` channels, `C` classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.data.labels import fit
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.confusion import ABSENT, Confusion, floor, scores
from zerolabel.ops.matching import Counts
from zerolabel.ops.neighbours import nearest, vote
from zerolabel.ops.threads import threads_for
from zerolabel.types import IGNORE, LabelMap

SIDE = 64  # labels and logits of the linear probe meet at this many pixels a side
BATCH = 16  # images per step of the linear probe


@dataclass(frozen=True)
class KnnScore:
    """What the neighbours of an image say about its class.

    Attributes:
        top1: share of the queries whose class got most votes, 0..1.
        top5: share whose class is among the five with most votes; None for k < 5.
        k: neighbours that voted; never more than the bank has.
        bank: images with known class.
        queries: images that were classified.
    """

    top1: float
    top5: float | None
    k: int
    bank: int
    queries: int


def knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> KnnScore:
    """Classify images by a weighted vote of their nearest neighbours (cosine).

    Args:
        bank: float (N, D), one vector per image with known class.
        bank_labels: integers (N,), classes from 0.
        queries: float (Q, D), Q >= 1.
        query_labels: integers (Q,); a class that the bank does not hold is always missed.
        k: neighbours; DINO's best was 20.
        temperature: of the vote.

    Returns:
        Shares of correct classes.

    Raises:
        UsageError: no query, or sizes that do not fit together.
    """
    if len(bank) != len(bank_labels) or len(queries) != len(query_labels) or not len(queries):
        found = f"{len(bank)} for {len(bank_labels)}, {len(queries)} for {len(query_labels)}"
        raise UsageError(f"Expected one label per vector, and a query; found vectors {found}.")
    similarities, rows = nearest(queries, bank, k)
    known, truth = bank_labels.long().to(rows.device), query_labels.long().to(rows.device)
    classes = 1 + int(torch.cat([known, truth]).max())
    votes = vote(similarities, known[rows], classes, temperature)
    best, ranked = votes.topk(min(5, classes))
    hits = (ranked == truth[:, None]) & (best > 0)  # classes without any vote are no answer
    top5 = float(hits.any(1).double().mean()) if k >= 5 else None
    top1 = float(hits[:, 0].double().mean())
    return KnnScore(top1, top5, similarities.shape[1], len(bank), len(queries))


def mean_patch(tokens: Tensor) -> Tensor:
    """Describe whole images by the mean of their patch tokens: (N, h, w, D) -> (N, D)."""
    return tokens.float().mean((1, 2))


@dataclass(frozen=True, eq=False)
class ProbeScore:
    """How well labels are read from features.

    Attributes:
        miou: mean of `iou` under the rule for absent classes, 0..1.
        pixel_accuracy: share of the labelled pixels that got their class.
        iou: float64 (C,), NaN for classes that the rule leaves out.
        classes: how many classes the mean is over.
        floor: mIoU of predicting the largest true class everywhere.
    """

    miou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]
    classes: int
    floor: float


def judge(counts: Counts, *, absent: str, matching: str = "identity") -> ProbeScore:
    """Score what a probe predicted.

    Args:
        counts: int64 (C, K + 1), true classes by predicted ones.
        absent: the rule for absent classes, a key of `evaluation.confusion.ABSENT`.
        matching: a key of `ops.matching.MATCHINGS`, for probes that do not know the classes.

    Returns:
        The scores.

    Raises:
        DataError: there is no labelled pixel.
    """
    done = scores(counts, matching=matching, absent=absent)
    iou = ABSENT[absent](done.iou, done.pixels)
    classes = int((~np.isnan(iou)).sum())
    guessed = floor(counts, absent=absent).miou
    return ProbeScore(done.miou, done.pixel_accuracy, iou, classes, guessed)


def linear_probe(
    train_tokens: Tensor,
    train_labels: Sequence[LabelMap],
    val_tokens: Tensor,
    val_labels: Sequence[LabelMap],
    *,
    classes: int,
    seed: int,
    epochs: int = 30,
    lr: float = 3e-3,
) -> ProbeScore:
    """Train one linear layer on frozen patch tokens and segment the validation images with it.

    Tokens are standardised by mean and deviation of each channel over the training images. Logits
    are upsampled bilinearly to 64 x 64, in training as in validation, and compared with labels
    brought to that size by nearest neighbours; AdamW, 16 images a step, 255 is ignored.

    Args:
        train_tokens: float (N, h, w, D) of any backbone; may be float16.
        train_labels: N label maps, integers (H, W) of any size; ids outside 0..C-1 are ignored.
        val_tokens: float (M, h, w, D).
        val_labels: M label maps.
        classes: C.
        seed: fixes the layer's start and the order of the images.
        epochs: passes over the training images.
        lr: constant learning rate.

    Returns:
        The scores on the validation images.

    Raises:
        UsageError: sizes that do not fit together.
        DataError: no labelled pixel to train on, or none to score.
    """
    _check(train_tokens, train_labels)
    _check(val_tokens, val_labels)
    targets = torch.from_numpy(np.stack([_small(label, classes) for label in train_labels])).long()
    if not (targets != IGNORE).any():
        raise DataError(
            f"No pixel to train the probe on: expected ids 0..{classes - 1}, found only ignored "
            "ones. Check that the labels and the number of classes belong together."
        )
    device = train_tokens.device
    mean, scale = _moments(train_tokens)
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(len(mean))
    layer = torch.rand(len(mean) + 1, classes, generator=generator) * 2 * bound - bound
    layer = layer.to(device).requires_grad_()  # the last row is the bias
    optimiser = torch.optim.AdamW([layer], lr=lr)
    work = BATCH * train_tokens[0].numel() * classes
    with torch.enable_grad(), threads_for(work):
        for _ in range(epochs):
            order = torch.randperm(len(targets), generator=generator)
            for rows in torch.split(order, BATCH):
                x = (train_tokens[rows.to(device)].float() - mean) * scale
                goal = targets[rows].to(device)
                loss = F.cross_entropy(
                    _logits(x, layer), goal, ignore_index=IGNORE, reduction="sum"
                )
                optimiser.zero_grad()
                (loss / (goal != IGNORE).sum().clamp_min(1)).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return _validate(val_tokens, val_labels, mean, scale, layer.detach())


def _check(tokens: Tensor, labels: Sequence[LabelMap]) -> None:
    if tokens.ndim != 4 or not len(tokens) or len(tokens) != len(labels):
        found = f"{tuple(tokens.shape)} and {len(labels)} label maps"
        raise UsageError(f"Expected tokens (N, h, w, D) and N label maps, N >= 1; found {found}.")


def _small(label: LabelMap, classes: int) -> NDArray[np.uint8]:
    """Bring a label map to SIDE x SIDE by nearest neighbours; what is no class becomes 255."""
    ids = fit(label, (SIDE, SIDE))
    small: NDArray[np.uint8] = np.where((ids >= 0) & (ids < classes), ids, IGNORE).astype(np.uint8)
    return small


def _moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and one over the deviation (D,) of every channel, batch by batch."""
    parts = torch.split(tokens, BATCH)
    count = tokens[..., 0].numel()
    mean = sum((part.double().sum((0, 1, 2)) for part in parts), torch.zeros(())) / count
    square = sum(
        ((part.double() - mean).square().sum((0, 1, 2)) for part in parts), torch.zeros(())
    )
    deviation = (square / count).sqrt()
    constant = deviation <= 1e-6 * (1 + mean.abs())  # of such a channel only rounding is left
    return mean.float(), torch.where(constant, 0.0, 1 / deviation.clamp_min(1e-12)).float()


def _logits(x: Tensor, layer: Tensor) -> Tensor:
    """Linear layer, then bilinear to the size of the labels: (B, h, w, D) -> (B, C, 64, 64)."""
    logits = (x @ layer[:-1] + layer[-1]).permute(0, 3, 1, 2)
    return F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def _validate(
    tokens: Tensor, labels: Sequence[LabelMap], mean: Tensor, scale: Tensor, layer: Tensor
) -> ProbeScore:
    C = layer.shape[1]
    confusion = Confusion(C, C)
    for start in range(0, len(tokens), BATCH):
        x = (tokens[start : start + BATCH].float() - mean) * scale
        found = _logits(x, layer).argmax(1).to(torch.uint8).cpu().numpy()
        for label, prediction in zip(labels[start : start + BATCH], found, strict=True):
            confusion.add(_small(label, C), prediction)
    return judge(confusion.counts, absent="gt-only")
