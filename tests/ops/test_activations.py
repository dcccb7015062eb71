"""Activations against their definitions, their derivatives against autograd."""

import math

import pytest
import torch

from zerolabel.ops.activations import activate, activation_slope

X = torch.cat(
    [
        torch.linspace(-40, 40, 81, dtype=torch.float64),
        torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    ]
)


def slow(x, name):
    """One number."""
    if name == "gelu":
        return x * math.erfc(-x / math.sqrt(2)) / 2
    return x / (1 + math.exp(-1.702 * x))


@pytest.mark.parametrize("name", ["gelu", "quick"])
def test_values_and_slopes(name):
    x = X.clone().requires_grad_()
    found = activate(x, name)
    expected = torch.tensor([slow(float(value), name) for value in X], dtype=torch.float64)
    torch.testing.assert_close(found.detach(), expected, atol=1e-13, rtol=1e-13)
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(activation_slope(X, name), slope, atol=1e-13, rtol=1e-13)
    assert torch.equal(x.detach(), X)  # nothing is changed in place


def test_they_differ_by_the_stated_amount():
    fine = torch.linspace(-8, 8, 3201, dtype=torch.float64)
    gap = (activate(fine, "gelu") - activate(fine, "quick")).abs().max()
    assert 0.019 < gap < 0.0205
