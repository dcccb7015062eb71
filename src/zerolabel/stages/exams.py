"""Part of the verb refine: how good a student is by labels, so that the best one can be kept.

Shapes: `B` images, `h w` patch grid, `K` clusters, `C` classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.networks.students import Student
from zerolabel.ops.matching import Counts, hungarian
from zerolabel.ops.regions import patch_labels
from zerolabel.store import Store
from zerolabel.types import IGNORE, Sample

GridLabels = NDArray[np.uint8]  # (h, w), 255 where nothing is scored


@dataclass(frozen=True)
class Exam:
    """Whole images with labels.

    Attributes:
        read: returns what a student decodes of the images of a shard that could be read, and their
            samples.
        labels: id -> uint8 (h, w), the class of every patch; images without labels are not judged.
        classes: C.
    """

    read: Callable[[int], tuple[Tensor, Sequence[Sample]]]
    labels: Mapping[str, GridLabels]
    classes: int

    @property
    def digest(self) -> str:
        """Hash of the labels, as a choice by them depends on them."""
        digest = hashlib.blake2b(f"{self.classes}".encode(), digest_size=12)
        for name, label in sorted(self.labels.items()):
            digest.update(f"{name!r} {label.shape}".encode() + label.tobytes())
        return digest.hexdigest()


def prepare(
    read: Callable[[int], tuple[Tensor, Sequence[Sample]]],
    samples: Sequence[Sample],
    grid: tuple[int, int],
    *,
    store: Store,
) -> Exam:
    """Read the labels of images, once, and keep the class of every patch.

    Args:
        read: see `Exam`.
        samples: all images; those without a label, or whose label cannot be read, are left out.
        grid: (h, w) on which students decide.
        store: is told the progress.

    Returns:
        The exam.

    Raises:
        UsageError: no patch has a label.
    """
    labels: dict[str, GridLabels] = {}
    classes = 0
    for _, [sample] in store.track("labels", samples, 1):
        if sample.load_label is None:
            continue
        try:
            label = patch_labels(sample.load_label(), grid, IGNORE).astype(np.uint8)
        except (DataError, ImageError):
            continue
        scored = label[label != IGNORE]
        if len(scored):
            labels[sample.id] = label
            classes = max(classes, len(sample.classes), int(scored.max()) + 1)
    if not labels:
        raise UsageError(
            f"select=labels chooses by labels, and none of these {len(samples)} images has one. "
            "Give a labelled data set, or leave select=last."
        )
    return Exam(read, labels, classes)


def judge(student: Student, exam: Exam, *, shards: int) -> float:
    """Score a student on the patches of whole images.

    Args:
        student: put into evaluation mode.
        exam: images and labels.
        shards: how many there are.

    Returns:
        Mean IoU plus pixel accuracy, 0..2, see `score`.
    """
    student.eval()
    device = next(student.parameters()).device
    counts: Counts | None = None
    for shard in range(shards):
        inputs, kept = exam.read(shard)
        rows = [row for row, sample in enumerate(kept) if sample.id in exam.labels]
        if not rows:
            continue
        with torch.no_grad():
            logits, _ = student.decode(inputs[rows].to(device))
        K = logits.shape[1]
        truth = np.stack([exam.labels[kept[row].id] for row in rows]).astype(np.int64)
        scored = truth != IGNORE
        pairs = truth[scored] * (K + 1) + logits.argmax(1).cpu().numpy()[scored]
        found = np.bincount(pairs, minlength=exam.classes * (K + 1))
        counts = found if counts is None else counts + found
    if counts is None:  # images that have labels became unreadable since
        return 0.0
    return score(counts.reshape(exam.classes, -1))


def score(counts: Counts) -> float:
    """Match clusters to classes by counts, and add mean IoU and pixel accuracy.

    Args:
        counts: int64 (C, K + 1), the last column for no cluster.

    Returns:
        0..2; the mean is over classes that are true or predicted somewhere.
    """
    matching = hungarian(counts)
    clusters = np.flatnonzero(matching >= 0)
    hits, predicted = np.zeros(len(counts)), np.zeros(len(counts))
    hits[matching[clusters]] = counts[matching[clusters], clusters]
    predicted[matching[clusters]] = counts[:, clusters].sum(0)
    true = counts.sum(1)
    union = true + predicted - hits
    seen = union > 0
    return float((hits[seen] / union[seen]).mean() + hits.sum() / max(1, true.sum()))
