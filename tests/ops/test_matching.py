import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.scores_by_sets import best_matching

from zerolabel.ops.matching import MATCHINGS, hungarian, identity, majority


@st.composite
def small_counts(draw, top):
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    cells = st.lists(st.integers(0, top), min_size=columns, max_size=columns)
    return draw(st.lists(cells, min_size=rows, max_size=rows))


@settings(deadline=None)
@given(small_counts(top=2))
def test_hungarian_is_the_first_of_all_best_matchings(counts):
    # counts of 0..2 tie nearly always
    assert hungarian(np.array(counts)).tolist() == best_matching(counts)[0]


@settings(deadline=None)
@given(small_counts(top=10**12))
def test_hungarian_is_exact_for_counts_of_whole_data_sets(counts):
    assert hungarian(np.array(counts)).tolist() == best_matching(counts)[0]


def test_hungarian_made_by_hand():
    counts = np.array([[9, 8, 0], [8, 1, 0], [0, 0, 3]])
    # greedy would take 9 + 1; the best is 8 + 8
    assert hungarian(counts).tolist() == [1, 0, 2]


def test_more_clusters_than_classes_leaves_clusters_over():
    assert hungarian(np.array([[1, 5, 0, 2], [0, 4, 0, 3]])).tolist() == [-1, 0, -1, 1]


def test_more_classes_than_clusters_leaves_classes_over():
    assert hungarian(np.array([[1, 5], [0, 9], [2, 2]])).tolist() == [2, 1]


@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (2, 4), (4, 2)])
def test_hungarian_without_any_pixel_goes_by_index(classes, clusters):
    expected = [k if k < classes else -1 for k in range(clusters)]
    assert hungarian(np.zeros((classes, clusters), np.int64)).tolist() == expected


def test_hungarian_at_the_size_of_a_real_benchmark():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (27, 300)) * rng.integers(0, 3, (27, 300))
    matching = hungarian(counts)
    matched = np.flatnonzero(matching >= 0)
    assert sorted(matching[matched]) == list(range(27))
    # every class finds one of the many cells with the highest count, the lowest possible one first
    assert (counts[matching[matched], matched] == 4).all()
    assert np.flatnonzero(matching == 0)[0] == np.flatnonzero(counts[0] == 4)[0]


def test_majority_is_many_to_one_with_ties_to_the_lowest_class():
    counts = np.array([[5, 1, 0, 2], [3, 7, 0, 2], [0, 7, 0, 1]])
    assert majority(counts).tolist() == [0, 1, -1, 0]


@settings(deadline=None)
@given(small_counts(top=20))
def test_majority_agrees_on_at_least_as_many_pixels_as_hungarian(counts):
    counts = np.array(counts)

    def agreeing(matching):
        return sum(counts[c, k] for k, c in enumerate(matching) if c >= 0)

    assert agreeing(majority(counts)) >= agreeing(hungarian(counts))


def test_identity_takes_clusters_for_classes():
    assert identity(np.zeros((2, 4), np.int64)).tolist() == [0, 1, -1, -1]
    assert identity(np.zeros((4, 2), np.int64)).tolist() == [0, 1]


@settings(deadline=None)
@given(small_counts(top=3), st.sampled_from(sorted(MATCHINGS)))
def test_every_rule_answers_for_every_cluster(counts, rule):
    counts = np.array(counts)
    matching = MATCHINGS[rule](counts)
    assert matching.shape == (counts.shape[1],)
    assert matching.dtype == np.int64
    assert ((matching >= -1) & (matching < len(counts))).all()
