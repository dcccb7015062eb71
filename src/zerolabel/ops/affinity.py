"""Which patches of an image look alike: the graph that communities are found in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

STRIP = 128  # rows that are compared at a time, so that no second matrix is needed


def affinity(
    features: Tensor | NDArray[Any],
    *,
    weighted: bool = False,
    threshold: float = 0.0,
    self_loops: bool = True,
) -> NDArray[np.float32]:
    """Connect patches by the dot product a = f_i . f_j of their features, taken as they come.

    Args:
        features: (N, D), any float type, tensor or array; not normalised here. The dot product is
            computed in float32.
        weighted: False: an edge weighs 1 where a > threshold (the published graph); True: it weighs
            max(a - threshold, 0).
        threshold: dot product above which two patches are connected.
        self_loops: keep the diagonal (positive for threshold 0), which shifts the best communities
            slightly; False sets it to 0.

    Returns:
        (N, N) symmetric float32 weights >= 0.

    Raises:
        UsageError: not a matrix, or values that are not finite.

    Source: Kumar et al., "DatUS^2", IEEE TCDS 2024, equation 1.
    """
    rows = _rows(features)
    with np.errstate(over="ignore", invalid="ignore"):  # reported as an error below
        weights = rows @ rows.T  # the same array twice: BLAS computes one triangle and mirrors it
    if not np.isfinite(weights.diagonal()).all():
        raise UsageError("Expected finite features of moderate size; found NaN or overflow.")
    if weighted:
        np.subtract(weights, np.float32(threshold), out=weights)
        np.maximum(weights, 0, out=weights)
    else:
        for start in range(0, len(weights), STRIP):
            strip = weights[start : start + STRIP]
            strip[...] = strip > threshold
    if not self_loops:
        np.fill_diagonal(weights, 0)
    return weights


def _rows(features: Tensor | NDArray[Any]) -> NDArray[np.float32]:
    """Return the features as a float32 array (N, D) on the CPU."""
    if not isinstance(features, np.ndarray):
        features = features.detach().float().cpu().numpy()
    if features.ndim != 2 or not features.size:
        raise UsageError(f"Expected features (N, D), both at least 1; found {features.shape}.")
    return np.ascontiguousarray(features, dtype=np.float32)
