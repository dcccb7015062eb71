"""Specks: connected pieces of a label map that are too small to be anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from zerolabel.ops.regions import Grid, components, sizes


def absorb(labels: Grid, *, least: float) -> Grid:
    """Give every cell of a speck the label of the nearest cell that is in none.

    Args:
        labels: (h, w) integers, any values.
        least: cells that a piece must have, over edges or corners, so as to be no speck.

    Returns:
        (h, w) of the same type; the same labels where all pieces are specks, or none is.

    Raises:
        UsageError: not a grid.
    """
    pieces = components(labels)
    specks: NDArray[np.bool_] = (sizes(pieces) < least)[pieces]
    if specks.all() or not specks.any():
        return labels
    rows, columns = distance_transform_edt(specks, return_distances=False, return_indices=True)
    absorbed: Grid = labels[rows, columns]
    return absorbed
