import io
import os
import tracemalloc
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference.graphs import best_single_move, block_graph, modularity_by_pairs, smooth_features

from zerolabel.errors import UsageError
from zerolabel.ops import communities
from zerolabel.ops.affinity import affinity
from zerolabel.ops.communities import louvain, modularity


def at_density(features, density):
    dots = features @ features.T
    return affinity(features, threshold=float(np.quantile(dots, 1 - density)))


def photo_graph(side, index):
    """Tokens of a photo: mean and spread of colour and gradient in 8 x 8 pixels."""
    root = os.environ.get("ZEROLABEL_DATA")
    if not root or not (Path(root) / "photos" / "photos-0.npz").exists():
        pytest.skip("ZEROLABEL_DATA has no photos")
    with np.load(Path(root) / "photos" / "photos-0.npz") as photos:
        start, end = photos["offsets"][index : index + 2]
        encoded = photos["data"][start:end].tobytes()
    image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((8 * side, 8 * side))
    pixels = np.asarray(image, np.float32) / 255
    gradients = np.stack(np.gradient(pixels.mean(axis=2)), axis=2)
    cells = np.concatenate([pixels, gradients, np.abs(gradients)], axis=2)
    cells = cells.reshape(side, 8, side, 8, -1)
    tokens = np.concatenate([cells.mean(axis=(1, 3)), cells.std(axis=(1, 3))], axis=2)
    tokens = tokens.reshape(side * side, -1)
    return affinity((tokens - tokens.mean(axis=0)) / (tokens.std(axis=0) + 1e-6))


FAMILIES = {
    "smooth, 50 %": lambda: at_density(smooth_features(14), 0.5),
    "smooth, 10 %": lambda: at_density(smooth_features(14), 0.1),
    "smooth, weighted": lambda: affinity(smooth_features(14), weighted=True),
    "blocks": lambda: block_graph([25] * 8, 0.5, 0.05)[0],
    "weak blocks": lambda: block_graph([10] * 20, 0.3, 0.1)[0],
    "no structure": lambda: block_graph([196], 0.1, 0.1)[0],
    "photo": lambda: photo_graph(14, 3),
}


def networkx_modularity(graph, seed):
    network = nx.from_numpy_array(graph.astype(np.float64))
    labels = np.zeros(len(graph), int)
    for label, nodes in enumerate(nx.community.louvain_communities(network, seed=seed)):
        labels[list(nodes)] = label
    return modularity(graph, labels)


def random_graph(n, seed, density):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density))
    return (upper + upper.T).astype(np.float32)


def same_partition(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 99),
    density=st.floats(0, 1),
    groups=st.integers(1, 5),
    resolution=st.floats(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_modularity_equals_the_sum_over_pairs(n, seed, density, groups, resolution):
    graph = random_graph(n, seed, density)
    labels = np.random.default_rng(seed).integers(0, groups, n)
    expected = modularity_by_pairs(graph, labels, resolution)
    assert modularity(graph, labels, resolution=resolution) == pytest.approx(expected, abs=1e-10)


def test_modularity_equals_networkx_without_self_loops():
    graph, blocks = block_graph([9, 14, 20], 0.6, 0.2)
    groups = [set(np.flatnonzero(blocks == b)) for b in range(3)]
    expected = nx.community.modularity(nx.from_numpy_array(graph), groups)
    assert modularity(graph, blocks) == pytest.approx(expected, abs=1e-10)


def test_recovers_planted_blocks_largest_first():
    graph, blocks = block_graph([60, 50, 40, 30], 0.6, 0.05)
    np.testing.assert_array_equal(louvain(graph), blocks)


@pytest.mark.parametrize("seed", range(6))
def test_recovers_many_equal_blocks(seed):
    graph, blocks = block_graph([25] * 8, 0.7, 0.05, seed)
    assert same_partition(louvain(graph), blocks)


def test_the_second_start_parts_groups_that_the_first_joined():
    graph, blocks = block_graph([25] * 8, 0.5, 0.05, 0)
    assert louvain(graph, starts=1).max() + 1 == 7  # else this test needs another graph
    assert same_partition(louvain(graph, starts=2), blocks)


def test_separates_disconnected_cliques_and_isolated_nodes():
    graph = np.zeros((9, 9), np.float32)
    graph[1:4, 1:4] = graph[4:8, 4:8] = 1
    np.testing.assert_array_equal(louvain(graph), [2, 1, 1, 1, 0, 0, 0, 0, 3])


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("weight", [1.0, 0.37])
@pytest.mark.parametrize("n", [2, 5, 196])
def test_a_graph_without_structure_is_one_community(n, weight, loops):
    graph = np.full((n, n), weight, np.float32)
    if not loops:
        np.fill_diagonal(graph, 0)
    assert not louvain(graph).any()


def test_a_lone_node_does_not_join_the_only_clique():
    graph = np.ones((60, 60), np.float32)
    graph[17], graph[:, 17], graph[17, 17] = 0, 0, 1
    np.testing.assert_array_equal(louvain(graph), np.arange(60) == 17)


@pytest.mark.parametrize("graph", [np.zeros((4, 4)), np.eye(4)])
def test_without_ties_every_node_is_alone(graph):
    np.testing.assert_array_equal(louvain(graph), [0, 1, 2, 3])
    assert modularity(np.zeros((4, 4)), np.zeros(4, int)) == 0


@pytest.mark.parametrize("weight", [0, 1])
def test_one_node(weight):
    labels = louvain(np.full((1, 1), weight, bool))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [0])


