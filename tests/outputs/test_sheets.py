import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerolabel.outputs.sheets import KEPT, PALE, WIDEST, region_tile

RED, GREEN = (200, 0, 0), (0, 120, 0)
FADED = int(KEPT * 120 + (1 - KEPT) * PALE)  # what the green of the surroundings becomes


def scene(shape, box, *, second=None):
    """A green photo with a red box of category 3 in it."""
    image = np.full((*shape, 3), GREEN, np.uint8)
    labels = np.zeros(shape, np.uint8)
    for top, left, bottom, right in (box, second) if second else (box,):
        image[top:bottom, left:right] = RED
        labels[top:bottom, left:right] = 3
    return image, labels


def test_the_region_keeps_its_colours_and_the_rest_fades():
    tile = region_tile(*scene((100, 120), (30, 40, 70, 90)), 3)
    middle, corner = tile[tile.shape[0] // 2, tile.shape[1] // 2], tile[0, 0]
    assert tuple(middle) == RED
    assert corner[1] == FADED
    assert tuple(corner) != GREEN
    # 40 x 50 with 12 % around it on every side
    assert tile.shape == (50, 62, 3)


def test_the_largest_region_is_shown():
    tile = region_tile(*scene((100, 200), (10, 10, 20, 20), second=(40, 100, 80, 160)), 3)
    assert tile.shape[0] > 40
    red = (tile[..., 0] == 200) & (tile[..., 1] == 0)
    assert red.sum() == 40 * 60


def test_surroundings_are_added_to_slivers_and_specks():
    sliver = region_tile(*scene((300, 400), (150, 50, 153, 350)), 3)
    assert sliver.shape[1] / sliver.shape[0] <= WIDEST + 0.02
    speck = region_tile(*scene((300, 400), (0, 0, 1, 1)), 3)
    assert min(speck.shape[:2]) == 24


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 5000), (2, 2)])
def test_any_shape(shape):
    image, labels = scene(shape, (0, 0, 1, 1))
    tile = region_tile(image, labels, 3, side=100)
    assert tile.dtype == np.uint8
    assert max(tile.shape[:2]) <= 100
    assert min(tile.shape[:2]) >= 1


def test_a_small_region_of_a_large_photo_stays_sharp():
    rng = np.random.default_rng(0)
    image, labels = scene((2000, 3000), (1000, 1000, 1150, 1150))
    image[1000:1150, 1000:1150] = 255 * rng.integers(0, 2, (150, 150, 1))
    tile = region_tile(image, labels, 3)
    inside = tile[60:120, 60:120].astype(int)
    assert np.abs(np.diff(inside, axis=1)).mean() > 100  # neighbouring pixels still differ


def test_a_region_too_small_for_the_search_shows_the_whole_photo():
    image, labels = scene((3000, 3000), (1, 1, 2, 2))
    assert region_tile(image, labels, 3, side=90).shape == (90, 90, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_tile_is_a_piece_of_the_photo(rows, cols, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = rng.integers(0, 3, (rows, cols))
    image = np.repeat(rng.integers(0, 256, (rows, cols, 1), np.uint8), 3, axis=2)
    category = int(labels[rng.integers(rows), rng.integers(cols)])
    tile = region_tile(image, labels, category)
    assert tile.shape[0] <= rows
    assert tile.shape[1] <= cols
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], tile.shape[:2])
    pale = (KEPT * windows + (1 - KEPT) * PALE).astype(np.uint8)
    same = (tile[..., 0] == windows) | (tile[..., 0] == pale)
    assert same.all(axis=(2, 3)).any()
