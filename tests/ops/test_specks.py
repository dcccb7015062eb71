import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference.graphs import components_by_walking

from zerolabel.errors import UsageError
from zerolabel.ops.specks import absorb

LABELS = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
)


@given(labels=LABELS, least=st.floats(0, 12))
@settings(deadline=None)
def test_every_cell_of_a_speck_takes_the_label_of_a_nearest_other_cell(labels, least):
    pieces = components_by_walking(labels, 8)
    speck = (np.bincount(pieces.ravel()) < least)[pieces]
    found = absorb(labels, least=least)
    assert found.dtype == labels.dtype
    if speck.all():
        np.testing.assert_array_equal(found, labels)
        return
    np.testing.assert_array_equal(found[~speck], labels[~speck])
    whole = np.argwhere(~speck)
    for cell in np.argwhere(speck):
        far = ((whole - cell) ** 2).sum(1)
        nearest = whole[far == far.min()]
        assert found[tuple(cell)] in labels[nearest[:, 0], nearest[:, 1]]


def test_a_speck_inside_and_one_at_the_corner_of_another():
    labels = np.zeros((6, 8), np.uint16)
    labels[2:4, 5:] = 300
    labels[1, 1] = labels[4, 4] = 300  # the latter hangs on the larger piece by a corner
    found = absorb(labels, least=2)
    labels[1, 1] = 0
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.uint16


def test_a_piece_that_is_just_large_enough_stays():
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 1:4] = 1
    np.testing.assert_array_equal(absorb(labels, least=3), labels)
    assert (absorb(labels, least=3.5) == 0).all()


def test_a_bar_of_specks_is_shared_by_its_neighbours():
    labels = np.array([[0, 0, 0, 1, 2, 3, 4, 9, 9, 9]])
    np.testing.assert_array_equal(absorb(labels, least=3), [[0, 0, 0, 0, 0, 9, 9, 9, 9, 9]])


def test_it_wants_a_grid():
    with pytest.raises(UsageError, match="grid"):
        absorb(np.zeros(4, np.uint8), least=2)
