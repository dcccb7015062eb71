import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from reference.outlines import thinned
from scipy.ndimage import label

from zerolabel.errors import UsageError
from zerolabel.ops.thinning import thin

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))
WITH_CORNERS = np.ones((3, 3))


def test_a_bar_becomes_a_line():
    mask = np.zeros((7, 12), bool)
    mask[2:5, 1:11] = True
    found = thin(mask)
    assert found[3].sum() >= 7
    assert (found.sum(axis=0) <= 1).all()
    assert not found[[0, 1, 5, 6]].any()


def test_a_ring_keeps_its_hole():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = False
    _, holes = label(~np.pad(thin(mask), 1))
    assert holes == 2
    assert thin(mask).sum() < 24


@pytest.mark.parametrize("density", [0.3, 0.6, 0.9])
def test_equals_the_conditions_of_the_paper(density):
    mask = np.random.default_rng(0).random((24, 31)) < density
    np.testing.assert_array_equal(thin(mask), thinned(mask))


@given(masks)
def test_pieces_stay_whole_and_thin(mask):
    found = thin(mask)
    assert not (found & ~mask).any()
    _, pieces = label(mask, WITH_CORNERS)
    ids, left = label(found, WITH_CORNERS)
    assert left == pieces
    np.testing.assert_array_equal(thin(found), found)


@given(masks)
def test_the_mask_itself_is_left_alone(mask):
    before = mask.copy()
    thin(mask)
    np.testing.assert_array_equal(mask, before)


@given(st.sampled_from([(0, 0), (0, 5), (1, 1)]))
def test_nothing_stays_nothing(shape):
    assert not thin(np.zeros(shape, bool)).any()


@pytest.mark.parametrize("wrong", [np.zeros((3, 3), int), np.zeros((2, 3, 3), bool)])
def test_complains_about_what_is_no_mask(wrong):
    with pytest.raises(UsageError, match=r"bool \(H, W\)"):
        thin(wrong)
