import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import kmeans as reference
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from zerolabel.data.synthetic import directions
from zerolabel.errors import UsageError
from zerolabel.ops import cluster
from zerolabel.ops.cluster import (
    Clustering,
    assign,
    choose_k,
    kmeans,
    lloyd,
    minibatch,
    principal_axes,
    silhouette,
)

INITS = ("k-means++", "uniform", "random")
VECTORS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-8, 8, width=32),
)


def blobs(k=5, n=40, dim=6, spread=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(k, dim, generator=generator)
    noise = spread * torch.randn(k * n, dim, generator=generator)
    return centres.repeat_interleave(n, 0) + noise


def noise(n=300, dim=8, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def datasets():
    pixels, _ = load_digits(return_X_y=True)
    stretched = noise(600, 4) * torch.tensor([10.0, 3.0, 1.0, 0.3])
    return {
        "blobs": (blobs(), 5),
        "too few clusters": (blobs(k=9), 4),
        "too many clusters": (blobs(k=3), 8),
        "noise": (noise(600), 7),
        "stretched": (stretched, 6),
        "directions": (torch.from_numpy(directions(10, 50)[0]), 10),
        "digits": (torch.from_numpy(pixels.astype(np.float32)) / 16, 10),
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_same_start_ends_where_slow_lloyd_ends(seed, monkeypatch):
    x = blobs(k=4, n=20, spread=1.5, seed=seed)
    start = noise(6, 6, seed=seed)
    monkeypatch.setattr(cluster, "_initial", lambda *_: start)
    found = kmeans(x, 6, restarts=1)
    centroids, labels, inertia = reference.lloyd(x.numpy(), start.numpy())
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.centroids.numpy(), centroids, atol=1e-5)
    assert found.inertia == pytest.approx(inertia, rel=1e-5)


def test_empty_clusters_restart_at_the_worst_served_vectors(monkeypatch):
    x = blobs(k=3, n=12, spread=0.3)
    start = torch.cat([x[:1], torch.full((2, 6), 1e3), torch.full((1, 6), -1e3)])
    monkeypatch.setattr(cluster, "_initial", lambda *_: start)
    one = kmeans(x, 4, restarts=1, iterations=1)
    centroids, labels, _ = reference.lloyd(x.numpy(), start.numpy(), iterations=1)
    np.testing.assert_allclose(one.centroids.numpy(), centroids, atol=1e-5)
    assert one.labels.tolist() == labels
    found = kmeans(x, 4, restarts=1)
    assert found.labels.bincount(minlength=4).min() > 0


@pytest.mark.parametrize("name", datasets())
def test_inertia_is_as_low_as_that_of_scikit_learn(name):
    x, k = datasets()[name]
    other = KMeans(k, n_init=10, random_state=0).fit(x.numpy())
    assert kmeans(x, k).inertia <= 1.02 * other.inertia_ / len(x)


@given(x=VECTORS, data=st.data())
@settings(deadline=None, max_examples=60)
def test_labels_are_the_nearest_centroid(x, data):
    k = data.draw(st.integers(1, len(x)))
    found = kmeans(torch.from_numpy(x), k, restarts=2, init=data.draw(st.sampled_from(INITS)))
    assert found.centroids.shape == (k, x.shape[1])
    assert found.centroids.isfinite().all()
    assert found.labels.dtype == torch.int64
    x, centroids = x.astype(np.float64), found.centroids.double().numpy()
    _, distances = reference.nearest(x, centroids)
    own = np.square(x - centroids[found.labels.numpy()]).sum(1)
    slack = 1e-5 * (1 + float(np.square(x).sum(1).max()))  # float32 cannot tell nearer ones apart
    np.testing.assert_allclose(own, distances, atol=slack)
    assert found.inertia == pytest.approx(own.mean(), abs=slack)


def test_assign_gives_labels_and_squared_distances():
    x, centroids = noise(50), noise(7, seed=1)
    labels, distances = assign(x, centroids)
    expected, squares = reference.nearest(x.numpy(), centroids.numpy())
    assert labels.tolist() == expected
    np.testing.assert_allclose(distances.numpy(), squares, rtol=1e-4)


def test_one_cluster_is_the_mean_and_its_inertia_the_variance():
    x = noise()
    found = kmeans(x, 1)
    torch.testing.assert_close(found.centroids[0], x.mean(0), atol=1e-6, rtol=0)
    assert found.inertia == pytest.approx(float(x.var(0, correction=0).sum()), rel=1e-5)
    assert not found.labels.any()


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_as_many_clusters_as_vectors_gives_each_its_own(init):
    x = noise(30)
    found = kmeans(x, 30, init=init)
    assert sorted(found.labels.tolist()) == list(range(30))
    assert found.inertia == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("rows", [torch.ones(9, 3), torch.eye(3).repeat(4, 1)])
def test_more_clusters_than_distinct_vectors(rows, init):
    found = kmeans(rows, 7, init=init)
    assert found.centroids.isfinite().all()
    assert found.inertia == pytest.approx(0, abs=1e-6)
    assert silhouette(rows, found) <= 1


@pytest.mark.parametrize("init", INITS)
def test_every_start_finds_clear_clusters_and_is_repeatable(init):
    x = blobs(spread=0.1)
    found, again = (kmeans(x, 5, init=init, seed=3) for _ in range(2))
    assert torch.equal(found.centroids, again.centroids)
    assert torch.equal(found.labels, again.labels)
    blocks = found.labels.reshape(5, 40)
    assert (blocks == blocks[:, :1]).all()
    assert len(blocks[:, 0].unique()) == 5


def test_another_seed_is_another_draw():
    x = noise(200)
    ends = {kmeans(x, 9, seed=seed, restarts=1).inertia for seed in range(4)}
    assert len(ends) > 1


def test_the_starts_are_what_they_are_called():
    x = torch.cat([blobs(k=1, n=200), torch.full((1, 6), 30.0)])  # one vector far away
    seen = {}
    for init in INITS:
        starts = [
            cluster._initial(x, 2, init, torch.Generator().manual_seed(seed)) for seed in range(20)
        ]
        seen[init] = sum(bool((start == 30).all(1).any()) for start in starts)
        if init == "uniform":
            low, high = torch.stack(starts).amin((0, 1)), torch.stack(starts).amax((0, 1))
            assert (low >= x.amin(0)).all()
            assert (high <= 30).all()
            assert (high > 20).all()
        else:
            rows = {tuple(row) for row in x.tolist()}
            assert all(tuple(row) in rows for start in starts for row in start.tolist())
    assert seen["k-means++"] == 20  # it hardly ever overlooks the one far away
    assert seen["random"] < 5
    assert seen["uniform"] == 0


def test_more_restarts_are_never_worse():
    x = noise(200, 16, seed=2)
    ends = [kmeans(x, 10, restarts=n, init="random").inertia for n in (1, 2, 5, 10)]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < ends[0]


def test_chunks_and_the_seeding_subsample_change_little(monkeypatch):
    x = blobs(k=6, n=50, spread=0.5)
    whole = kmeans(x, 6)
    monkeypatch.setattr(cluster, "CHUNK", 17 * 6)  # 17 rows
    chunked = kmeans(x, 6)
    assert torch.equal(chunked.labels, whole.labels)
    torch.testing.assert_close(chunked.centroids, whole.centroids)
    monkeypatch.setattr(cluster, "SEEDING_ROWS", 40)
    assert kmeans(x, 6).inertia == pytest.approx(whole.inertia, rel=1e-4)
    assert len(kmeans(x, 60, restarts=1).centroids) == 60  # more than the subsample


@pytest.mark.parametrize("rows", [7, 64, 300])
def test_vectors_in_a_mapped_file_are_clustered_as_those_in_memory(rows, tmp_path, monkeypatch):
    x = blobs(k=5, n=60, spread=2.0)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    monkeypatch.setattr(cluster, "CHUNK", rows * 6)
    found, expected = (lloyd(y, x[:5], 10, tolerance=0) for y in (mapped, x))
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.centroids, expected.centroids)
    centroids, labels, inertia = reference.lloyd(x.numpy(), x[:5].numpy(), iterations=10)
    np.testing.assert_allclose(found.centroids.numpy(), centroids, atol=1e-5)
    assert found.labels.tolist() == labels
    assert found.inertia == pytest.approx(inertia, rel=1e-5)


def test_lloyd_needs_less_memory_than_the_vectors():
    x = noise(20_000, 64)
    with torch.profiler.profile(profile_memory=True) as profile:
        lloyd(x, x[:5], 2)
    sizes = [event.cpu_memory_usage for event in profile.events()]
    assert max(sizes) < x.numel() * 4 / 2


def test_wrong_arguments_are_explained():
    x = noise(5)
    for k in (0, -1, 6):
        with pytest.raises(UsageError, match=rf"k must be in 1..5 .*got {k}"):
            kmeans(x, k)
    with pytest.raises(UsageError, match="init must be .*'kmeans'"):
        kmeans(x, 2, init="kmeans")
    with pytest.raises(UsageError, match="restarts must be at least 1, got 0"):
        kmeans(x, 2, restarts=0)


@pytest.mark.parametrize("k", [2, 3, 5, 12])
def test_silhouette_equals_a_loop_over_vectors(k):
    x = blobs(k=4, n=9, spread=1.0, seed=k)
    found = kmeans(x, k)  # converged: its centroids are the means of its labels
    expected = reference.silhouette(x.numpy(), found.labels.tolist())
    assert silhouette(x, found) == pytest.approx(expected, abs=1e-5)


def test_a_vector_alone_in_its_cluster_scores_nothing():
    x = torch.cat([blobs(k=2, n=10, spread=0.2), torch.full((1, 6), 9.0)])
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    means = torch.stack([x[labels == j].mean(0) for j in range(3)])
    found = silhouette(x, Clustering(means, labels, 0.0))
    assert found == pytest.approx(reference.silhouette(x.numpy(), labels.tolist()), abs=1e-5)
    assert found < 0.67  # two perfect clusters of three at most
    everyone = Clustering(x, torch.arange(21), 0.0)
    assert silhouette(x, everyone) == 0


@pytest.mark.parametrize("k", range(3, 13))
def test_auto_k_is_exact_for_planted_directions(k):
    x, _ = directions(k, 40, seed=k)
    chosen, curve = choose_k(torch.from_numpy(x))
    assert chosen == k
    assert list(curve) == list(range(2, 31))
    assert all(-1 <= score <= 1 for score in curve.values())


def test_auto_k_looks_at_a_sample_of_many_vectors():
    x, _ = directions(4, 300)
    chosen, curve = choose_k(torch.from_numpy(x), rows=200, high=8)
    assert chosen == 4
    assert choose_k(torch.from_numpy(x), rows=200, high=8) == (4, curve)
    assert choose_k(torch.from_numpy(x), rows=200, high=8, seed=1)[1] != curve


@pytest.mark.parametrize("n", [1, 2, 3])
def test_auto_k_with_too_little_to_choose_from(n):
    chosen, curve = choose_k(noise(n))
    assert (chosen, curve) == (min(2, n), {})


def test_auto_k_tries_at_most_half_as_many_clusters_as_vectors():
    assert list(choose_k(noise(11))[1]) == [2, 3, 4, 5]


def test_minibatch_ends_near_the_exact_optimum() -> None:
    x, _ = directions(6, 200, cosine=0.8, seed=1)
    x = torch.from_numpy(x)
    exact = kmeans(x, 6, seed=0)
    start = kmeans(x, 6, seed=3, restarts=1, iterations=0).centroids
    moved = minibatch(x, start, batch=64, epochs=20, seed=0)
    inertia = float(assign(x, moved)[1].mean())
    assert inertia <= 1.05 * exact.inertia
    assert torch.equal(moved, minibatch(x, start, batch=64, epochs=20, seed=0))


def test_minibatch_centroids_are_means_of_all_rows_they_were_given() -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [14.0]])
    moved = minibatch(x, torch.tensor([[0.5], [12.0]]), batch=2, epochs=1, seed=0)
    torch.testing.assert_close(moved, torch.tensor([[0.5], [12.0]]))


def test_principal_axes_equal_the_singular_vectors() -> None:
    x = torch.randn(100, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)
    mean, axes = principal_axes(x, 3)
    right = torch.linalg.svd(x - x.mean(0)).Vh[:3].T
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close((axes * right).sum(0).abs(), torch.ones(3), atol=1e-4, rtol=0)
