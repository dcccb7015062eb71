import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn import cluster
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from zerolabel.data.synthetic import directions
from zerolabel.errors import UsageError
from zerolabel.stages import baselines
from zerolabel.stages.discover import DISCOVER, Discover, Encoded, discover

NAMES = ("spectral", "affinity-propagation", "agglomerative")
FIXED = ("spectral", "agglomerative")  # which make as many groups as they are told


def find(name, features, **options):
    return DISCOVER[name](Encoded(features), Discover(**options))


def planted(k=4, *, cosine=0.95, grid=(8, 9), seed=0):
    x, truth = directions(k, grid[0] * grid[1] // k, dim=24, cosine=cosine, seed=seed)
    return torch.from_numpy(x).unflatten(0, grid), truth


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(labels, truth):
    return adjusted_rand_score(np.ravel(truth), labels.ravel()) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [4, 6, 8])
def test_planted_directions_are_recovered(name, k):
    features, truth = planted(k)
    labels = find(name, features, segments=k)
    assert labels.dtype == np.int32
    assert labels.shape == (8, 9)
    assert same(labels, truth)
    lengths = 0.1 + 9 * torch.rand(8, 9, 1, generator=torch.Generator().manual_seed(1))
    assert same(find(name, features * lengths, segments=k), labels)  # lengths do not matter


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("segments", [1, 2, 5, 9])
def test_as_many_groups_as_asked_for(name, segments):
    assert len(np.unique(find(name, draw(6, 7, 5), segments=segments))) == segments


def test_affinity_propagation_finds_the_number_itself():
    for k in (4, 6, 8):
        found = [find("affinity-propagation", planted(k)[0], segments=s) for s in (1, 6)]
        assert len(np.unique(found[0])) == k
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 1, -3.7, 1e-20, 1e20])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (5, 1), (4, 6)])
def test_equal_patches_are_one_group(name, value, grid):
    features = torch.full((*grid, 3), float(value))
    assert (find(name, features) == 0).all()
    rounded = (features * torch.linspace(1, 2, grid[0] * grid[1]).reshape(*grid, 1)).float()
    assert (find(name, rounded) == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 3), (7, 1)])
@pytest.mark.parametrize("dim", [1, 2, 8])
def test_few_patches_and_few_channels(name, grid, dim):
    for seed in range(3):
        labels = find(name, draw(*grid, dim, seed=seed), seed=seed)
        assert labels.shape == grid
        assert labels.min() >= 0
        if name in FIXED and dim == 8:  # in which no two patches are alike
            assert len(np.unique(labels)) == min(6, labels.size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", [1, 20, 71])
def test_zero_vectors_are_like_nothing(name, empty):
    features, truth = planted()
    features.flatten(0, 1)[:empty] = 0
    regions = discover(Encoded(features), Discover(discover=name, segments=5, minimum=1))
    assert regions.groups.min() >= 0
    labels = find(name, features, segments=5)
    assert labels.min() >= 0
    if empty == 1:
        assert same(labels.ravel()[1:], truth[1:])


@pytest.mark.parametrize("name", NAMES)
def test_opposite_and_disconnected_patches(name):
    """Positive cosines alone leave a graph in pieces, more of them than segments."""
    axes = torch.cat([torch.eye(8), -torch.eye(8)]).repeat_interleave(3, 0).reshape(6, 8, 8)
    assert find(name, axes, segments=3).min() >= 0
    two = axes[:3, ::2][:, :1].expand(3, 4, 8)  # three directions, 12 patches
    assert len(np.unique(find(name, two, segments=3))) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_fixes_the_result(name):
    features = draw(9, 9, 6)
    state = np.random.get_state()[1].copy()
    for seed in (0, 7, 2**32 - 1):
        first, second = (find(name, features, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # nobody else's draws move


@pytest.mark.parametrize("answer", ["nothing", "swings"])
def test_messages_that_do_not_settle(monkeypatch, answer):
    seen = []

    class Unsettled(cluster.AffinityPropagation):
        def __init__(self, *, damping, max_iter, **options):
            seen.append((damping, max_iter))
            most = 1 if answer == "nothing" else 40  # too few updates to settle
            super().__init__(damping=damping, max_iter=most, **options)

        def fit(self, x):
            super().fit(x)
            self.n_iter_ = seen[-1][1]
            return self

    monkeypatch.setattr(cluster, "AffinityPropagation", Unsettled)
    features, _ = planted(cosine=0.6)
    labels = find("affinity-propagation", features)
    assert seen == list(baselines.DAMPINGS.items()) == [(0.5, 200), (0.9, 1000)]
    assert labels.min() >= 0
    assert len(np.unique(labels)) == 1 if answer == "nothing" else len(np.unique(labels)) > 1


def test_more_damping_settles_messages_that_swing():
    """On some images they swing for ever with scikit-learn's own."""
    for seed in range(40):
        features, truth = planted(cosine=0.97, seed=seed)
        cosines = features.flatten(0, 1) @ features.flatten(0, 1).T
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cluster.AffinityPropagation(affinity="precomputed", random_state=0).fit(cosines)
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            assert same(find("affinity-propagation", features), truth)
            return
    pytest.fail("none of the images makes the messages swing")


@pytest.mark.parametrize("name", NAMES)
def test_without_scikit_learn_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r'pip install "zerolabel\[baselines\]"'):
        discover(Encoded(draw(2, 2, 3)), Discover(discover=name))
