import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from zerolabel.data.synthetic import directions
from zerolabel.errors import UsageError
from zerolabel.ops.cluster import assign
from zerolabel.stages.categorise import CATEGORISE, Categorise, categorise, span, without


def vectors(k=4, n=30, seed=0):
    x, truth = directions(k, n, seed=seed)
    return torch.from_numpy(x), truth


@pytest.mark.parametrize("name", CATEGORISE)
@pytest.mark.parametrize("k", [1, 4, "auto"])
def test_every_categorisation_finds_planted_directions(name, k):
    x, truth = vectors()
    found = categorise(x, Categorise(categorise=name, k=k))
    assert found.centroids.shape == (1 if k == 1 else 4, 64)
    assert found.centroids.isfinite().all()
    if k != 1:
        assert adjusted_rand_score(truth, assign(x, found.centroids)[0]) == 1


@pytest.mark.parametrize("name", CATEGORISE)
def test_every_categorisation_is_repeatable_and_follows_the_seed(name):
    x = torch.nn.functional.normalize(
        torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    options = Categorise(categorise=name, k=7, restarts=1)
    first, again = (categorise(x, options).centroids for _ in range(2))
    assert torch.equal(first, again)
    others = [
        categorise(x, Categorise(categorise=name, k=7, restarts=1, seed=seed)).centroids
        for seed in (1, 2, 3)
    ]
    assert any(not torch.equal(first, other) for other in others)


def test_only_auto_has_a_curve():
    x, _ = vectors()
    assert categorise(x, Categorise(k=4)).curve == {}
    curve = categorise(x, Categorise(k="auto")).curve
    assert max(curve, key=curve.get) == 4


@pytest.mark.parametrize("name", CATEGORISE)
def test_the_largest_category_comes_first(name):
    x, truth = vectors(k=3, n=40)
    kept = torch.from_numpy((truth == 0) | ((truth == 1) & (torch.arange(120) % 2 == 0).numpy()))
    kept |= torch.from_numpy(truth == 2) & (torch.arange(120) % 4 == 0)
    found = categorise(x[kept], Categorise(categorise=name, k=3))
    counts = assign(x[kept], found.centroids)[0].bincount().tolist()
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3


def test_the_options_reach_kmeans():
    x, _ = vectors()
    with pytest.raises(UsageError, match="init must be"):
        categorise(x, Categorise(k=3, init="grid"))
    with pytest.raises(UsageError, match="restarts must be at least 1"):
        categorise(x, Categorise(k=3, restarts=0))


def test_wrong_settings_are_explained():
    x, _ = vectors(k=2, n=3)
    with pytest.raises(
        UsageError, match="Unknown categorise stage 'k-means'.*Did you mean 'kmeans'"
    ):
        categorise(x, Categorise(categorise="k-means", k=2))
    with pytest.raises(UsageError, match="k must be auto or a whole number, .* got 'many'"):
        categorise(x, Categorise(k="many"))
    with pytest.raises(UsageError, match="7 categories were asked for, but only 6 regions"):
        categorise(x, Categorise(k=7))
    with pytest.raises(UsageError, match=r"k must be in 1\.\.6"):
        categorise(x, Categorise(k=0))


def test_a_range_is_what_k_is_chosen_from():
    x, _ = vectors(k=4)
    found = categorise(x, Categorise(k="3-6"))
    assert len(found.centroids) == 4
    assert list(found.curve) == [3, 4, 5, 6]
    assert found.curve == {
        k: v for k, v in categorise(x, Categorise()).curve.items() if 3 <= k <= 6
    }
    assert len(categorise(x, Categorise(k="6-9")).centroids) in range(6, 10)


def test_a_range_beyond_the_vectors_is_refused():
    x, _ = vectors(k=2, n=3)
    with pytest.raises(UsageError, match="8 categories were asked for, but only 6 regions"):
        categorise(x, Categorise(k="8-30"))
    assert len(categorise(x, Categorise(k="5-30")).centroids) == 5  # too few to choose from


@pytest.mark.parametrize(
    "k", ["1-4", "4-4", "5-4", "-4", "4-", "4-5-6", "a-b", "", True, 3.5, None]
)
def test_what_is_no_range_is_refused(k):
    with pytest.raises(
        UsageError, match="k must be auto or a whole number, or a range such as 8-30"
    ):
        span(k)


def test_what_is_not_clustered_is_left_out_of_a_range():
    assert span(7) is None
    assert (span("auto", most=12), span("8-30", most=12)) == ((2, 12), (8, 30))
    assert [without(k, 2) for k in (7, "auto", "8-30", "2-9")] == [5, "auto", "6-28", "2-7"]
    assert without("2-3", 0) == "2-3"
    assert without("2-4", 1) == "2-3"
    with pytest.raises(UsageError, match="1 of 2-3 categories .* ends with 4 or more"):
        without("2-3", 1)


def test_all_components_are_a_rotation_and_change_nothing():
    x, _ = vectors()
    whole = categorise(x, Categorise(k=4)).centroids
    turned = categorise(x, Categorise(k=4, components=64)).centroids
    torch.testing.assert_close(turned, whole, atol=1e-4, rtol=0)


def test_few_components_assign_as_in_the_reduced_space():
    x, truth = vectors()
    x = x + 0.05
    found = categorise(x, Categorise(k=4, components=3)).centroids
    assert adjusted_rand_score(truth, assign(x, found)[0]) == 1
    assert torch.linalg.matrix_rank(found - found.mean(0), atol=1e-4) <= 3
