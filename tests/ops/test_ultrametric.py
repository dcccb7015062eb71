"""Arcs, the merge tree and the ultrametric map against a search through everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference.ultrametric import arcs_by_borders, merge_by_search

from zerolabel.errors import UsageError
from zerolabel.ops.arcs import UNIT, find_arcs, paint_arcs
from zerolabel.ops.edges import edge_strength
from zerolabel.ops.regions import components
from zerolabel.ops.ultrametric import MergeTree, merge_tree, segment_at, ultrametric_map

LABELS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 3)
)
SEEDS = st.integers(0, 1000)


def strengths(shape, seed, *, n=8, coarse=False):
    """Random strengths that 1/UNIT can hold; coarse ones have many equals."""
    top = 3 if coarse else UNIT
    values = np.random.default_rng(seed).integers(1, top, (*shape, n), endpoint=True)
    return (2 * values / UNIT).astype(np.float64)  # even: the mean over two pixels is whole too


def same_parts(one, other):
    """Whether two maps part the image alike, whatever the numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


@given(labels=LABELS, seed=SEEDS, n=st.sampled_from([1, 4, 8]))
@settings(deadline=None, max_examples=60)
def test_arcs_equal_a_walk_along_every_border(labels, seed, n):
    regions, strength = components(labels, connectivity=4), strengths(labels.shape, seed, n=n)
    found, expected = find_arcs(regions, strength), arcs_by_borders(regions, strength)
    assert [tuple(pair) for pair in found.pairs.tolist()] == sorted(expected)
    for pair, length, total in zip(found.pairs, found.lengths, found.totals, strict=True):
        assert length == len(expected[tuple(pair.tolist())])
        assert total == round(sum(expected[tuple(pair.tolist())]) * UNIT)


@given(labels=LABELS, seed=SEEDS, coarse=st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_tree_equals_a_search_for_the_weakest_pair(labels, seed, coarse):
    strength = strengths(labels.shape, seed, coarse=coarse)
    tree = merge_tree(labels, strength)
    expected, maps = merge_by_search(tree.regions, arcs_by_borders(tree.regions, strength))
    np.testing.assert_allclose(tree.heights, expected, rtol=1e-6)
    for i, height in enumerate(tree.heights):
        if i + 1 == len(maps) or tree.heights[i + 1] > height:
            assert same_parts(segment_at(tree, float(height)), maps[i])


@given(labels=LABELS, seed=SEEDS, coarse=st.booleans())
@settings(deadline=None, max_examples=60)
def test_merging_never_splits_and_heights_never_fall(labels, seed, coarse):
    tree = merge_tree(labels, strengths(labels.shape, seed, coarse=coarse))
    assert (tree.heights > 0).all()
    assert (np.diff(tree.heights) >= 0).all()
    finer = segment_at(tree, 0)
    np.testing.assert_array_equal(finer, tree.regions)
    for level in tree.levels.tolist():
        coarser = segment_at(tree, level)
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(finer))  # every segment lies in one
        assert coarser.max() < finer.max()
        np.testing.assert_array_equal(components(coarser, connectivity=4), coarser)
        finer = coarser
    assert not finer.any()
    assert not segment_at(tree, 1e9).any()


