import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import patches as reference

from zerolabel.ops.regions import cells, patch_labels, patch_shares


@pytest.mark.parametrize(
    ("size", "grid"), [((7, 9), (2, 3)), ((4, 4), (4, 4)), ((2, 3), (5, 4)), ((375, 3), (28, 1))]
)
def test_every_pixel_is_in_the_patch_that_holds_its_centre(size, grid):
    found = cells(size, grid)
    for row in range(size[0]):
        for column in range(size[1]):
            r, c = reference.cell(row, column, size, grid)
            assert found[row, column] == r * grid[1] + c


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_patches_have_the_class_of_most_of_their_pixels(data):
    seed, height, width = (data.draw(st.integers(1, n)) for n in (10**6, 12, 12))
    grid = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    generator = np.random.default_rng(seed)
    label = generator.choice([0, 1, 2, 3, 254, 255], (height, width)).astype(np.uint8)
    expected = reference.patch_labels(label, grid, 3)
    np.testing.assert_array_equal(patch_labels(label, grid, 3), expected)


def test_signed_labels_and_patches_without_a_pixel():
    label = np.array([[-1, 2], [0, 300]], np.int16)
    np.testing.assert_array_equal(patch_labels(label, (2, 2), 3), [[255, 2], [0, 255]])
    found = patch_labels(np.array([[1]], np.uint8), (2, 2), 3)
    np.testing.assert_array_equal(found, [[255, 255], [255, 1]])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_patches_have_the_shares_of_their_pixels(data):
    seed, height, width = (data.draw(st.integers(1, n)) for n in (10**6, 12, 12))
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    generator = np.random.default_rng(seed)
    label = generator.choice([0, 1, 2, 3, 254, 255], (height, width)).astype(np.uint8)
    found = patch_shares(label, (h, w), 3)
    pixels = {}
    for row in range(height):
        for column in range(width):
            cell = reference.cell(row, column, label.shape, (h, w))
            pixels.setdefault(cell, []).append(label[row, column])
    assert found.shape == (3, h, w)
    assert found.dtype == np.float32
    for (row, column), inside in pixels.items():
        shares = [np.mean(np.equal(inside, k)) for k in range(3)]
        np.testing.assert_allclose(found[:, row, column], shares, rtol=1e-6)


def test_a_patch_without_a_pixel_has_that_of_the_nearest_one():
    label = np.array([[0, 1], [255, 1]], np.uint8)
    found = patch_shares(label, (4, 3), 2)
    nearest = label[np.ix_([0, 0, 1, 1], [0, 1, 1])]
    np.testing.assert_array_equal(found, [nearest == 0, nearest == 1])
