"""Pictures of maps: an even scale of colours, overlays, outlines and tiles."""

import numpy as np
import pytest

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import oklab
from zerolabel.outputs.heat import (
    BAR,
    GAP,
    LINE,
    beside,
    binary,
    contour,
    heat,
    heat_overlay,
    scale,
    shades,
    strip,
)

PHOTO = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)


def test_lightness_rises_evenly_from_dark_to_bright():
    light = oklab(shades())[:, 0]
    steps = np.diff(light)
    assert shades().shape == (256, 3)
    assert steps.min() > 0
    assert steps.max() < 2.5 * steps.mean()  # of whole grey levels
    assert np.abs(light - np.linspace(light[0], light[-1], 256)).max() < 0.005
    assert light[0] < 0.2
    assert light[-1] > 0.95


def test_heat_takes_the_nearest_shade():
    values = np.array([[0.0, 1.0, 0.5], [-1.0, 2.0, np.nan]])
    drawn = heat(values)
    table = shades()
    assert (drawn[0] == table[[0, 255, 128]]).all()
    assert (drawn[1] == table[[0, 255, 0]]).all()


def test_an_overlay_is_stronger_where_the_value_is_higher():
    values = np.zeros((30, 50), np.float32)
    values[:, 25:] = 1.0
    drawn = heat_overlay(PHOTO, values).astype(int)
    for half, share in [(slice(0, 25), 0.25), (slice(25, 50), 0.8)]:
        expected = PHOTO[:, half] * (1 - share) + heat(values)[:, half] * share
        assert np.abs(drawn[:, half] - expected).max() <= 2


def test_an_outline_runs_inside_the_mask_and_leaves_the_rest():
    mask = np.zeros((30, 50), bool)
    mask[10:20, 15:40] = True
    drawn = contour(PHOTO, mask)
    line = (drawn == LINE).all(-1)
    expected = mask.copy()
    expected[11:19, 16:39] = False
    assert (line == expected).all()
    assert (drawn[12:18, 17:38] == PHOTO[12:18, 17:38]).all()
    assert (drawn[:8] == PHOTO[:8]).all()
    assert (drawn[9, 15:40] == PHOTO[9, 15:40] // 3).all()  # the dark line around


def test_an_outline_is_not_drawn_along_the_edge_of_the_photo():
    assert (contour(PHOTO, np.ones((30, 50), bool)) == PHOTO).all()
    assert (contour(PHOTO, np.zeros((30, 50), bool)) == PHOTO).all()


def test_masks_are_white_on_black():
    drawn = binary(np.array([[True, False]]))
    assert drawn.tolist() == [[[255] * 3, [0] * 3]]


def test_pictures_stand_side_by_side_with_their_scale():
    plain = beside([PHOTO, PHOTO])
    assert plain.shape == (30, 100 + GAP, 3)
    assert (plain[:, :50] == PHOTO).all()
    assert (plain[:, 50 + GAP :] == PHOTO).all()
    bar = scale(30, (0.0, 0.0123))
    assert (bar[0, :BAR] == shades()[-1]).all()
    assert (bar[-1, :BAR] == shades()[0]).all()
    assert (bar[:, BAR:] < 200).any()  # there are numbers
    wide = beside([PHOTO, PHOTO], limits=(0.0, 0.0123))
    assert (wide[:, 100 + 2 * GAP :] == bar).all()


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (7, 4, 2)])
def test_a_strip_has_a_labelled_tile_for_every_picture(count, columns, rows):
    tiles = {f"head{i}": np.full((30, 50, 3), 10 + i, np.uint8) for i in range(count)}
    drawn = strip(tiles)
    assert drawn.shape == (rows * (50 + GAP) - GAP, columns * (50 + GAP) - GAP, 3)
    for i in range(count):
        left, top = i % 4 * (50 + GAP), i // 4 * (50 + GAP)
        assert (drawn[top + 20 : top + 50, left : left + 50] == 10 + i).all()
        assert (drawn[top : top + 20, left : left + 50] < 128).any()


def test_sizes_must_agree():
    for draw in (heat_overlay, contour):
        with pytest.raises(UsageError, match="one size"):
            draw(PHOTO, np.zeros((30, 49), bool))
