import numpy as np
import pytest
import torch

from zerolabel.errors import UsageError
from zerolabel.ops.affinity import affinity

ROWS = np.random.default_rng(0).standard_normal((23, 7)).astype(np.float32)


def dots():
    return [
        [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in ROWS] for x in ROWS
    ]


@pytest.mark.parametrize("threshold", [0.0, 1.5, -0.5])
def test_binary_edges_where_the_dot_product_exceeds_the_threshold(threshold):
    expected = [[1.0 if a > threshold else 0.0 for a in row] for row in dots()]
    result = affinity(ROWS, threshold=threshold)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_weights_are_what_exceeds_the_threshold(threshold):
    expected = [[max(a - threshold, 0.0) for a in row] for row in dots()]
    result = affinity(ROWS, weighted=True, threshold=threshold)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_the_strips_that_are_compared_at_a_time_change_nothing(monkeypatch):
    expected = affinity(ROWS, threshold=0.5)
    monkeypatch.setattr("zerolabel.ops.affinity.STRIP", 5)
    np.testing.assert_array_equal(affinity(ROWS, threshold=0.5), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_self_loops_are_kept_unless_unwanted(weighted):
    kept, dropped = (affinity(ROWS, weighted=weighted, self_loops=s) for s in (True, False))
    assert (kept.diagonal() > 0).all()
    assert not dropped.diagonal().any()
    np.testing.assert_array_equal(kept - np.diag(kept.diagonal()), dropped)


def test_is_exactly_symmetric_even_where_rounding_decides():
    rows = np.random.default_rng(1).standard_normal((300, 96)).astype(np.float32)
    rows -= rows.mean(axis=0)  # many dot products near 0
    graph = affinity(rows, weighted=True)
    np.testing.assert_array_equal(graph, graph.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_takes_tensors_and_leaves_the_input_alone(dtype):
    tensor = torch.from_numpy(ROWS).to(dtype).requires_grad_()
    before = tensor.detach().clone()
    expected = affinity(tensor.detach().float().numpy(), weighted=True)
    np.testing.assert_array_equal(affinity(tensor, weighted=True), expected)
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_refuses_values_without_a_dot_product(bad):
    rows = ROWS.copy()
    rows[3, 2] = bad
    with pytest.raises(UsageError, match="finite"):
        affinity(rows)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 4), (4, 0)])
def test_refuses_what_is_not_a_matrix(shape):
    with pytest.raises(UsageError, match="found"):
        affinity(np.ones(shape, np.float32))