@given(labels=LABELS, seed=SEEDS, coarse=st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_map_above_a_level_is_where_its_segments_meet(labels, seed, coarse):
    tree = merge_tree(labels, strengths(labels.shape, seed, coarse=coarse))
    found = ultrametric_map(tree)
    assert (found.shape, found.dtype) == (labels.shape, np.float32)
    for level in [0.0, *tree.levels.tolist()]:
        padded = np.pad(segment_at(tree, level), (0, 1), mode="edge")
        here = padded[:-1, :-1]
        meet = (here != padded[1:, :-1]) | (here != padded[:-1, 1:]) | (here != padded[1:, 1:])
        np.testing.assert_array_equal(found > level, meet)


@given(labels=LABELS, seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_nodes_merge_once_and_make_the_next_node(labels, seed):
    tree = merge_tree(labels, strengths(labels.shape, seed))
    count = int(tree.regions.max()) + 1
    assert sorted(tree.merges.ravel().tolist()) == list(range(2 * count - 2))
    assert (tree.merges[:, 0] < tree.merges[:, 1]).all()
    assert (tree.merges[:, 1] < count + np.arange(count - 1)).all()


def test_many_regions_equal_the_search():
    rng = np.random.default_rng(5)
    labels, strength = rng.integers(0, 6, (15, 14)), strengths((15, 14), 5)
    tree = merge_tree(labels, strength)
    expected, maps = merge_by_search(tree.regions, arcs_by_borders(tree.regions, strength))
    assert len(expected) > 120
    np.testing.assert_allclose(tree.heights, expected, rtol=1e-6)
    assert same_parts(segment_at(tree, float(tree.heights[60])), maps[60])


def test_an_arc_of_two_is_the_mean_by_length_not_of_means():
    labels = np.array([[0, 1], [0, 1], [0, 2], [3, 3]])
    strength = np.zeros((4, 2, 1))
    strength[..., 0] = [[0.5, 0.5], [0.5, 0.5], [0.8, 0.8], [0.9, 0.9]]
    strength[1:3, 1] = -0.25 + 0.3  # 1 and 2 are alike
    tree = merge_tree(labels, strength)
    first, second, last = tree.heights.tolist()
    assert first == pytest.approx(0.05, abs=1e-6)
    # 0 against 1 and 2 together: three borders, 0.5, (0.5 + 0.05) / 2 and (0.8 + 0.05) / 2
    assert second == pytest.approx((0.5 + 0.275 + 0.425) / 3, abs=1e-6)
    assert last > second
    np.testing.assert_array_equal(segment_at(tree, first), [[0, 1], [0, 1], [0, 1], [2, 2]])


def test_a_planted_edge_outlives_those_that_are_not_there():
    y, x = np.mgrid[:48, :64]
    truth = x + y // 3 > 36
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
    tree = merge_tree(
        np.where(truth, 100, 0) + y // 12 * 10 + x // 16, edge_strength(truth + noise)
    )
    assert len(tree.heights) > 15
    assert same_parts(segment_at(tree, float(tree.heights[-2])), truth)
    assert tree.heights[-1] > 1.8 * tree.heights[-2]
    found = ultrametric_map(tree)
    assert found[24, 24:36].max() == tree.heights[-1]


def test_an_edge_across_an_arc_does_not_count():
    labels = np.repeat([0, 1], 10)[:, None].repeat(20, axis=1)  # one above the other
    upright = np.zeros((20, 20, 8))
    upright[..., 4] = 1
    assert merge_tree(labels, upright).heights[0] == pytest.approx(1 / UNIT)
    assert merge_tree(labels.T, upright).heights[0] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 4)])
def test_one_region_has_no_merges(shape):
    tree = merge_tree(np.full(shape, 7), np.ones((*shape, 8)))
    assert (len(tree.merges), len(tree.levels), len(tree.arcs)) == (0, 0, 0)
    assert not segment_at(tree, 0).any()
    assert not ultrametric_map(tree).any()


def test_a_row_of_pixels():
    tree = merge_tree(np.array([[0, 1, 2]]), np.array([0.2, 0.4, 1.0])[None, :, None])
    np.testing.assert_allclose(tree.heights, [0.3, 0.7], atol=1e-6)
    np.testing.assert_allclose(ultrametric_map(tree), [[0.3, 0.7, 0]], atol=1e-6)


@pytest.mark.parametrize("border", range(4))
def test_a_corner_has_the_largest_of_its_four_borders(border):
    regions = np.array([[0, 1], [2, 3]], np.int32)
    pairs = find_arcs(regions, np.ones((2, 2, 1))).pairs
    values = np.full(4, 0.25, np.float32)
    values[border] = 0.5
    painted = paint_arcs(regions, pairs, values)
    assert painted[0, 0] == 0.5
    assert painted[1, 1] == 0


def test_a_constant_image_keeps_its_regions_at_level_0_only():
    labels = np.arange(12).reshape(3, 4)
    tree = merge_tree(labels, edge_strength(np.ones((3, 4))))
    np.testing.assert_array_equal(segment_at(tree, 0), labels)
    assert not segment_at(tree, float(tree.levels[0])).any()
    assert isinstance(tree, MergeTree)


@pytest.mark.parametrize(
    "strength",
    [
        np.zeros((4, 4)),
        np.zeros((4, 3, 8)),
        np.zeros((4, 4, 0)),
        np.full((4, 4, 1), -1.0),
        np.full((4, 4, 1), np.nan),
    ],
)
def test_what_is_no_strength_is_refused(strength):
    with pytest.raises(UsageError, match="Expected"):
        merge_tree(np.zeros((4, 4), np.int64), strength)
