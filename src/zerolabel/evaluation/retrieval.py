"""MaskContrast's evaluations of one vector per image: retrieval, and k-means.

The salient part of an image is pooled to a vector and labelled as a whole, the rest is background.
So an image counts through how often each class occurs inside and outside of its mask, and any
labelling is scored from these numbers, whatever the number of pixels.

Source: Van Gansbeke et al., "Unsupervised semantic segmentation by contrasting object mask
proposals", ICCV 2021, section 4.

Shapes: `N` images, `D` channels, `C` classes (0 is background), `H W` pixels, `h w` patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerolabel.errors import DataError
from zerolabel.ops.cluster import assign, kmeans, minibatch, principal_axes
from zerolabel.ops.matching import Counts
from zerolabel.ops.neighbours import nearest
from zerolabel.ops.regions import cells
from zerolabel.types import LabelMap

# The object classes of PASCAL VOC on which the paper's first table of retrieval reports.
SEVEN = ("aeroplane", "bottle", "bus", "car", "cat", "cow", "person")


@dataclass(frozen=True, kw_only=True)
class PooledKmeans:
    """Settings of the k-means.

    Attributes:
        k: clusters of salient parts; 0 for one less than there are classes.
        components: principal components that vectors are reduced and whitened to.
        batch: vectors per mini-batch.
        epochs: passes over the vectors.
        starts: seedings of which the best is taken.
        seed: of the first run.
        seeds: runs, with the seeds that follow; scores are their mean.
    """

    k: int = 0
    components: int = 32
    batch: int = 1000
    epochs: int = 100
    starts: int = 3
    seed: int = 1234
    seeds: int = 5


@dataclass(frozen=True, eq=False)
class Pooled:
    """What is known of some images.

    Attributes:
        prototypes: float32 (N, D), L2-normalised; 0 for an image without a salient pixel.
        inside: int64 (N, C), scored pixels of each class in the salient part.
        outside: int64 (N, C), those elsewhere.
    """

    prototypes: Tensor
    inside: Counts
    outside: Counts


def pool(tokens: Tensor, mask: NDArray[np.bool_]) -> Tensor:
    """Describe the salient part of an image.

    Args:
        tokens: float (h, w, D).
        mask: bool (H, W), the salient pixels.

    Returns:
        float32 (D,), the L2-normalised sum over the salient pixels of the token of their patch;
        0 if there are none.
    """
    h, w, D = tokens.shape
    weights = np.bincount(cells(mask.shape, (h, w))[mask], minlength=h * w)
    found = torch.from_numpy(weights).to(tokens).float() @ tokens.reshape(h * w, D).float()
    return F.normalize(found, dim=0)


def occurrences(label: LabelMap, mask: NDArray[np.bool_], classes: int) -> tuple[Counts, Counts]:
    """Count the scored pixels of each class inside and outside of a mask: two int64 (C,)."""
    scored = (label >= 0) & (label < classes)
    inside, outside = (
        np.bincount(label[scored & part].astype(np.int64), minlength=classes)
        for part in (mask, ~mask)
    )
    return inside, outside


def retrieve(bank: Pooled, asked: Pooled, *, among: Sequence[int] | None = None) -> Counts:
    """Label the salient part of every image as that of its nearest neighbour.

    An image of the bank has the class that most pixels inside its mask have, background left out;
    without such a pixel it is no neighbour.

    Args:
        bank: images with known labels.
        asked: images to segment; their labels only score.
        among: object classes that are known and scored besides the background; None for all. Labels
            of others are treated as ignored.

    Returns:
        int64 (C, C + 1), true classes by predicted ones.

    Raises:
        DataError: no image of the bank has a class.
    """
    C = bank.inside.shape[1]
    ids = np.arange(1, C) if among is None else np.array(among)
    known = bank.inside[:, ids]
    kept = known.any(axis=1)
    if not kept.any():
        raise DataError(
            f"None of the {len(known)} images to retrieve from has a pixel of an object class "
            "inside its salient part. Check that the saliency masks belong to the images."
        )
    labels = ids[known[kept].argmax(axis=1)]
    _, rows = nearest(asked.prototypes, bank.prototypes[torch.from_numpy(kept)], 1)
    counts = confusion(asked, labels[rows[:, 0].cpu().numpy()], C)
    scored = np.isin(np.arange(C), [0, *ids])
    counts[~scored] = 0
    return counts


def cluster(asked: Pooled, config: PooledKmeans, *, seed: int) -> Counts:
    """Cluster the salient parts, background being a cluster of its own.

    Args:
        asked: images to segment.
        config: settings.
        seed: fixes every draw.

    Returns:
        int64 (C, k + 2): true classes by cluster 0 (not salient), clusters 1..k, and no cluster.

    Raises:
        DataError: fewer images with a salient part than clusters.
    """
    C = asked.inside.shape[1]
    k = config.k or C - 1
    seen = asked.prototypes.any(1)
    x = asked.prototypes[seen]
    if len(x) < k:
        raise DataError(f"Expected {k} images with a salient part or more, found {len(x)}.")
    x = _whiten(x, config.components)
    start = kmeans(x, k, seed=seed, restarts=config.starts, iterations=0)
    centroids = minibatch(x, start.centroids, batch=config.batch, epochs=config.epochs, seed=seed)
    labels = np.zeros(len(seen), np.int64)  # an image without a salient part is all background
    labels[seen.cpu().numpy()] = 1 + assign(x, centroids)[0].cpu().numpy()
    return confusion(asked, labels, k + 1)


def confusion(asked: Pooled, labels: NDArray[np.int64], clusters: int) -> Counts:
    """Count (true class, cluster), each salient part having one cluster and the rest cluster 0.

    Args:
        asked: N images.
        labels: (N,), the cluster of each salient part.
        clusters: K.

    Returns:
        int64 (C, K + 1); the last column, no cluster, is empty.
    """
    counts = np.zeros((clusters + 1, asked.inside.shape[1]), np.int64)
    np.add.at(counts, labels, asked.inside)
    counts[0] += asked.outside.sum(axis=0)
    return counts.T.copy()


def _whiten(x: Tensor, components: int) -> Tensor:
    """Project (N, D) on its principal axes, at most N - 1 of them, each with deviation 1."""
    mean, axes = principal_axes(x, min(components, max(len(x) - 1, 1)))
    found = (x - mean) @ axes
    deviation = found.square().sum(0).div(max(len(x) - 1, 1)).sqrt()
    return found / deviation.clamp_min(1e-6 * float(deviation.max().clamp_min(1e-12)))
