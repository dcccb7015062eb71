"""Edge strength against a look at every pixel, and what a planted edge must give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.ultrametric import edges_by_pixels

from zerolabel.errors import UsageError
from zerolabel.ops import edges
from zerolabel.ops.edges import ORIENTATIONS, STEPS, edge_strength, opponents


def half_plane(k, side=31):
    """True below a line through the middle that rises by k * 22.5 degrees to the right."""
    y, x = np.mgrid[:side, :side] - side // 2
    return (x * np.sin(np.pi * k / 8) + y * np.cos(np.pi * k / 8) > 0.01).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "radius", "bins"), [((7, 9), 3, 4), ((5, 4), 6, 8), ((1, 6), 2, 3), ((6, 1), 1, 2)]
)
def test_equals_a_look_at_every_pixel(size, radius, bins):
    rng = np.random.default_rng(radius)
    shades = rng.integers(0, STEPS * (bins - 1) + 1, size)
    shades.flat[:2] = 0, STEPS * (bins - 1)
    found = np.zeros((ORIENTATIONS, *size), np.float32)
    padded = np.pad(shades, radius + 1, mode="symmetric")
    for bin_ in range(bins):
        counts = (STEPS - np.abs(padded - STEPS * bin_)).clip(0).astype(np.int16)
        edges._add_differences(counts, radius, found, margin=radius + 1)
    expected = edges_by_pixels(shades, radius=radius, bins=bins, steps=STEPS)
    np.testing.assert_allclose(np.moveaxis(found, 0, 2), expected, atol=1e-5)


def test_an_image_is_the_mean_over_bands_and_radii_whatever_the_strips(monkeypatch):
    image = np.random.default_rng(0).random((40, 30, 3))
    whole = edge_strength(image, radii=(2, 5))
    assert (whole.shape, whole.dtype) == ((40, 30, 8), np.float32)
    parts = [edge_strength(image[..., c], radii=[r]) for c in range(3) for r in (2, 5)]
    np.testing.assert_allclose(whole, np.mean(parts, axis=0), atol=1e-6)
    monkeypatch.setattr(edges, "STRIP", 90)
    np.testing.assert_array_equal(edge_strength(image, radii=(2, 5)), whole)


def test_values_are_spread_from_the_1st_to_the_99th_percentile_with_steps_between_bins():
    band = np.random.default_rng(2).normal(size=(12, 11)) * 50 + 7
    low, high = np.percentile(band, (1, 99))
    shades = np.rint(((band - low) / (high - low)).clip(0, 1) * STEPS * 7)
    expected = edges_by_pixels(shades, radius=3, bins=8, steps=STEPS)
    np.testing.assert_allclose(edge_strength(band, radii=[3]), expected, atol=2e-2)


@pytest.mark.parametrize("k", range(ORIENTATIONS))
def test_an_edge_is_strongest_in_its_own_direction(k):
    strength = edge_strength(half_plane(k))
    near = strength[13:18, 13:18].max(axis=(0, 1))
    assert near.argmax() == k
    assert near[k] == pytest.approx(1, abs=1e-5)
    assert near[(k + 4) % 8] < 0.15
    assert strength[0 if k < 4 else -1, 0].max() < 0.01  # far from the line


@given(turns=st.integers(1, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_turning_the_image_turns_the_strength(turns, seed):
    image = np.random.default_rng(seed).random((9, 12))
    turned = edge_strength(np.rot90(image, turns), radii=[3])
    expected = np.roll(np.rot90(edge_strength(image, radii=[3]), turns), 4 * turns, axis=2)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_a_soft_shade_is_a_weak_edge_beside_a_step():
    ramp = np.tile(np.linspace(0, 1, 64), (20, 1))
    step = np.tile(np.repeat([0.0, 1.0], 32), (20, 1))
    assert edge_strength(ramp)[5:-5, 8:-8].max() < 0.3 * edge_strength(step).max()


def test_noise_below_the_span_is_weak_and_a_constant_is_nothing():
    noise = 0.5 + 0.002 * np.random.default_rng(0).random((20, 20))
    assert edge_strength(noise, span=1).max() < 0.02 < edge_strength(noise).max()
    assert not edge_strength(np.full((6, 5, 12), 300.0)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.bool_])
def test_types_and_the_unit_do_not_matter(dtype):
    plane = half_plane(1)
    expected = edge_strength(plane)
    np.testing.assert_array_equal(edge_strength(plane.astype(dtype)), expected)
    if dtype != np.bool_:
        np.testing.assert_array_equal(edge_strength(plane.astype(dtype) * 100), expected)


def test_opponents_of_known_colours():
    image = np.uint8([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]])
    expected = [[0, 0.5, 0.5], [1, 0.5, 0.5], [1 / 3, 1, 0.75], [1 / 3, 0.5, 0]]
    np.testing.assert_allclose(opponents(image)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "settings_"),
    [
        (np.zeros((0, 4, 3)), {}),
        (np.zeros((2, 3, 4, 3)), {}),
        (np.zeros((4, 4), complex), {}),
        (np.zeros((4, 4)), {"radii": ()}),
        (np.zeros((4, 4)), {"radii": (0, 3)}),
        (np.zeros((4, 4)), {"radii": (31,)}),
        (np.zeros((4, 4)), {"bins": 1}),
        (np.full((4, 4), np.nan), {}),
    ],
)
def test_what_is_no_image_is_refused(image, settings_):
    with pytest.raises(UsageError, match="Expected"):
        edge_strength(image, **settings_)
