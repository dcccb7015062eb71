"""The number of categories, found; benchmarks/auto_k.py measures how often on fifty worlds."""

import pytest
from planted import fitted, small_bank

from zerolabel.data.synthetic import world

WORLDS = {3: 0, 5: 2, 7: 4, 9: 6, 11: 8, 12: 9}  # categories and seed, as in the benchmark


@pytest.mark.slow
@pytest.mark.parametrize("method", ["datus", "kmeans"])
def test_auto_finds_the_number_of_planted_categories(method):
    found = {
        truth: fitted(method, world(truth, seed=seed), k="auto")[0].k
        for truth, seed in WORLDS.items()
    }
    misses = [truth for truth, k in found.items() if abs(k - truth) > 1]
    assert len(misses) <= 1, found


@pytest.mark.parametrize("method", ["datus", "kmeans"])
def test_auto_is_exact_for_a_few_clear_categories(method):
    for truth in (3, 4):
        samples = world(truth, images=12, seed=truth)
        made, _ = fitted(method, samples, backbone=small_bank(), k="auto", size=(112, 112))
        assert made.k == truth
        assert made.curve[truth] == max(made.curve.values())
