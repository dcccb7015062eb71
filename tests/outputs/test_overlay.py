import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.overlay import colourise, jpeg, overlay, thumbnail


def _world(h: int, w: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    return image, rng.integers(0, k + 1, (h, w)).astype(np.uint8)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5), st.floats(0, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_only_labelled_pixels_change(h: int, w: int, k: int, alpha: float, outline: bool) -> None:
    image, labels = _world(h, w, k)
    labels[labels == k] = 255
    before = image.copy()
    result = overlay(image, labels, colours=palette(k), alpha=alpha, outline=outline)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[labels == 255], image[labels == 255])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("k", [4, 300])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_colours_are_blended(k: int, alpha: float) -> None:
    image, labels = _world(9, 11, 4)
    labels[labels == 4] = 3
    colours = palette(k)
    result = overlay(image, labels, colours=colours, alpha=alpha, outline=False)
    expected = image * (1 - alpha) + colours[labels] * alpha
    assert np.abs(result - expected).max() <= 1


def test_borders_are_white_and_nothing_else_is() -> None:
    labels = np.zeros((6, 8), dtype=np.uint16)
    labels[:, 4:] = 1
    result = overlay(np.zeros((6, 8, 3), dtype=np.uint8), labels, colours=palette(2))
    white = (result == 255).all(axis=-1)
    assert white[:, 3].all()
    assert white.sum() == 6


def test_borders_are_thicker_on_large_images() -> None:
    labels = np.zeros((4, 4000), dtype=np.uint8)
    labels[:, 2000:] = 1
    result = overlay(np.zeros((4, 4000, 3), dtype=np.uint8), labels, colours=palette(2))
    assert (result[0] == 255).all(axis=-1).sum() == 5


def test_mistakes_are_refused() -> None:
    image, labels = _world(4, 5, 2)
    with pytest.raises(UsageError, match=r"\(4, 5, 3\).*\(5, 4\)"):
        overlay(image, labels.T, colours=palette(2))
    with pytest.raises(UsageError, match="alpha"):
        overlay(image, labels, colours=palette(3), alpha=1.5)


def test_colourise_leaves_the_rest_black() -> None:
    labels = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    colours = palette(2)
    np.testing.assert_array_equal(colourise(labels, colours), [[*colours, [0, 0, 0], [0, 0, 0]]])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_thumbnails_fit_and_keep_their_shape(h: int, w: int, side: int) -> None:
    small = thumbnail(np.full((h, w, 3), 77, dtype=np.uint8), side=side)
    assert max(small.shape[:2]) == min(side, max(h, w))
    assert abs(small.shape[0] - max(1.0, small.shape[1] * h / w)) <= 1 + h / w
    assert (small == 77).all()


def test_jpeg_round_trip() -> None:
    image = np.full((9, 13, 3), (200, 100, 50), dtype=np.uint8)
    back = np.asarray(Image.open(io.BytesIO(jpeg(image))))
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).max() <= 4
    assert len(jpeg(_world(64, 64, 2)[0], 20)) < len(jpeg(_world(64, 64, 2)[0], 90))
