import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.errors import UsageError
from zerolabel.ops import permutohedral
from zerolabel.ops.permutohedral import Sums, lattice, normalised


def points(n, d, *, spread, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype) * spread


def average(features, values):
    """What a filter gives, divided by what it gives of ones: free of any factor."""
    found = lattice(features)
    return found(values) / found(torch.ones_like(values[:, :1]))


def gaussian(features):
    return (-0.5 * torch.cdist(features.double(), features.double()).square()).exp()


@given(
    d=st.integers(1, 6), n=st.integers(1, 40), spread=st.floats(0.01, 50), seed=st.integers(0, 999)
)
@settings(deadline=None, max_examples=60)
def test_every_point_lies_in_its_simplex(d, n, spread, seed):
    features = points(n, d, spread=spread, seed=seed, dtype=torch.float64)
    first, rank, shares = permutohedral._simplices(features)
    assert (first.sum(1) == 0).all()
    assert (first % (d + 1) == 0).all()
    assert (rank.sort(1).values == torch.arange(d + 1)).all()
    assert (shares > -1e-9).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(n, dtype=torch.float64))
    # The corners, weighted by the shares, give the point back: its distances are kept up to the
    # unit of the lattice.
    k = torch.arange(d + 1)
    corners = first[:, None] + k[:, None] - (d + 1) * (rank[:, None] > d - k[:, None])
    lifted = (shares[..., None] * corners).sum(1)
    unit = (d + 1) * math.sqrt(2 / 3)
    moved, expected = lifted - lifted[:1], features - features[:1]
    torch.testing.assert_close(moved @ moved.T, unit**2 * expected @ expected.T)


def by_name(features, values):
    """The same three steps with a dictionary of corners, which are named by all coordinates."""
    d = features.shape[1]
    first, rank, shares = permutohedral._simplices(features)
    k = torch.arange(d + 1)
    corners = first[:, None] + k[:, None] - (d + 1) * (rank[:, None] > d - k[:, None])
    names = [[tuple(corner) for corner in point] for point in corners.tolist()]
    held = {}
    for point, weights, value in zip(names, shares, values, strict=True):
        for name, weight in zip(point, weights, strict=True):
            held[name] = held.get(name, 0) + weight * value
    for j in range(d + 1):
        step = [1 - (d + 1) * (i == j) for i in range(d + 1)]
        blurred = {}
        for name, value in held.items():
            ahead = tuple(c + s for c, s in zip(name, step, strict=True))
            behind = tuple(c - s for c, s in zip(name, step, strict=True))
            blurred[name] = value + 0.5 * (held.get(ahead, 0) + held.get(behind, 0))
        held = blurred
    rows = [[held[name] for name in point] for point in names]
    return torch.stack([w @ torch.stack(row) for w, row in zip(shares, rows, strict=True)])


@given(
    d=st.integers(1, 5), n=st.integers(1, 30), spread=st.floats(0.01, 3), seed=st.integers(0, 999)
)
@settings(deadline=None, max_examples=60)
def test_equal_to_a_dictionary_of_corners(d, n, spread, seed):
    features = points(n, d, spread=spread, seed=seed, dtype=torch.float64)
    values = torch.rand(n, 2, dtype=torch.float64)
    torch.testing.assert_close(lattice(features)(values), by_name(features, values))


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_close_to_the_sum_over_all_pairs(d):
    features = points(2000, d, spread=1.0)
    values = features[:, :1].sin()

    def distance(deviation):
        kernel = gaussian(features / deviation)
        wanted = kernel @ values.double() / kernel.sum(1, keepdim=True)
        return (average(features, values) - wanted).abs().mean()

    kernel = gaussian(features)
    moved = (kernel @ values.double() / kernel.sum(1, keepdim=True) - values).abs().mean()
    assert distance(1) < 0.1 * moved  # 0.05 of it in one dimension, 0.08 in five
    assert distance(1) < distance(0.8)
    assert distance(1) < distance(1.25)


def test_far_points_do_not_mix_and_equal_ones_share():
    features = torch.tensor([[0.0, 0], [0, 0], [60, 60]])
    found = average(features, torch.tensor([[1.0], [3], [7]]))
    torch.testing.assert_close(found, torch.tensor([[2.0], [2], [7]]))


def test_farther_points_count_less():
    line = torch.linspace(0, 4, 41)[:, None]
    weights = lattice(line)(torch.eye(41))[0]
    assert (weights.diff() <= 1e-6).all()
    assert weights[0] > 4 * weights[20]


def test_it_is_linear():
    features = points(300, 3, spread=3.0)
    a, b = torch.rand(300, 2), torch.rand(300, 2)
    found = lattice(features)
    torch.testing.assert_close(found(2 * a - b), 2 * found(a) - found(b))


def test_channels_in_parts_change_nothing(monkeypatch):
    features, values = points(300, 5, spread=3.0), torch.rand(300, 7)
    found = lattice(features)
    whole = found(values)
    for most in (1, 4 * len(found.blur[0].index) * 3):  # one channel at a time, and three
        monkeypatch.setattr(permutohedral, "MOST", most)
        torch.testing.assert_close(found(values), whole)


def test_single_and_double_precision_agree():
    features, values = points(500, 5, spread=3.0, dtype=torch.float64), torch.rand(500, 3)
    double = average(features, values.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(
        average(features.float(), values).double(), double, atol=1e-4, rtol=0
    )


def test_the_symmetric_normalisation():
    features = points(500, 5, spread=2.0)
    plain, scaled = lattice(features), normalised(lattice(features))
    ones, values = torch.ones(500, 1), torch.rand(500, 2)
    scale = plain(ones).rsqrt()
    torch.testing.assert_close(scaled(values), scale * plain(scale * values))


def test_sums_are_a_sparse_matrix():
    dense = torch.tensor([[0, 2.0, 0.5], [1, 0, 0]])
    values = torch.rand(3, 4)
    ragged = Sums(
        torch.tensor([1, 2, 0], dtype=torch.int32),
        torch.tensor([2, 0.5, 1]),
        torch.tensor([0, 2], dtype=torch.int32),
    )
    even = Sums(torch.tensor([[1, 2], [0, 0]], dtype=torch.int32), torch.tensor([[2, 0.5], [1, 0]]))
    for sums in (ragged, even):
        torch.testing.assert_close(sums(values), dense @ values)


def test_one_point():
    found = normalised(lattice(torch.zeros(1, 5)))(torch.tensor([[3.0, 4]]))
    torch.testing.assert_close(found, torch.tensor([[3.0, 4]]))


def test_points_too_far_apart_are_refused():
    features = torch.from_numpy(np.array([[0.0] * 5, [1e6] * 5]))
    with pytest.raises(UsageError, match="larger standard deviations"):
        lattice(features)
