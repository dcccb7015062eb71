import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.scores_by_sets import best_matching, exact_ious

from zerolabel.errors import UsageError
from zerolabel.ops.matching import (
    MATCHINGS,
    hungarian,
    hungarian_iou,
    identity,
    majority,
    majority_iou,
    match,
    nearest,
    pair_iou,
)


@st.composite
def small_counts(draw, top, most=5):
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, most))
    cells = st.lists(st.integers(0, top), min_size=columns, max_size=columns)
    return draw(st.lists(cells, min_size=rows, max_size=rows))


def table(held, missed=0):
    """Append the column of the pixels without a cluster."""
    held = np.array(held)
    column = np.broadcast_to(np.array(missed), len(held))
    return np.column_stack([held, column]).astype(np.int64)


# Sky, tree and road by three clusters; 10 pixels of the sky have none.
# Rows hold 60, 10, 10 and columns 40, 25, 5 pixels, so that the IoUs are
#   sky  30/70 = .43   20/65 = .31   0
#   tree 10/40 = .25   0             0
#   road 0             5/30 = .17    5/10 = .50
HELD = [[30, 20, 0], [10, 0, 0], [0, 5, 5]]
MISSED = [10, 0, 0]


def test_pair_iou_by_hand():
    expected = [[30 / 70, 20 / 65, 0], [10 / 40, 0, 0], [0, 5 / 30, 5 / 10]]
    np.testing.assert_allclose(pair_iou(table(HELD, MISSED)), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("rule", "held", "missed", "expected"),
    [
        # 30 + 5 beats 20 + 10 + 5 by nothing: both are 35, and sky takes the lower cluster
        ("hungarian", HELD, MISSED, [0, 1, 2]),
        # 20/65 + 10/40 + 5/10 = 1.058 beats 30/70 + 0 + 5/10 = 0.929
        ("hungarian-iou", HELD, MISSED, [1, 0, 2]),
        ("hungarian-extra", HELD, MISSED, [0, 1, 2]),
        ("drop-unmatched", HELD, MISSED, [0, 1, 2]),
        ("identity", HELD, MISSED, [0, 1, 2]),
        ("majority", HELD, MISSED, [0, 0, 2]),
        ("majority-iou", HELD, MISSED, [0, 0, 2]),
        # most pixels of cluster 0 are background, but it holds all of the cat
        ("majority", [[60, 900], [40, 0]], 0, [0, 0]),
        ("majority-iou", [[60, 900], [40, 0]], 0, [1, 0]),  # .06 .94 / .40 0
        # background 5 / 95 without a cluster: misses make its IoU small, 5/105 against 4/9
        ("majority-iou", [[5, 0], [4, 0]], [95, 0], [1, -1]),
        ("majority", [[5, 0], [4, 0]], [95, 0], [0, -1]),
        # four clusters, two classes
        ("hungarian", [[1, 5, 0, 2], [0, 4, 0, 3]], 0, [-1, 0, -1, 1]),
        ("hungarian-iou", [[1, 5, 0, 2], [0, 4, 0, 3]], 0, [-1, 0, -1, 1]),  # 5/12 + 3/9
        ("hungarian-extra", [[1, 5, 0, 2], [0, 4, 0, 3]], 0, [-1, 0, -1, 1]),
        ("identity", [[1, 5, 0, 2], [0, 4, 0, 3]], 0, [0, 1, -1, -1]),
        ("majority", [[1, 5, 0, 2], [0, 4, 0, 3]], 0, [0, 0, -1, 1]),
        # fewer clusters than classes
        ("hungarian", [[1, 5], [0, 9], [2, 2]], 0, [2, 1]),
        ("hungarian-iou", [[1, 5], [0, 9], [2, 2]], 0, [2, 1]),
        ("identity", [[1, 5], [0, 9], [2, 2]], 0, [0, 1]),
        ("majority", [[1, 5], [0, 9], [2, 2]], 0, [2, 1]),
    ],
)
def test_rules_by_hand(rule, held, missed, expected):
    assert match(table(held, missed), rule).tolist() == expected


@settings(deadline=None)
@given(small_counts(top=2))
def test_hungarian_is_the_first_of_all_best_matchings(held):
    # counts of 0..2 tie nearly always
    assert hungarian(table(held, 1)).tolist() == best_matching(held)[0]


@settings(deadline=None)
@given(small_counts(top=10**12))
def test_hungarian_is_exact_for_counts_of_whole_data_sets(held):
    assert hungarian(table(held)).tolist() == best_matching(held)[0]


