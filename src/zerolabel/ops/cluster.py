"""k-means on features, exact (Lloyd) and in plain matrix products, and the choice of k.

Vectors are read a few at a time and nothing as large as all of them is made, so that they may lie
in a file that is mapped into memory (`torch.from_numpy(np.memmap(...))`).
Shapes: `N` vectors, `D` channels, `K` clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.ops.threads import threads_for

CHUNK = 1 << 19  # numbers that are read at a time: between product and sums they stay in cache
SEEDING_ROWS = 10_000  # restarts compete on a subsample; the best one is polished on all rows


@dataclass(frozen=True)
class Clustering:
    """The result of k-means.

    Attributes:
        centroids: float32 (K, D).
        labels: int64 (N,), values 0..K-1.
        inertia: mean squared distance to the own centroid.
    """

    centroids: Tensor
    labels: Tensor
    inertia: float


def kmeans(
    x: Tensor,
    k: int,
    *,
    seed: int = 0,
    restarts: int = 10,
    init: str = "k-means++",
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Clustering:
    """Cluster vectors by squared Euclidean distance; the best of several starts wins.

    Args:
        x: float32 (N, D); L2-normalise the rows first for cosine similarity.
        k: number of clusters, 1..N.
        seed: fixes every draw.
        restarts: independent starts.
        init: "k-means++" (greedy), "uniform" (sampled between the extremes), or "random" rows.
        iterations: most Lloyd steps per start.
        tolerance: a start ends when the inertia falls by a smaller fraction than this.

    Returns:
        The clustering with the lowest inertia.

    Raises:
        UsageError: k is outside 1..N, or the init is unknown.
    """
    if not 1 <= k <= len(x):
        raise UsageError(f"k must be in 1..{len(x)} (the number of vectors), got {k}.")
    if restarts < 1:
        raise UsageError(f"restarts must be at least 1, got {restarts}.")
    generator = torch.Generator().manual_seed(seed)
    few = x
    if len(x) > max(SEEDING_ROWS, k):
        rows = torch.randperm(len(x), generator=generator)[: max(SEEDING_ROWS, k)]
        few = x[rows.to(x.device)]
    with threads_for(len(few) * k * x.shape[1]):
        starts = [
            lloyd(few, _initial(few, k, init, generator), iterations, tolerance=tolerance)
            for _ in range(restarts)
        ]
    best = min(starts, key=lambda found: found.inertia)
    return best if few is x else lloyd(x, best.centroids, iterations, tolerance=tolerance)


def lloyd(x: Tensor, centroids: Tensor, iterations: int, *, tolerance: float = 1e-4) -> Clustering:
    """Move centroids to the means of the vectors that are nearest to them, again and again.

    Args:
        x: float32 (N, D).
        centroids: float32 (K, D), where to start; left as they are.
        iterations: most steps.
        tolerance: ends when the inertia falls by a smaller fraction than this.

    Returns:
        The clustering; vectors are read iterations + 1 times.

    Source: Lloyd, "Least squares quantization in PCM", 1982.
    """
    previous = math.inf
    squares = _squares(x)
    labels, distances, sums = _pass(x, squares, centroids)
    for _ in range(iterations):
        centroids = _means(x, labels, distances, sums)
        labels, distances, sums = _pass(x, squares, centroids)
        inertia = float(distances.mean())
        if previous - inertia <= tolerance * inertia:
            break
        previous = inertia
    return Clustering(centroids, labels, float(distances.mean()))


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest centroid of every row.

    Args:
        x: float32 (N, D).
        centroids: float32 (K, D).

    Returns:
        Labels int64 (N,) and squared distances float32 (N,).
    """
    labels, scores = zip(
        *(_nearest(rows, centroids) for rows in torch.split(x, _rows(x))), strict=True
    )
    return torch.cat(labels), (_squares(x) - 2 * torch.cat(scores)).clamp_min(0)


def minibatch(x: Tensor, centroids: Tensor, *, batch: int, epochs: int, seed: int) -> Tensor:
    """Move centroids by mini-batches, each towards the mean of all rows it was ever given.

    Args:
        x: float32 (N, D).
        centroids: float32 (K, D), where to start.
        batch: rows per step.
        epochs: passes over the shuffled rows.
        seed: fixes the order.

    Returns:
        float32 (K, D).

    Source: Sculley, "Web-scale k-means clustering", 2010.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = x.new_zeros(len(centroids), 1)
    centroids = centroids.clone()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=generator), batch):
            part = x[rows.to(x.device)]
            labels, _ = assign(part, centroids)
            new = torch.bincount(labels, minlength=len(centroids))[:, None]
            counts += new
            sums = torch.zeros_like(centroids).index_add_(0, labels, part)
            centroids += (sums - new * centroids) / counts.clamp_min(1)
    return centroids


def principal_axes(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and leading principal axes.

    Args:
        x: float32 (N, D).
        count: axes wanted; at most D are returned.

    Returns:
        mean (D,) and orthonormal axes (D, count), by falling variance.
    """
    mean = x.mean(0)
    _, axes = torch.linalg.eigh((x - mean).T @ (x - mean))
    return mean, axes.flip(1)[:, :count]


