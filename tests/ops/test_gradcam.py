"""Gradients pulled back by hand against autograd, and the gates against loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.gradcam import loss_of
from reference.gradcam import responses as slow_responses

from zerolabel.errors import UsageError
from zerolabel.ops.activations import activate
from zerolabel.ops.gradcam import (
    LOSSES,
    cls_gradients,
    gains,
    layer_norm_pull,
    mlp_pull,
    responses,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def same(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def pulled(function, x, upstream):
    """What autograd pulls back: one image and one vector at a time."""
    rows = []
    for token, vectors in zip(x, upstream, strict=True):
        token = token.clone().requires_grad_()
        for vector in vectors:
            rows.append(torch.autograd.grad(function(token), token, vector)[0])
    return torch.stack(rows).reshape(*upstream.shape[:2], -1)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_the_losses(loss):
    cls, centres = draw(3, 8), 3 * draw(5, 8, seed=1)
    expected = []
    for token in cls:
        token = token.clone().requires_grad_()
        values = [loss_of(token, centre, loss) for centre in centres]
        expected.append(torch.stack([torch.autograd.grad(v, token)[0] for v in values]))
    same(cls_gradients(cls, centres, loss=loss), torch.stack(expected))


def test_the_length_of_a_centre_matters_to_the_paper_s_loss_only():
    cls, centres = draw(2, 6), draw(3, 6, seed=1)
    same(cls_gradients(cls, 7 * centres), cls_gradients(cls, centres))
    dot = [cls_gradients(cls, factor * centres, loss="dot") for factor in (1, 7)]
    same(dot[1], 7 * dot[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_no_length_no_direction(loss):
    cls, centres = draw(2, 6), draw(3, 6, seed=1)
    cls[0], centres[1] = 0, 0
    found = cls_gradients(cls, centres, loss=loss)
    assert found.isfinite().all()
    assert not found[:, 1].any()
    assert found[1, [0, 2]].all()
    if loss == "cosine":
        assert not found[0].any()


@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_layer_norm(eps):
    x, upstream, weight, bias = draw(3, 7), draw(3, 4, 7, seed=1), draw(7, seed=2), draw(7, seed=3)
    x[1] = 2.5  # nothing but eps keeps this from dividing by zero
    expected = pulled(lambda t: F.layer_norm(t, (7,), weight, bias, eps), x, upstream)
    found = layer_norm_pull(upstream, x, weight, eps=eps)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", "quick"])
def test_mlp(activation):
    x, upstream = draw(2, 5), draw(2, 3, 5, seed=1)
    first, second, bias = draw(11, 5, seed=2), draw(5, 11, seed=3), draw(11, seed=4)
    expected = pulled(lambda t: second @ activate(first @ t + bias, activation), x, upstream)
    found = mlp_pull(upstream, x @ first.T + bias, first, second, activation=activation)
    same(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    centres=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    mass=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    veto=st.booleans(),
    relative=st.booleans(),
    scale=st.sampled_from([1.0, 0.125]),
    coarse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_responses_against_loops(batch, centres, grid, mass, veto, relative, scale, coarse, seed):
    attention, slopes = draw(batch, *grid, seed=seed).abs(), draw(batch, centres, *grid, seed=seed)
    if coarse:  # ties and zeros
        slopes = (slopes * 2).round()
    options = {"mass": mass, "veto": veto, "relative": relative, "scale": scale}
    found = responses(attention, slopes, **options)
    for image in range(batch):
        same(found[image], slow_responses(attention[image], slopes[image], **options))


def test_the_steps_of_the_gate():
    slopes = torch.tensor([[[-6.0, -3.0, 2.0, -1.0, 0.0]]])
    assert gains(slopes).tolist() == [[[6, 3, 0, 0, 0]]]  # 0.1 of the mass is within 0.2
    assert gains(slopes, mass=0.5, scale=0.5).tolist() == [[[3, 0, 0, 0, 0]]]
    assert gains(slopes, mass=1.0).tolist() == [[[6, 3, 0, 1, 0]]]
    attention = torch.tensor([[[0.2, 0.4, 0.4, 0.1, 0.0]]])
    found = responses(attention, slopes[None])
    assert found[0, 0, 0].tolist() == [6.5, 4.0, 0.0, 0.25, 0.0]
    bare = responses(attention, slopes[None], veto=False, relative=False)
    torch.testing.assert_close(bare[0, 0, 0], torch.tensor([6.2, 3.4, 0.4, 0.1, 0.0]))


def test_patches_are_chosen_alike_at_every_scale():
    slopes = draw(2, 3, 6, 5).float()
    for scale in (1e-6, 1 / 8, 3.0):
        assert torch.equal(gains(slopes, scale=scale) > 0, gains(slopes) > 0)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_maps_without_contrast(value):
    slopes = torch.full((2, 3, 1, 1), value)
    for attention in (torch.zeros(2, 1, 1), torch.full((2, 1, 1), 0.3)):
        found = responses(attention, slopes)
        assert found.isfinite().all()
        expected = 0.0 if value > 0 else max(0.0, -value) + (attention > 0).float()[:, None]
        assert (found == expected).all()


def test_no_clusters():
    assert responses(torch.ones(2, 3, 4), torch.ones(2, 0, 3, 4)).shape == (2, 0, 3, 4)
    assert cls_gradients(draw(2, 6), draw(0, 6)).shape == (2, 0, 6)


def test_what_does_not_fit():
    cls, centres = draw(2, 6), draw(3, 6)
    with pytest.raises(UsageError, match="Did you mean 'cosine'"):
        cls_gradients(cls, centres, loss="cosin")
    with pytest.raises(UsageError, match=r"found \(2, 6\) and \(3, 5\)"):
        cls_gradients(cls, centres[:, 1:])
    with pytest.raises(UsageError, match="leave out the clusters that nothing belongs to"):
        cls_gradients(cls, torch.where(centres > 1, math.nan, centres))
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="a number above 0"):
            gains(centres, scale=scale)
    with pytest.raises(UsageError, match=r"found \(2, 3, 4\) and \(2, 5, 4, 3\)"):
        responses(torch.ones(2, 3, 4), torch.ones(2, 5, 4, 3))
