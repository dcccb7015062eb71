import numpy as np
import pytest

from zerolabel.data.synthetic import directions, world


@pytest.mark.parametrize("categories", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_every_category_occurs_and_no_other(categories, seed):
    samples = world(categories, images=6, seed=seed)
    labels = np.stack([sample.load_label() for sample in samples])
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == set(range(categories))
    for label in labels:
        shares = np.unique(label, return_counts=True)[1] / label.size
        assert len(shares) <= 4
        assert shares.min() > 0.02


def test_worlds_are_deterministic_and_differ_by_seed():
    def pixels(seed):
        return np.stack([sample.load() for sample in world(4, images=3, seed=seed)])

    assert np.array_equal(pixels(0), pixels(0))
    assert not np.array_equal(pixels(0), pixels(1))
    first, again = world(4, images=3), world(4, images=3)
    assert [s.digest() for s in first] == [s.digest() for s in again]
    assert [s.id for s in first] == ["world-000.png", "world-001.png", "world-002.png"]


def test_images_and_layouts_differ():
    samples = world(4, images=8)
    assert len({sample.digest() for sample in samples}) == 8
    assert len({sample.load_label().tobytes() for sample in samples}) == 8


@pytest.mark.parametrize("size", [(32, 48), (96, 128), (100, 20)])
def test_sizes(size):
    for sample in world(3, images=2, size=size):
        assert sample.load().shape == (*size, 3)
        assert sample.load().dtype == np.uint8
        assert sample.load_label().shape == size


@pytest.mark.parametrize("seed", range(3))
def test_labels_match_the_pixels(seed):
    samples = world(6, images=8, seed=seed)
    pixels = np.concatenate([sample.load().reshape(-1, 3) for sample in samples]).astype(float)
    labels = np.concatenate([sample.load_label().ravel() for sample in samples])
    colours = np.stack([pixels[labels == k].mean(0) for k in range(6)])
    nearest = np.square(pixels[:, None] - colours).sum(-1).argmin(1)
    assert (nearest == labels).mean() > 0.85


def test_categories_differ_in_texture_and_not_only_in_colour():
    samples = world(3, images=6, noise=0)
    spectra = {}
    for sample in samples:
        grey, label = sample.load().mean(-1), sample.load_label()
        for top, left in np.ndindex(5, 7):
            window = slice(16 * top, 16 * top + 32), slice(16 * left, 16 * left + 32)
            kinds = np.unique(label[window])
            if len(kinds) == 1:
                piece = grey[window] - grey[window].mean()
                power = np.abs(np.fft.rfft2(piece * np.hanning(32)[:, None] * np.hanning(32)))
                spectra.setdefault(kinds[0], []).append(
                    np.unravel_index(power.argmax(), power.shape)
                )
    peaks = {kind: max(set(found), key=found.count) for kind, found in spectra.items()}
    assert len(set(peaks.values())) == len(peaks) == 3


def test_noise_is_what_was_asked_for():
    quiet, loud = (world(2, images=1, noise=noise)[0].load().astype(float) for noise in (0, 9))
    difference = (loud - quiet)[(quiet > 40) & (quiet < 215)]
    assert difference.std() == pytest.approx(9, abs=1)


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("cosine", [0.6, 0.85, 1.0])
def test_directions_have_the_cosine_they_were_given(k, cosine):
    x, truth = directions(k, 30, dim=16, cosine=cosine, seed=k)
    assert x.dtype == np.float32
    assert truth.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(truth), [30] * k)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    # The means of many vectors show the directions: orthogonal, and `cosine` long.
    many, truth = directions(k, 3000, dim=16, cosine=cosine, seed=k)
    means = np.stack([many[truth == j].mean(0) for j in range(k)])
    np.testing.assert_allclose(means @ means.T, cosine**2 * np.eye(k), atol=0.03)
    own = (many * (means / cosine)[truth]).sum(1)
    np.testing.assert_allclose(own, cosine, atol=0.06)


def test_directions_are_deterministic_and_shuffled():
    first, second = directions(3, 20), directions(3, 20)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], directions(3, 20, seed=1)[0])
    assert (np.diff(first[1]) != 0).sum() > 10
