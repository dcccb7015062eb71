import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from zerolabel.errors import UsageError
from zerolabel.ops.bipartite import maximum_matching


def most(candidates, columns):
    """The size of the largest matching, by scipy."""
    near = np.zeros((len(candidates), columns), np.int8)
    for row, own in enumerate(candidates):
        near[row, own[own >= 0]] = 1
    return int((maximum_bipartite_matching(csr_array(near), perm_type="column") >= 0).sum())


def valid(found, candidates):
    """Whether every row has a column of its own candidates, and no column two rows."""
    rows = np.flatnonzero(found >= 0)
    held = all(found[row] in candidates[row] for row in rows)
    return held and len(set(found[rows].tolist())) == len(rows)


@st.composite
def problems(draw):
    columns = draw(st.integers(0, 8))
    rows = draw(st.lists(st.lists(st.integers(0, max(columns - 1, 0)), unique=True, max_size=4)))
    width = max(map(len, rows), default=0) if columns else 0
    packed = [(own + [-1] * width)[:width] if columns else [] for own in rows]
    return np.array(packed, np.int64).reshape(len(rows), width), columns


@given(problems())
def test_is_valid_and_as_large_as_can_be(problem):
    candidates, columns = problem
    found = maximum_matching(candidates, columns)
    assert valid(found, candidates)
    assert (found >= 0).sum() == most(candidates, columns)


@pytest.mark.parametrize("degree", [1, 2, 3, 6])
def test_large_sparse_problems(degree):
    rng = np.random.default_rng(degree)
    candidates = np.array([rng.choice(300, degree, replace=False) for _ in range(320)])
    candidates[rng.random(candidates.shape) < 0.2] = -1
    found = maximum_matching(candidates, 300)
    assert valid(found, candidates)
    assert (found >= 0).sum() == most(candidates, 300)


def test_a_long_chain_is_switched_as_a_whole():
    n = 500  # row i wants column i before i - 1; the last one can only have what row n - 2 took
    candidates = np.stack([np.arange(n), np.arange(n) - 1], axis=1)
    candidates[-1] = [n - 2, -1]
    candidates[0] = [0, n - 1]
    found = maximum_matching(candidates, n)
    assert (found >= 0).all()
    np.testing.assert_array_equal(found, [n - 1, *range(n - 1)])


def test_earlier_candidates_are_preferred():
    np.testing.assert_array_equal(maximum_matching(np.array([[2, 0], [1, 2]]), 3), [2, 1])


def test_nothing_to_pair():
    assert maximum_matching(np.zeros((0, 3), int), 5).shape == (0,)
    np.testing.assert_array_equal(maximum_matching(np.zeros((2, 0), int), 0), [-1, -1])


@pytest.mark.parametrize("wrong", [[[3]], [[-2]]])
def test_complains_about_columns_that_do_not_exist(wrong):
    with pytest.raises(UsageError, match="between -1 and 2"):
        maximum_matching(np.array(wrong), 3)
