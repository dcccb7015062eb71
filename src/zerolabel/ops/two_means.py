"""Two clusters of numbers, exactly: the best of all thresholds, without starts or seeds.

Shapes: `N` values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zerolabel.errors import UsageError

EQUAL = 1e-12  # splits whose gains differ by a smaller fraction differ by rounding only


def two_means(values: Tensor) -> float:
    """Find the threshold that cuts numbers into the two clusters of least squared error.

    The best two clusters of numbers never overlap (Fisher 1958, "On grouping for maximum
    homogeneity"), so one of the N - 1 splits of the sorted values is the optimum of k-means. With
    values of mean 0, whose i smallest sum to P_i, the split after these takes P_i^2 N / (i (N - i))
    off the squared error. O(N log N).

    Args:
        values: float (N,), finite.

    Returns:
        A threshold, of the type of the values so that comparing is exact: those above it are the
        upper cluster, the others the lower. It lies in the middle between the two clusters. Of
        equally good splits it is the lowest. Where there are no two clusters, all values being
        equal or fewer than two, it is minus infinity: all are above.

    Raises:
        UsageError: not a row of finite numbers.
    """
    if values.ndim != 1:
        raise UsageError(f"Expected values (N,) to cluster, found shape {tuple(values.shape)}.")
    N = len(values)
    ordered = values.detach().cpu().double().sort().values  # MPS has no float64
    if N and not math.isfinite(float(ordered[-1] - ordered[0])):  # NaN is sorted last
        raise UsageError("Expected finite values to cluster, found infinite ones or no numbers.")
    if N < 2 or ordered[0] == ordered[-1]:
        return -math.inf
    unit = (ordered - ordered[0]) / (ordered[-1] - ordered[0])  # shift and scale cannot matter
    sums = (unit - unit.mean()).cumsum(0)[:-1]
    count = torch.arange(1, N, dtype=torch.float64)
    gains = sums.square() / (count * (N - count))
    last = int((gains >= gains.max() * (1 - EQUAL)).nonzero()[0])  # of the lower cluster
    below, above = float(ordered[last]), float(ordered[last + 1])
    middle = float(torch.tensor(below / 2 + above / 2, dtype=values.dtype))
    return middle if below <= middle < above else below
