"""Clusterings of one image that ACSeg is compared with, as scikit-learn has them.

They need the extra `baselines`. As all functions of the verb discover, each takes an image and
returns group labels int (h, w), here 0 or more. They look at the cosines of the patches; where
those are all the same, there is one group. Shapes: `N = h*w` patches.

Source: the rivals of Li et al., "ACSeg", CVPR 2023; their settings are not published.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from zerolabel.errors import UsageError

if TYPE_CHECKING:  # at run time discover.py imports this file, for its table of names
    from zerolabel.stages.discover import Discover, Encoded

ALIKE = 1e-6  # cosines that differ by less are those of equal patches, rounded to float32
DAMPINGS = {0.5: 200, 0.9: 1000}  # of affinity propagation, and the most updates with each


def by_spectral(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """Cut the graph of positive cosines, weighted by them, into `options.segments` groups.

    Args:
        image: its features are looked at.
        options: `segments` and `seed` are; as many patches as segments or fewer stay alone.

    Returns:
        Labels (h, w).

    Raises:
        UsageError: scikit-learn is missing.

    Source: Shi and Malik, "Normalized cuts and image segmentation", 2000.
    """

    def fit(cluster: Any, cosines: NDArray[np.float64]) -> Any:
        if len(cosines) <= options.segments:  # fewer eigenvectors than groups
            return np.arange(len(cosines))
        edges = cosines.clip(min=0)
        made = cluster.SpectralClustering(
            options.segments, affinity="precomputed", random_state=options.seed
        )
        return made.fit(edges).labels_

    return _labels(image, fit)


def by_affinity_propagation(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """Let patches choose examples among themselves by cosine; the number of groups adapts.

    How willing a patch is to be an example is the median of all cosines. Messages are damped by
    0.5, as scikit-learn does; if they do not settle, by 0.9. If they do not settle even so, what
    they say last counts, and where they name no example, all patches are one group.

    Args:
        image: its features are looked at.
        options: `seed` is.

    Returns:
        Labels (h, w).

    Raises:
        UsageError: scikit-learn is missing.

    Source: Frey and Dueck, "Clustering by passing messages between data points", 2007.
    """

    def fit(cluster: Any, cosines: NDArray[np.float64]) -> Any:
        for damping, most in DAMPINGS.items():
            made = cluster.AffinityPropagation(
                damping=damping, max_iter=most, affinity="precomputed", random_state=options.seed
            )
            found = made.fit(cosines)
            if found.n_iter_ < most:
                break
        return found.labels_.clip(min=0)  # -1 everywhere: no example

    return _labels(image, fit)


def by_agglomerative(image: Encoded, options: Discover) -> NDArray[np.int32]:
    """Join the two groups of highest mean cosine until `options.segments` are left.

    Args:
        image: its features are looked at.
        options: `segments` is; as many patches as segments or fewer stay alone.

    Returns:
        Labels (h, w).

    Raises:
        UsageError: scikit-learn is missing.

    Source: Sokal and Michener, "A statistical method for evaluating systematic relationships",
        1958 (average linkage).
    """

    def fit(cluster: Any, cosines: NDArray[np.float64]) -> Any:
        count = min(options.segments, len(cosines))
        made = cluster.AgglomerativeClustering(count, metric="precomputed", linkage="average")
        return made.fit((1 - cosines).clip(min=0)).labels_

    return _labels(image, fit)


def _labels(image: Encoded, fit: Callable[[Any, NDArray[np.float64]], Any]) -> NDArray[np.int32]:
    """Cluster the cosines (N, N) of an image with a function of scikit-learn's module."""
    try:
        from sklearn import cluster
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        raise UsageError(
            "Spectral, affinity-propagation and agglomerative clustering need scikit-learn, which "
            'is not installed: pip install "zerolabel[baselines]", or choose another --discover.'
        ) from None
    h, w, _ = image.features.shape
    x = F.normalize(image.features.flatten(0, 1).double(), dim=1).cpu().numpy()
    # One thread: on busy cores, two that wait for each other took up to 20 times as long. Warnings
    # are of graphs in pieces, equal rows and messages that do not settle; all have an answer here.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cosines = x @ x.T
        alike = np.ptp(cosines) < ALIKE
        labels = np.zeros(h * w) if alike else fit(cluster, cosines)
    return np.asarray(labels, np.int32).reshape(h, w)
