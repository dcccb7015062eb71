import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference.graphs import components_by_walking

from zerolabel.errors import UsageError
from zerolabel.ops.regions import boxes, components, largest_component, paint, sizes

LABELS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 3)
)


@given(labels=LABELS, connectivity=st.sampled_from([4, 8]))
@settings(deadline=None)
def test_components_equal_a_walk_over_the_grid(labels, connectivity):
    ids = components(labels, connectivity=connectivity)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, components_by_walking(labels, connectivity))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_of_a_large_grid(connectivity):
    labels = np.random.default_rng(0).integers(0, 3, (60, 47)).astype(np.uint8)
    ids = components(labels, connectivity=connectivity)
    np.testing.assert_array_equal(ids, components_by_walking(labels, connectivity))


def test_a_checkerboard_falls_apart_only_without_corners():
    board = np.indices((6, 7)).sum(axis=0) % 2
    np.testing.assert_array_equal(components(board, connectivity=4).ravel(), np.arange(42))
    np.testing.assert_array_equal(components(board, connectivity=8), board)


def test_rows_do_not_wrap_around():
    labels = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(components(labels), [[0, 0, 1], [2, 0, 0], [2, 0, 0]])


def test_components_of_components_are_themselves():
    ids = components(np.random.default_rng(1).integers(0, 4, (20, 30)))
    np.testing.assert_array_equal(components(ids), ids)


@given(labels=LABELS)
@settings(deadline=None)
def test_sizes_and_boxes_equal_a_look_at_every_region(labels):
    ids = components(labels)
    found = [np.nonzero(ids == region) for region in range(ids.max() + 1)]
    expected = [[r.min(), c.min(), r.max() + 1, c.max() + 1] for r, c in found]
    np.testing.assert_array_equal(sizes(ids), [len(r) for r, _ in found])
    np.testing.assert_array_equal(boxes(ids), expected)
    assert sizes(ids).sum() == ids.size


def test_an_id_without_cells_has_no_size_and_an_empty_box():
    ids = np.array([[2, 2], [0, 2]])
    np.testing.assert_array_equal(sizes(ids), [1, 0, 3])
    np.testing.assert_array_equal(boxes(ids), [[1, 0, 2, 1], [0, 0, 0, 0], [0, 0, 2, 2]])


@given(labels=LABELS)
@settings(deadline=None)
def test_painting_the_first_label_of_every_region_restores_the_labels(labels):
    ids = components(labels)
    first = np.unique(ids, return_index=True)[1]
    np.testing.assert_array_equal(paint(ids, labels.ravel()[first]), labels)


def test_paint_keeps_the_type_of_the_values_and_takes_vectors():
    ids = np.array([[0, 1], [1, 1]], np.int32)
    assert paint(ids, np.array([7, 255], np.uint8)).dtype == np.uint8
    np.testing.assert_array_equal(paint(ids, np.eye(2))[0, 1], [0, 1])


def test_paint_refuses_too_few_values():
    with pytest.raises(UsageError, match="one value per region"):
        paint(np.array([[0, 2]]), np.array([1, 2]))


@given(mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(deadline=None)
def test_the_largest_component_is_a_whole_piece_of_the_mask(mask):
    kept = largest_component(mask)
    ids = components_by_walking(mask, 8)
    pieces = [ids == i for i in range(ids.max() + 1) if mask[ids == i].all()]
    assert kept.dtype == np.bool_
    if not pieces:
        assert not kept.any()
    else:
        np.testing.assert_array_equal(kept, max(pieces, key=np.sum))


def test_the_largest_component_depends_on_connectivity():
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)
    assert largest_component(mask, connectivity=8).sum() == 2
    np.testing.assert_array_equal(
        largest_component(mask, connectivity=4), mask & [[0], [0], [0], [1]]
    )


@pytest.mark.parametrize("bad", [np.zeros(3, int), np.zeros((0, 3), int), np.zeros((2, 2))])
def test_refuses_what_is_not_a_grid_of_integers(bad):
    for function in (components, sizes, boxes):
        with pytest.raises(UsageError, match="grid"):
            function(bad)


def test_refuses_other_connectivities_and_negative_ids():
    with pytest.raises(UsageError, match="found 6"):
        components(np.zeros((2, 2), int), connectivity=6)
    for function in (sizes, boxes):
        with pytest.raises(UsageError, match="from -1"):
            function(np.array([[0, -1]]))
