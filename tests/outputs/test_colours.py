import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import MAX_COLOURS, oklab, palette


@given(st.integers(0, 700), st.integers(0, 700))
@settings(max_examples=30, deadline=None)
def test_colour_i_does_not_depend_on_k(a: int, b: int) -> None:
    few, many = sorted((a, b))
    np.testing.assert_array_equal(palette(few), palette(many)[:few])


@pytest.mark.parametrize(("k", "least"), [(8, 0.15), (30, 0.07), (64, 0.05), (255, 0.025)])
def test_any_two_colours_can_be_told_apart(k: int, least: float) -> None:
    lab = oklab(palette(k))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 9 * np.eye(k)
    assert distance.min() > least  # 0.02 is about the smallest difference that is seen


def test_colours_show_on_white_and_on_dark_pages() -> None:
    lightness = oklab(palette(3000))[:, 0]
    assert lightness.min() >= 0.55
    assert lightness.max() <= 0.85


def test_the_largest_palette_has_no_colour_twice() -> None:
    colours = palette(MAX_COLOURS)
    assert colours.shape == (MAX_COLOURS, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == MAX_COLOURS


def test_first_colours_stay_what_they_are() -> None:
    first = [[66, 133, 212], [252, 192, 0], [204, 60, 84], [0, 144, 36]]
    assert palette(4).tolist() == first


@pytest.mark.parametrize("k", [-1, MAX_COLOURS + 1])
def test_impossible_sizes_are_refused(k: int) -> None:
    with pytest.raises(UsageError, match="0 to 65535"):
        palette(k)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (1, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 0, 255), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_oklab_agrees_with_published_values(
    rgb: tuple[int, int, int], lab: tuple[float, float, float]
) -> None:
    np.testing.assert_allclose(oklab(np.array(rgb, dtype=np.uint8)), lab, atol=1e-4)