def _pass(x: Tensor, squares: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Read all rows once: labels (N,), squared distances (N,), and sums (K, D) of each cluster."""
    labels, scores = [], []
    sums = torch.zeros_like(centroids)
    for rows in torch.split(x, _rows(x)):
        label, score = _nearest(rows, centroids)
        sums.index_add_(0, label, rows)
        labels.append(label)
        scores.append(score)
    return torch.cat(labels), (squares - 2 * torch.cat(scores)).clamp_min(0), sums


def _nearest(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid of rows (n, D), int64 (n,), and float32 (n,): x.c - |c|^2/2."""
    half = 0.5 * centroids.square().sum(1, keepdim=True)  # argmin |x-c|^2 = argmax x.c - |c|^2/2
    # Few centroids times many rows: this way round the product is a third faster.
    scores, labels = torch.addmm(-half, centroids, rows.T).max(0)
    return labels, scores


def _squares(x: Tensor) -> Tensor:
    """Squared length of every row (N, D): the norm makes nothing of the size of x on the way."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1)
    return lengths.square_()


def _rows(x: Tensor) -> int:
    """How many rows of (N, D) are read at a time."""
    return max(1, CHUNK // x.shape[1]) * (torch.get_num_threads() if x.device.type == "cpu" else 16)


def _means(x: Tensor, labels: Tensor, distances: Tensor, sums: Tensor) -> Tensor:
    """Average the rows of each cluster; an empty cluster restarts at the worst-served rows."""
    counts = torch.bincount(labels, minlength=len(sums))
    centroids = sums / counts.clamp_min(1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        centroids[empty] = x[distances.topk(len(empty)).indices]
    return centroids


def _initial(x: Tensor, k: int, init: str, generator: torch.Generator) -> Tensor:
    if init == "random":
        return x[torch.randperm(len(x), generator=generator)[:k].to(x.device)]
    if init == "uniform":
        low, high = x.amin(0), x.amax(0)
        return low + torch.rand(k, x.shape[1], generator=generator).to(x) * (high - low)
    if init == "k-means++":
        return _plus_plus(x, k, generator)
    raise UsageError(f"init must be 'k-means++', 'uniform' or 'random', got {init!r}.")


def _plus_plus(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Seed greedily: of a few rows drawn by squared distance, keep the one that helps most.

    Arthur and Vassilvitskii 2007, with the 2 + log k trials of their section 5.
    """
    trials = 2 + int(math.log(k))
    squares = x.square().sum(1)
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    nearest = (squares + squares[chosen[0]] - 2 * (x @ x[chosen[0]])).clamp_min(0)
    for _ in range(k - 1):
        weight = nearest.double().cpu()
        if float(weight.sum()) <= 0:  # fewer distinct rows than clusters
            weight = torch.ones_like(weight)
        draws = torch.multinomial(weight, trials, replacement=True, generator=generator)
        draws = draws.to(x.device)
        distances = squares[None] + squares[draws, None] - 2 * (x[draws] @ x.T)  # (trials, N)
        distances = torch.minimum(distances.clamp_min(0), nearest)
        best = int(distances.sum(1).argmin())
        nearest = distances[best]
        chosen.append(int(draws[best]))
    return x[torch.tensor(chosen, device=x.device)]


def choose_k(
    x: Tensor, *, seed: int = 0, low: int = 2, high: int = 30, rows: int = 2000
) -> tuple[int, dict[int, float]]:
    """Choose the number of clusters by the mean silhouette, every cluster counting the same.

    Args:
        x: float32 (N, D).
        seed: fixes every draw.
        low: smallest k tried.
        high: largest k tried; at most half of the vectors, so that clusters can have members.
        rows: vectors that are looked at; more are subsampled.

    Returns:
        The k with the highest score, and the score of every k tried.
    """
    if len(x) > rows:
        generator = torch.Generator().manual_seed(seed)
        x = x[torch.randperm(len(x), generator=generator)[:rows].to(x.device)]
    high = min(high, len(x) // 2)
    if high < low:  # too little to choose from
        return min(low, len(x)), {}
    with threads_for(len(x) * high * x.shape[1]):
        curve = {
            k: silhouette(x, kmeans(x, k, seed=seed, restarts=5)) for k in range(low, high + 1)
        }
    return max(curve, key=lambda k: curve[k]), curve


def silhouette(x: Tensor, clustering: Clustering) -> float:
    """Mean over clusters of the centroid silhouette (b - a) / max(a, b), in -1..1.

    a is a vector's distance to the mean of the *other* members of its cluster and b to the nearest
    other centroid; a vector alone in its cluster scores 0 (Rousseeuw 1987, section 2). Counting the
    vector itself in its mean would make splinters of one or two look perfect.

    Args:
        x: float32 (N, D).
        clustering: its clustering with K > 1.

    Returns:
        The score.
    """
    labels, k = clustering.labels, len(clustering.centroids)
    counts = torch.bincount(labels, minlength=k)
    own_count = counts[labels]
    distances = torch.cdist(x, clustering.centroids)  # (N, K)
    own = distances.gather(1, labels[:, None])[:, 0]
    own = own * own_count / (own_count - 1).clamp_min(1)  # leave the vector itself out
    other = distances.scatter(1, labels[:, None], math.inf).amin(1)
    scores = (other - own) / torch.maximum(other, own).clamp_min(1e-12)
    scores = torch.where(own_count > 1, scores, 0.0)
    means = x.new_zeros(k).index_add_(0, labels, scores) / counts.clamp_min(1)
    return float(means.mean())