@settings(deadline=None)
@given(small_counts(top=9, most=4), st.integers(0, 3))
def test_hungarian_on_iou_has_the_largest_sum(held, missed):
    counts = table(held, missed)
    ious = exact_ious(counts.tolist())
    matching = hungarian_iou(counts)
    C, K = len(ious), len(ious[0])
    n = max(C, K)
    best = max(
        sum(ious[c][k] for c, k in enumerate(order[:C]) if k < K)
        for order in itertools.permutations(range(n))
    )
    reached = sum(ious[c][k] for k, c in enumerate(matching) if c >= 0)
    assert float(best - reached) < 1e-11
    assert (matching >= 0).sum() == min(C, K)


@settings(deadline=None)
@given(small_counts(top=9), st.integers(0, 3))
def test_majority_on_iou_takes_the_first_of_the_highest(held, missed):
    counts = table(held, missed)
    ious = exact_ious(counts.tolist())
    for k, c in enumerate(majority_iou(counts)):
        column = [row[k] for row in ious]
        assert c == (column.index(max(column)) if any(column) else -1)


def test_equal_ious_go_to_the_lowest_index():
    counts = table([[2, 2], [2, 2]])
    assert hungarian_iou(counts).tolist() == [0, 1]
    assert majority_iou(counts).tolist() == [0, 0]


@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize("rule", ["hungarian", "hungarian-iou"])
def test_without_any_pixel_pairs_go_by_index(rule, classes, clusters):
    expected = [k if k < classes else -1 for k in range(clusters)]
    assert match(np.zeros((classes, clusters + 1), np.int64), rule).tolist() == expected


def test_hungarian_at_the_size_of_a_real_benchmark():
    rng = np.random.default_rng(0)
    held = rng.integers(0, 3, (27, 300)) * rng.integers(0, 3, (27, 300))
    matching = hungarian(table(held))
    matched = np.flatnonzero(matching >= 0)
    assert sorted(matching[matched]) == list(range(27))
    # every class finds one of the many cells with the highest count, the lowest possible one first
    assert (held[matching[matched], matched] == 4).all()
    assert np.flatnonzero(matching == 0)[0] == np.flatnonzero(held[0] == 4)[0]


def test_majority_is_many_to_one_with_ties_to_the_lowest_class():
    assert majority(table([[5, 1, 0, 2], [3, 7, 0, 2], [0, 7, 0, 1]])).tolist() == [0, 1, -1, 0]


@settings(deadline=None)
@given(small_counts(top=20))
def test_majority_agrees_on_at_least_as_many_pixels_as_hungarian(held):
    counts = table(held, 4)

    def agreeing(matching):
        return sum(counts[c, k] for k, c in enumerate(matching) if c >= 0)

    assert agreeing(majority(counts)) >= agreeing(hungarian(counts))


# Clusters 1 and 3 are matched; 0 lies nearer to 3, 2 as near to 1 as to 3.
FOUR = [[1, 5, 0, 2], [0, 4, 0, 3]]
CENTRES = np.array([[9.0, 1], [0, 0], [5, 0], [10, 0]], np.float32)


def test_nearest_gives_left_over_clusters_the_class_of_the_nearest_matched_one():
    assert nearest(table(FOUR), CENTRES).tolist() == [1, 0, 0, 1]
    assert match(table(FOUR), "nearest", centres=CENTRES).tolist() == [1, 0, 0, 1]


def test_nearest_is_hungarian_where_no_cluster_is_left_over():
    centres = np.zeros((3, 2))
    assert nearest(table(HELD), centres).tolist() == hungarian(table(HELD)).tolist()


@pytest.mark.parametrize(
    ("centres", "found"), [(None, "found none"), (CENTRES[:3], r"expected 4 .* shape \(3, 2\)")]
)
def test_nearest_needs_a_centre_for_every_cluster(centres, found):
    with pytest.raises(UsageError, match=found):
        match(table(FOUR), "nearest", centres=centres)


def test_identity_takes_clusters_for_classes():
    assert identity(np.zeros((2, 5), np.int64)).tolist() == [0, 1, -1, -1]
    assert identity(np.zeros((4, 3), np.int64)).tolist() == [0, 1]


@settings(deadline=None)
@given(small_counts(top=3), st.sampled_from(sorted(MATCHINGS)))
def test_every_rule_answers_for_every_cluster(held, rule):
    counts = table(held, 1)
    K = counts.shape[1] - 1
    matching = match(counts, rule, centres=np.arange(K)[:, None])
    assert matching.shape == (K,)
    assert matching.dtype == np.int64
    assert ((matching >= -1) & (matching < len(counts))).all()
