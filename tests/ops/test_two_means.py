import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.two_means import error, least_error
from sklearn.cluster import KMeans

from zerolabel.errors import UsageError
from zerolabel.ops.two_means import two_means

WHOLE = st.lists(st.integers(-9, 9), max_size=9)
FLOATS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=8)


def split(values, dtype=torch.float64):
    x = torch.tensor(values, dtype=dtype)
    return (x > two_means(x)).tolist()


@given(values=WHOLE)
@settings(deadline=None)
def test_no_other_partition_of_whole_numbers_has_a_smaller_error(values):
    above = split(values)
    if len(set(values)) < 2:
        assert all(above)
    else:
        assert set(above) == {True, False}
        assert error(values, above) == least_error(values)


@given(values=FLOATS)
@settings(deadline=None)
def test_no_other_partition_of_any_numbers_has_a_smaller_error(values):
    assert error(values, split(values)) <= least_error(values) + 1e-9 * error(
        values, [True] * len(values)
    )


@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_the_kmeans_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    values = [
        rng.normal(size=40),
        rng.exponential(size=200),
        rng.integers(0, 5, 30).astype(float),
        1e4 + rng.normal(size=50),
        np.concatenate([rng.normal(size=500), rng.normal(3, 0.2, size=20)]),
        rng.standard_cauchy(300),
    ][seed]
    above = np.array(split(values))
    mine = sum(((side - side.mean()) ** 2).sum() for side in (values[above], values[~above]))
    other = KMeans(2, n_init=20, random_state=seed, tol=0).fit(values[:, None])
    assert mine <= other.inertia_ * (1 + 1e-9)


@given(values=WHOLE, shift=st.integers(-99, 99), scale=st.integers(1, 50))
@settings(deadline=None)
def test_the_threshold_moves_with_the_values(values, shift, scale):
    x = torch.tensor(values, dtype=torch.float64)
    moved = two_means(scale * x + shift)
    assert moved == scale * two_means(x) + shift  # minus infinity stays where it is


@given(values=st.lists(st.floats(-1e3, 1e3, width=32), max_size=12), data=st.data())
@settings(deadline=None)
def test_the_order_of_the_values_does_not_matter(values, data):
    shuffled = data.draw(st.permutations(values))
    first, second = (two_means(torch.tensor(v, dtype=torch.float32)) for v in (values, shuffled))
    assert first == second


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0], [0.0, -0.0, 0.0], [1e-8] * 7])
def test_without_two_clusters_all_are_above(values):
    assert two_means(torch.tensor(values)) == -math.inf


def test_the_threshold_is_in_the_middle_between_the_clusters():
    assert two_means(torch.tensor([10.0, 1, 0, 12, 2])) == 6


def test_of_equal_splits_the_lowest_is_taken():
    assert two_means(torch.tensor([0.0, 1, 2])) == 0.5
    x = torch.arange(5, dtype=torch.float64)  # two against three, or three against two
    assert two_means(x) == 1.5


@pytest.mark.parametrize("N", [3, 5, 7])
def test_rounding_does_not_choose_between_equal_splits(N):
    steps = torch.arange(N, dtype=torch.float64)
    for scale in [*range(-20, 0), *range(1, 20)]:
        lower = N // 2 - 0.5 if scale > 0 else N // 2 + 0.5  # of the two steps beside the middle
        for shift in range(10):
            found = two_means(steps * scale / 7 + shift / 10)
            assert found == pytest.approx(lower * scale / 7 + shift / 10, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("start", [1.0, -1.0, 1000.0, 3e-5])
def test_neighbouring_numbers_are_told_apart(dtype, start):
    low = torch.tensor(start, dtype=dtype)
    for toward in (math.inf, -math.inf):
        step = torch.nextafter(low, torch.tensor(toward, dtype=dtype))
        values = torch.stack([low, step, low])
        above = values > two_means(values)
        assert above.tolist() == [toward < 0, toward > 0, toward < 0]


def test_equal_values_are_never_parted():
    values = torch.tensor([0.1] * 999 + [0.1 + 1e-9, 0.7], dtype=torch.float64)
    assert (values > two_means(values)).sum() == 1
    assert two_means(torch.tensor([0.0, 0, 0, 1, 1, 9, 9, 9, 9])) == 5


def test_a_cluster_of_one_among_many():
    values = torch.cat([torch.zeros(100_000), torch.tensor([1e-3])])
    assert (values > two_means(values)).nonzero().tolist() == [[100_000]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(2, 3), r"values \(N,\) to cluster, found shape \(2, 3\)"),
        (torch.tensor([1.0, math.nan, 2]), "finite values"),
        (torch.tensor([1.0, math.inf]), "finite values"),
        (torch.tensor([-math.inf]), "finite values"),
    ],
)
def test_wrong_values_are_explained(values, message):
    with pytest.raises(UsageError, match=message):
        two_means(values)
