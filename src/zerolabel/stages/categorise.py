"""The verb categorise: one category id per vector, across all images."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from zerolabel.errors import UsageError, unknown_name
from zerolabel.ops.cluster import assign, choose_k, kmeans, minibatch, principal_axes


@dataclass(frozen=True, kw_only=True)
class Categorise:
    """Options of the verb.

    Attributes:
        categorise: "kmeans" (exact) or "minibatch", as DatUS2's code does it.
        k: number of categories, or what to choose it from: "auto", or a range such as "8-30".
        init: how k-means starts; the paper's review found k-means++ best, its code used "random".
        restarts: independent starts of k-means; the best is kept.
        components: principal components that vectors are reduced to first, 0 for none; DatUS2's
            code rotates by all of them, which changes nothing.
        seed: fixes every draw.
    """

    categorise: str = "kmeans"
    k: int | str = "auto"
    init: str = "k-means++"
    restarts: int = 10
    components: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Categories:
    """What the verb found.

    Attributes:
        centroids: float32 (K, D).
        curve: score of every k that was tried, by k; empty if k was given.
    """

    centroids: Tensor
    curve: dict[int, float]


MOST = 30  # categories that "auto" tries
LEAST = 2  # of fewer no silhouette can be told
RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


def span(k: int | str, *, most: int = MOST) -> tuple[int, int] | None:
    """Read which numbers of categories there are to choose from.

    Args:
        k: a number, "auto", or a range such as "8-30".
        most: the largest number that "auto" tries.

    Returns:
        The first and the last; None where k is a number.

    Raises:
        UsageError: it is none of the three.
    """
    if isinstance(k, int) and not isinstance(k, bool):
        return None
    if k == "auto":
        return LEAST, most
    found = RANGE.fullmatch(str(k))
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not LEAST <= low < high:
        raise UsageError(
            "k must be auto or a whole number, or a range such as 8-30 that begins with "
            f"{LEAST} or more, got {k!r}."
        )
    return low, high


def without(k: int | str, others: int) -> int | str:
    """Leave out of a number or a range of categories those that are not found by clustering.

    Args:
        k: see `span`.
        others: how many.

    Returns:
        What is left, `k` itself for "auto".
    """
    if isinstance(k, int):
        return k - others
    if k == "auto" or not others:
        return k
    low, high = span(k) or (LEAST, MOST)
    if high - others <= LEAST:
        raise UsageError(
            f"{others} of {k} categories are not found by clustering. Give a range that ends with "
            f"{LEAST + others + 1} or more."
        )
    return f"{max(LEAST, low - others)}-{high - others}"


def categorise(vectors: Tensor, options: Categorise, *, most: int = MOST) -> Categories:
    """Find the categories of a data set.

    Args:
        vectors: float32 (N, D), L2-normalised.
        options: which function, and its settings.
        most: the largest k that "auto" tries.

    Returns:
        One centroid per category.

    Raises:
        UsageError: the name is unknown, or k does not fit the number of vectors.
    """
    if options.categorise not in CATEGORISE:
        raise unknown_name("categorise stage", options.categorise, CATEGORISE)
    k, bounds = options.k, span(options.k, most=most)
    curve: dict[int, float] = {}
    if bounds is not None:
        low, high = bounds
        chosen, curve = choose_k(vectors, seed=options.seed, low=low, high=high)
        k = chosen if k == "auto" else max(low, chosen)  # as many as were asked for, at least
    assert isinstance(k, int)  # `span` saw to it
    if k > len(vectors):
        raise UsageError(
            f"{k} categories were asked for, but only {len(vectors)} regions were found. "
            "Give more images, a smaller --k, or --k auto."
        )
    if not options.components:
        return Categories(CATEGORISE[options.categorise](vectors, k, options), curve)
    mean, axes = principal_axes(vectors, options.components)
    centroids = CATEGORISE[options.categorise]((vectors - mean) @ axes, k, options)
    # Back in all dimensions the nearest centroid is the same: what was left out differs from every
    # centroid by the same distance.
    return Categories(centroids @ axes.T + mean, curve)


def by_kmeans(vectors: Tensor, k: int, options: Categorise) -> Tensor:
    """k-means over the whole data set (DatUS2, section III.D), the largest cluster first."""
    found = kmeans(vectors, k, seed=options.seed, restarts=options.restarts, init=options.init)
    return _largest_first(vectors, found.centroids)


def by_minibatch(vectors: Tensor, k: int, options: Categorise) -> Tensor:
    """Mini-batch k-means with the batch size and rounds of DatUS2's code."""
    batch = max(2048, 2 ** math.ceil(math.log2(k)))
    start = kmeans(vectors, k, seed=options.seed, restarts=1, init=options.init, iterations=0)
    centroids = minibatch(vectors, start.centroids, batch=batch, epochs=50, seed=options.seed)
    return _largest_first(vectors, centroids)


def _largest_first(vectors: Tensor, centroids: Tensor) -> Tensor:
    counts = assign(vectors, centroids)[0].bincount(minlength=len(centroids))
    return centroids[counts.argsort(descending=True, stable=True)]


CATEGORISE: dict[str, Callable[[Tensor, int, Categorise], Tensor]] = {
    "kmeans": by_kmeans,
    "minibatch": by_minibatch,
}
