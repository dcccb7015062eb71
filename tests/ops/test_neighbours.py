import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import neighbours as reference
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from zerolabel.errors import UsageError
from zerolabel.ops import neighbours
from zerolabel.ops.neighbours import nearest, vote


def draw(rows, columns=6, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(
    Q=st.integers(0, 7),
    N=st.integers(1, 11),
    k=st.integers(1, 14),
    tile=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_neighbours_and_votes_equal_loops(Q, N, k, tile, seed):
    queries, bank = draw(Q, seed=seed), 3 * draw(N, seed=seed + 100)
    labels = torch.randint(4, (N,), generator=torch.Generator().manual_seed(seed))
    expected = reference.nearest(queries, bank, k)
    similarities, rows = nearest(queries, bank, k, tile=tile)
    assert similarities.shape == rows.shape == (Q, min(k, N))
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[i for _, i in pairs] for pairs in expected]
    flat = [s for pairs in expected for s, _ in pairs]
    np.testing.assert_allclose(similarities.flatten(), flat, atol=1e-5)
    scores = vote(similarities, labels[rows], 4, 0.3)
    slow = torch.tensor(reference.votes(expected, labels.tolist(), 4, 0.3)).reshape(Q, 4)
    slow = slow / similarities[:, :1].div(0.3).exp()  # relative to the nearest
    torch.testing.assert_close(scores, slow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tile", [37, 256, 5000])
def test_neighbours_and_classes_are_those_of_scikit_learn(tile):
    bank, queries = draw(700, 16), draw(150, 16, seed=1)
    labels = torch.arange(700) % 13
    own = NearestNeighbors(n_neighbors=20, metric="cosine").fit(bank.numpy())
    distances, expected = own.kneighbors(queries.numpy())
    similarities, rows = nearest(queries, bank, 20, tile=tile)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-5)
    classifier = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(bank.numpy(), labels.numpy())
    found = vote(similarities, labels[rows], 13).argmax(1)
    np.testing.assert_array_equal(found, classifier.predict(queries.numpy()))


def test_the_nearest_row_of_the_bank_to_itself_is_itself():
    bank = draw(3000, 32)
    similarities, rows = nearest(bank, bank, 1, tile=512)
    assert torch.equal(rows[:, 0], torch.arange(3000))
    torch.testing.assert_close(similarities, torch.ones(3000, 1))


def test_lengths_and_halves_do_not_matter():
    bank, queries = draw(50), draw(9, seed=2)
    first = nearest(queries, bank, 5)
    second = nearest(queries * torch.rand(9, 1).add(0.1), bank * torch.rand(50, 1).add(0.1), 5)
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(first[0], second[0])
    half = nearest(queries.half(), bank.half(), 5)
    assert half[0].dtype == torch.float32
    torch.testing.assert_close(half[0], first[0], atol=5e-3, rtol=0)


def test_rows_of_zeros_are_far_from_everything():
    similarities, rows = nearest(torch.zeros(2, 3), torch.zeros(4, 3), 9)
    assert (similarities == 0).all()
    assert rows.sort(1).values.tolist() == [[0, 1, 2, 3]] * 2


def test_no_product_is_larger_than_a_tile(monkeypatch):
    sizes = []
    normalise = neighbours.F.normalize
    monkeypatch.setattr(
        neighbours.F, "normalize", lambda x, dim: (sizes.append(len(x)), normalise(x, dim=dim))[1]
    )
    nearest(draw(25), draw(70), 5, tile=10)
    assert max(sizes) == 10


def test_small_temperatures_do_not_overflow():
    similarities = torch.tensor([[1.0, 0.999, 0.5], [-0.2, -0.3, -1.0]])
    labels = torch.tensor([[0, 1, 1], [2, 0, 0]])
    scores = vote(similarities, labels, 3, 1e-4)
    assert scores.isfinite().all()
    assert scores.argmax(1).tolist() == [0, 2]


def test_many_near_neighbours_outvote_the_nearest():
    similarities, labels = torch.tensor([[0.9, 0.89, 0.88]]), torch.tensor([[0, 5000, 5000]])
    scores = vote(similarities, labels, 5001)
    assert scores.shape == (1, 5001)
    assert int(scores.argmax()) == 5000
    assert int((scores > 0).sum()) == 2
    assert int(vote(similarities, labels, 5001, 0.005).argmax()) == 0


def test_no_query_has_no_votes():
    empty = torch.empty(0, 3)
    assert vote(empty, empty.long(), 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "bank", "k", "tile", "message"),
    [
        (draw(3), draw(0), 1, 1, r"N >= 1; found \(3, 6\) and \(0, 6\)"),
        (draw(3), draw(3, 5), 1, 1, r"\(3, 6\) and \(3, 5\)"),
        (draw(3)[0], draw(3), 1, 1, r"\(6,\) and \(3, 6\)"),
        (draw(3), draw(3), 0, 1, "at least 1, got 0 and 1"),
        (draw(3), draw(3), 1, 0, "at least 1, got 1 and 0"),
    ],
)
def test_wrong_banks_are_explained(queries, bank, k, tile, message):
    with pytest.raises(UsageError, match=message):
        nearest(queries, bank, k, tile=tile)


@pytest.mark.parametrize(
    ("labels", "temperature", "message"),
    [
        ([[0, 3]], 0.07, r"0\.\.2; found 0\.\.3"),
        ([[-1, 2]], 0.07, r"found -1\.\.2"),
        ([[0]], 0.07, r"found \(1, 2\) and \(1, 1\)"),
        ([[0, 1]], 0.0, "positive, got 0.0"),
        ([[0, 1]], float("nan"), "positive, got nan"),
    ],
)
def test_wrong_votes_are_explained(labels, temperature, message):
    with pytest.raises(UsageError, match=message):
        vote(torch.ones(1, 2), torch.tensor(labels), 3, temperature)