@pytest.mark.parametrize("family", FAMILIES)
def test_modularity_is_within_a_hundredth_of_networkx(family):
    graph = FAMILIES[family]()
    assert modularity(graph, louvain(graph)) > networkx_modularity(graph, seed=0) - 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_nodes_changes_modularity_little(family):
    graph = FAMILIES[family]()
    order = np.random.default_rng(0).permutation(len(graph))
    shuffled = graph[np.ix_(order, order)]
    qualities = [modularity(g, louvain(g)) for g in (graph, shuffled)]
    assert abs(qualities[0] - qualities[1]) < 0.01


@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 999),
    density=st.floats(0, 1),
    resolution=st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=40, deadline=None)
def test_no_single_move_improves_modularity(n, seed, density, resolution):
    graph = random_graph(n, seed, density)
    labels = louvain(graph, resolution=resolution)
    assert best_single_move(graph, labels, resolution) <= 1e-5


@pytest.mark.parametrize("family", ["smooth, 50 %", "smooth, weighted", "no structure"])
def test_no_single_move_improves_modularity_at_size(family):
    graph = FAMILIES[family]().astype(np.float64)
    labels = louvain(graph)
    total, degrees = graph.sum(), graph.sum(axis=1)
    for node in range(len(graph)):
        bond = graph[node] - degrees[node] * degrees / total
        bond[node] = 0
        worth = np.append(np.bincount(labels, bond), 0)
        gain = 2 * (worth.max() - worth[labels[node]]) / total
        assert gain <= 1e-5 * degrees[node] / total * 1.1


@given(n=st.integers(1, 40), seed=st.integers(0, 999), density=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_labels_are_numbered_by_size_and_first_node(n, seed, density):
    labels = louvain(random_graph(n, seed, density))
    sizes = np.bincount(labels)
    firsts = [int(np.argmax(labels == label)) for label in range(len(sizes))]
    keys = [(-size, first) for size, first in zip(sizes, firsts, strict=True)]
    assert sizes.min() > 0
    assert keys == sorted(keys)


def test_identical_input_and_seed_give_identical_labels():
    graph = FAMILIES["no structure"]()
    runs = [louvain(graph.copy(), seed=5) for _ in range(3)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_more_starts_never_lose_and_the_seed_matters():
    graph = FAMILIES["no structure"]()
    quality = [modularity(graph, louvain(graph, starts=s)) for s in (1, 2, 4, 8)]
    assert quality == sorted(quality)
    assert quality[-1] > quality[0]
    assert not same_partition(louvain(graph, starts=2, seed=1), louvain(graph, starts=2, seed=2))


def test_a_higher_resolution_gives_more_communities():
    graph = FAMILIES["smooth, 50 %"]()
    counts = [louvain(graph, resolution=r).max() + 1 for r in (0.0, 1.0, 1.5)]
    assert counts[0] == 1 < counts[1] < counts[2]


def test_scaling_the_weights_changes_nothing_and_the_input_is_left_alone():
    graph = FAMILIES["smooth, weighted"]()
    before = graph.copy()
    assert same_partition(louvain(graph), louvain(graph * 2.0**-20))
    np.testing.assert_array_equal(graph, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_working_in_the_memory_of_the_graph_changes_no_label(family, monkeypatch):
    graph = FAMILIES[family]()
    expected = louvain(graph)
    np.testing.assert_array_equal(louvain(graph.astype(np.float64), overwrite=True), expected)
    monkeypatch.setattr(communities, "STRIP", 17)
    np.testing.assert_array_equal(louvain(graph, overwrite=True), expected)


def test_little_memory_is_needed_beside_the_graph():
    graph = FAMILIES["smooth, 50 %"]()
    louvain(graph)
    tracemalloc.start()
    louvain(graph, overwrite=True)
    used = tracemalloc.get_traced_memory()[1] / graph.nbytes
    tracemalloc.stop()
    assert used < 2  # beside the graph itself


@pytest.mark.parametrize("family", ["smooth, 50 %", "no structure", "weak blocks"])
def test_sweeps_end_long_before_the_limit(family, monkeypatch):
    graph = FAMILIES[family]()
    expected = louvain(graph, tolerance=0)
    monkeypatch.setattr(communities, "SWEEPS", 100)
    np.testing.assert_array_equal(louvain(graph, tolerance=0), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_refuses_weights_that_are_not_finite_and_positive(bad):
    graph = np.ones((4, 4), np.float32)
    graph[1, 2] = graph[2, 1] = bad
    with pytest.raises(UsageError, match="finite"):
        louvain(graph)


def test_refuses_what_is_not_a_symmetric_matrix():
    with pytest.raises(UsageError, match="symmetric"):
        louvain(np.triu(np.ones((4, 4))))
    for shape in [(3, 4), (4,), (0, 0)]:
        with pytest.raises(UsageError, match="found"):
            louvain(np.ones(shape))


@pytest.mark.parametrize("option", [{"starts": 0}, {"resolution": -1.0}, {"tolerance": -1e-3}])
def test_refuses_options_out_of_range(option):
    with pytest.raises(UsageError, match=next(iter(option))):
        louvain(np.eye(3), **option)


def test_modularity_refuses_labels_of_another_length():
    with pytest.raises(UsageError, match="labels"):
        modularity(np.eye(3), np.zeros(4, int))
