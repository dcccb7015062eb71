"""Connected pieces of categories, against slow counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zerolabel.jobs.refining.changes import pieces
from zerolabel.ops.regions import components
from zerolabel.types import IGNORE

masks = arrays(
    np.uint8,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([0, 1, 2, IGNORE]),
)


@given(masks)
def test_pieces_are_those_of_the_components_of_the_whole_mask(mask):
    found = components(mask)
    _, first = np.unique(found, return_index=True)
    owners = mask.ravel()[first]
    assert pieces(mask, 4).tolist() == [int((owners == k).sum()) for k in range(4)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pieces_by_hand(dtype):
    """Corners join; what has no category, and ids that do not occur, have no pieces."""
    mask = np.array([[0, 1, 0], [1, 0, 255], [2, 255, 0]], dtype)
    assert pieces(mask, 4).tolist() == [1, 1, 1, 0]
    assert pieces(np.full((2, 2), 255, dtype), 2).tolist() == [0, 0]
    assert pieces(np.array([[254, 0, 254]], dtype), 255).tolist() == [1, *[0] * 253, 2]
