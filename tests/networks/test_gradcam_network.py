"""The gradients of all centres at once against a backward pass for each."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import DINO, FAMILIES, images, lively
from reference.gradcam import gradients as slow_gradients
from torch.utils.flop_counter import FlopCounterMode

from zerolabel.networks.gradcam import cls_row
from zerolabel.networks.vit import random_vit
from zerolabel.ops.gradcam import LOSSES, cls_gradients, responses


def row_of(net, x):
    with torch.no_grad():
        z, grid = net.trunk(x)
        return cls_row(net.blocks[-1], net.norm, z, grid=grid), z


def centres_of(net, count, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, net.config.dim, dtype=torch.float64, generator=generator)
    return centres.to(net.norm.weight.dtype)


def expected_of(net, z, centres, *, grid, loss):
    config = net.config
    found = [
        slow_gradients(
            tokens,
            net.state_dict(),
            centres,
            depth=config.depth,
            heads=config.heads,
            grid=grid,
            loss=loss,
        )
        for tokens in z
    ]
    return tuple(torch.stack(part) for part in zip(*found, strict=True))


def same(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@settings(max_examples=100, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    heads=st.integers(1, 6),
    centres=st.integers(1, 7),
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    loss=st.sampled_from(LOSSES),
    seed=st.integers(0, 99),
)
def test_all_gradients_equal_a_backward_pass_each(family, heads, centres, batch, grid, loss, seed):
    config = replace(FAMILIES[family], heads=heads, dim=4 * heads, depth=1 + seed % 2)
    net = lively(config, seed=seed).double()
    x = images(*(config.patch * side for side in grid), batch=batch)
    row, z = row_of(net, x)
    wanted = 2 * centres_of(net, centres, seed=seed)
    with torch.no_grad():
        found, slopes = row.gradients(wanted, loss=loss), row.slopes()
    expected, cls, attention = expected_of(net, z, wanted, grid=grid, loss=loss)
    assert found.shape == (batch, centres, *grid)
    same(found, expected)
    same(row.cls, cls)
    same(row.attention, attention)
    same(torch.einsum("bkd,bdhw->bkhw", cls_gradients(row.cls, wanted, loss=loss), slopes), found)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_and_attention_are_those_that_the_network_reads(family):
    config = FAMILIES[family]
    net = lively(config)
    x = images(3 * config.patch, 5 * config.patch, dtype=torch.float32)
    row, _ = row_of(net, x)
    with torch.no_grad():
        out = net(x, want={"cls", "attention"})
    same(row.cls, out.cls, atol=2e-5)
    same(row.attention, out.attention.mean(1), atol=1e-6)


def test_a_step_along_the_attention_lowers_the_loss_as_foretold():
    net = lively(replace(DINO, depth=1)).double()
    row, z = row_of(net, images(24, 32, batch=1))
    centre = centres_of(net, 1)
    with torch.no_grad():
        slope = row.gradients(centre)[0, 0]
        change, step = torch.randn(slope.shape, dtype=torch.float64), 1e-5
        block, attn = net.blocks[0], net.blocks[0].attn
        q, k, v = (attn.split(part) for part in attn.qkv(block.norm1(z)).chunk(3, -1))
        weights = (q[:, :, :1] @ k.transpose(2, 3) * 64**-0.5).softmax(-1)  # (1, heads, 1, T)
        losses = []
        for sign in (1, -1):
            moved = weights.clone()
            moved[..., 1:] += sign * step * change.flatten()
            mixed = attn.proj((moved @ v).transpose(1, 2).flatten(2))
            cls = net.norm(block.finish(z[:, :1], mixed))[:, 0]
            losses.append(1 - torch.cosine_similarity(cls, centre))
    measured = (losses[0] - losses[1]) / (2 * step)
    torch.testing.assert_close(measured[0], (slope * change).sum() * 2, rtol=1e-6, atol=0)  # heads


def test_images_and_centres_do_not_meet():
    net = lively(FAMILIES["dinov2-reg"]).double()
    x, centres = images(21, 28, batch=3), centres_of(net, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        whole = row_of(net, x)[0].gradients(centres)
        for i in range(3):
            same(row_of(net, x[i : i + 1])[0].gradients(centres)[0], whole[i])
        same(row_of(net, x)[0].gradients(centres[order]), whole[:, order])


@pytest.mark.parametrize("loss", LOSSES)
def test_single_precision(loss):
    net = lively(FAMILIES["dinov2-reg"])
    row, z = row_of(net, images(28, 21, dtype=torch.float32))
    centres = centres_of(net, 5)
    with torch.no_grad():
        found = row.gradients(centres, loss=loss)
    expected, *_ = expected_of(net.double(), z.double(), centres.double(), grid=(4, 3), loss=loss)
    assert found.dtype == torch.float32
    same(found.double(), expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", ["lively", "random"])
@pytest.mark.parametrize("side", [8, 24])
def test_degenerate_images_and_centres(weights, loss, side):
    net = lively(DINO) if weights == "lively" else random_vit(DINO, seed=0).eval()
    centres = centres_of(net, 3)
    centres[1] = 0
    row, _ = row_of(net, torch.zeros(2, 3, side, side))
    with torch.no_grad():
        found = row.gradients(centres, loss=loss)
        answer = responses(row.attention, found)
    assert found.isfinite().all()
    assert answer.isfinite().all()
    assert not found[:, 1].any()
    assert found[:, 0].any()


def test_a_cls_token_without_direction_has_no_cosine():
    net = lively(DINO).double()
    with torch.no_grad():
        net.norm.weight.zero_()
        net.norm.bias.zero_()
        row, _ = row_of(net, images(24, 16))
        assert not row.cls.any()
        for loss in LOSSES:
            assert not row.gradients(centres_of(net, 3), loss=loss).any()


def test_no_token_passes_a_projection_but_cls():
    net = random_vit(replace(DINO, depth=1), seed=0)
    N, D, heads, K = 64, DINO.dim, DINO.heads, 7
    z, grid = net.trunk(images(64, 64, batch=1, dtype=torch.float32))
    centres = centres_of(net, K)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        row = cls_row(net.blocks[-1], net.norm, z, grid=grid)
    # query, its way to the keys, values, projection and MLP of one token; scores and their use
    assert counter.get_total_flops() // 2 == 12 * D * D + 2 * heads * D * (N + 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        row.gradients(centres)
    # MLP, projection, values, and one product with the patches; cosines and the bias are small
    assert 0 <= counter.get_total_flops() // 2 - K * D * (10 * D + N) <= 2 * K * D
