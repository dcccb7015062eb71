import numpy as np
import pytest
import torch
from reference import position as reference

from zerolabel.ops.position import interpolate_positions

RULES = ("dino", "size", "size-antialias", "bilinear")
SIZES = [(5, 5), (3, 9), (12, 2), (1, 1), (14, 20)]


def embedding(side, dim=3):
    return torch.randn(1, side * side, dim, dtype=torch.float64, generator=torch.manual_seed(side))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_slow_reference(rule, size):
    pos = embedding(7)
    out = interpolate_positions(pos, size, rule=rule)
    expected = reference.interpolate(pos[0].numpy(), size, rule)
    assert out.shape == (1, size[0] * size[1], 3)
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_the_trained_grid_is_left_alone(rule):
    pos = embedding(6)
    assert interpolate_positions(pos, (6, 6), rule=rule) is pos


def test_as_many_positions_in_another_shape_are_resampled():
    pos = embedding(6)
    assert not torch.allclose(interpolate_positions(pos, (4, 9), rule="size"), pos)


def test_the_rules_differ_by_hundredths_at_320_x_448():
    pos = embedding(14) * 0.5
    outs = [interpolate_positions(pos, (20, 28), rule=rule) for rule in RULES]
    assert (outs[0] - outs[1]).abs().max() > 1e-2
    assert (outs[1] - outs[2]).abs().max() > 1e-2
    assert (outs[1] - outs[3]).abs().max() > 1e-2


@pytest.mark.parametrize("side", [14, 28, 37])
def test_no_row_or_column_is_lost_or_gained(side):
    pos = torch.zeros(1, side * side, 1)
    for length in range(1, 90):
        assert interpolate_positions(pos, (length, 2), rule="dino").shape[1] == 2 * length


def test_gradients_reach_the_trained_grid():
    pos = embedding(4).requires_grad_()
    interpolate_positions(pos, (6, 3), rule="dino").sum().backward()
    assert pos.grad is not None
    assert (pos.grad != 0).all()
