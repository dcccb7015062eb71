"""Vectors as points of a plane: what is near stays near, nothing flips, nothing is NaN."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from zerolabel.errors import UsageError
from zerolabel.ops.embedding import EMBEDDINGS, embed


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(count=3, each=20, channels=16, seed=0):
    """Directions around a few that are far from each other, and which one each belongs to."""
    centres = torch.linalg.qr(draw(channels, count, seed=seed))[0].T * 5
    labels = torch.arange(count).repeat_interleave(each)
    return centres[labels] + 0.3 * draw(count * each, channels, seed=seed + 1), labels.numpy()


@pytest.mark.parametrize("seed", range(6))
def test_the_plane_is_that_of_scikit_learn_and_axes_point_to_their_largest_entry(seed):
    x = F.normalize(draw(50, 9, seed=seed).double(), dim=1).numpy()
    pca = PCA(2).fit(x)
    axes = pca.components_
    axes = axes * np.sign(axes[[0, 1], np.abs(axes).argmax(1)])[:, None]
    found = embed(draw(50, 9, seed=seed))
    np.testing.assert_allclose(found.points, (x - x.mean(0)) @ axes.T, atol=1e-6)
    np.testing.assert_allclose(found.shares, pca.explained_variance_ratio_, atol=1e-6)


def test_the_length_of_a_vector_does_not_count():
    x = draw(30, 8)
    lengths = draw(30, 1, seed=1).exp()
    np.testing.assert_allclose(embed(x * lengths).points, embed(x).points, atol=1e-5)


def test_signs_do_not_depend_on_the_order_of_the_vectors():
    x = draw(40, 12)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(embed(x[order]).points, embed(x).points[order], atol=1e-9)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_groups_stay_together(name):
    x, labels = clusters()
    points = embed(x, name=name).points
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()


def test_tsne_repeats_itself_and_follows_its_seed_and_has_no_axes():
    x, _ = clusters(each=8)
    found = embed(x, name="tsne", seed=1)
    assert found.shares is None
    np.testing.assert_array_equal(found.points, embed(x, name="tsne", seed=1).points)


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize(
    "x",
    [
        torch.ones(1, 5),
        torch.zeros(1, 1),
        torch.zeros(6, 3),
        torch.ones(49, 5) * 1.7,
        draw(1, 384).expand(100, 384) * draw(100, 1).exp(),  # one direction, rounded
        draw(2, 7),
        draw(4, 1),
        draw(3, 7)[torch.tensor([0, 0, 0, 1, 1, 2])],
    ],
    ids=["one", "one-zero", "zeros", "equal", "one-direction", "two", "one-channel", "repeated"],
)
def test_odd_vectors_have_finite_points(name, x):
    found = embed(x, name=name)
    assert found.points.shape == (len(x), 2)
    assert np.isfinite(found.points).all()
    alike = bool((F.normalize(x, dim=1) - F.normalize(x[:1], dim=1)).abs().max() < 1e-5)
    assert alike == (not found.points.any())
    if found.shares is not None:
        assert 0 <= found.shares[1] <= found.shares[0] <= 1 + 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(2, 12), st.integers(0, 100))
def test_no_plane_holds_more_than_the_principal_one(n, channels, seed):
    x = F.normalize(draw(n, channels, seed=seed).double(), dim=1)
    axes = torch.linalg.qr(draw(channels, 2, seed=seed + 1).double())[0]
    other = ((x - x.mean(0)) @ axes).square().sum()
    assert np.square(embed(x).points).sum() >= float(other) - 1e-9


def test_wrong_names_and_a_missing_library_are_explained(monkeypatch):
    with pytest.raises(UsageError, match="Did you mean 'tsne'"):
        embed(draw(5, 3), name="t-sne")
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UsageError, match=r"zerolabel\[baselines\]"):
        embed(draw(5, 3), name="tsne")
