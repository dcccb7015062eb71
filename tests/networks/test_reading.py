"""What is read from the last block: the right numbers, and no more work than they take."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import DINO, FAMILIES, images, lively
from reference.vit import forward as slow_forward
from reference.vit import within as slow_within
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from zerolabel.errors import UsageError
from zerolabel.networks.reading import OUTPUTS
from zerolabel.networks.vit import random_vit

SUBSETS = [s for n in (1, 2, len(OUTPUTS) - 1) for s in combinations(OUTPUTS, n)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("want", SUBSETS, ids="+".join)
def test_asking_for_less_gives_the_same(family, want):
    config = FAMILIES[family]
    net = lively(config)
    x = images(5 * config.patch, 3 * config.patch, dtype=torch.float32)
    with torch.no_grad():
        everything, out = net(x, want=OUTPUTS), net(x, want=want)
    for name in OUTPUTS:
        if name in want:
            expected, found = getattr(everything, name), getattr(out, name)
            torch.testing.assert_close(found, expected, atol=1e-6 * expected.abs().max(), rtol=0)
        else:
            assert getattr(out, name) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_the_rest_of_its_row_sum_to_one(family):
    config = FAMILIES[family]
    net = lively(config).double()
    x = images(6 * config.patch, 4 * config.patch, batch=1)
    with torch.no_grad():
        attention = net(x, want={"attention"}).attention[0]
    full = slow_forward(
        x[0], net.state_dict(), depth=config.depth, heads=config.heads, rule=config.pos_interp
    )["full"]
    itself = full[:, 0, : 1 + config.registers].sum(-1)  # CLS to CLS and to the registers
    torch.testing.assert_close(attention.sum((1, 2)) + itself, torch.ones_like(itself))
    assert (attention >= 0).all()


@pytest.mark.parametrize("heads", [1, 2, 16])
def test_what_patches_receive_is_summed_over_all_queries_tile_by_tile(heads):
    config = replace(DINO, patch=2, dim=32, depth=1, heads=heads, registers=3)
    net = lively(config).double()
    x = images(18, 22, batch=2)  # 99 patches, and 8 to 128 queries a tile
    with torch.no_grad():
        out = net(x, want={"received", "context", "keys"})
        block = net.blocks[0]
        q, k, _ = block.attn.qkv(block.norm1(out.context)).chunk(3, -1)
        split = (2, -1, heads, 32 // heads)
        q, k = (part.reshape(split).transpose(1, 2) for part in (q, k))
        dense = (q @ k.transpose(2, 3) / (32 // heads) ** 0.5).softmax(-1)  # (B, heads, T, T)
    expected = dense.min(dim=1).values.sum(dim=1)[:, 4:].reshape(2, 9, 11)
    torch.testing.assert_close(out.received, expected, atol=1e-10, rtol=0)
    assert (out.received >= 0).all()
    if heads == 1:  # every query spends 1 on all tokens
        spent = dense[:, 0, :, :4].sum((1, 2)) + out.received.sum((1, 2))
        torch.testing.assert_close(spent, torch.full_like(spent, 103.0))


def test_the_context_is_what_enters_the_last_block():
    net = lively(FAMILIES["dinov2-reg"]).double()
    x = images(21, 35)
    with torch.no_grad():
        out = net(x, want={"context", "tokens", "cls"})
        z = net.norm(net.blocks[-1](out.context))
    assert torch.equal(out.context, net.trunk(x)[0])
    assert out.context.shape == (2, 1 + 4 + 15, 128)
    torch.testing.assert_close(z[:, 0], out.cls, atol=1e-10, rtol=0)
    torch.testing.assert_close(z[:, 5:].reshape(2, 3, 5, -1), out.tokens, atol=1e-10, rtol=0)


def linear_flops(net, x, want):
    """Multiplications in the linear layers that ran (not the convolution, not the attention)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x, want=want)
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.get(op, 0) for op in (torch.ops.aten.addmm, torch.ops.aten.mm)) // 2


def test_the_shortcuts_save_what_they_promise():
    net = random_vit(replace(DINO, depth=1), seed=0)
    x = images(64, 64, batch=1, dtype=torch.float32)
    N, D = 64, DINO.dim
    rows = {  # of D x D products
        ("keys",): N,
        ("attention",): (N + 1) + 1,  # all keys, one query
        ("cls",): 2 * (N + 1) + 1 + 1 + 8,  # all keys and values; query, projection, MLP of CLS
        ("tokens",): 12 * (N + 1),
        ("queries",): N,
        ("values",): N,
        ("queries", "values"): 2 * N,
        ("received",): 2 * (N + 1),  # all keys, all queries
        ("context",): 0,
        ("context", "keys"): N,
        ("queries", "cls"): 3 * (N + 1) + 1 + 8,
    }
    for want, number in rows.items():
        assert linear_flops(net, x, want) == number * D * D, want


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


@pytest.mark.parametrize(
    "want", [("keys",), ("attention", "cls"), ("received",), OUTPUTS], ids="+".join
)
def test_no_n_by_n_matrix_is_ever_held(want):
    config = replace(DINO, patch=2, grid=40, depth=2)
    net = random_vit(config, seed=0)
    N = 40 * 40
    with torch.no_grad(), Largest() as largest:
        net(images(80, 80, batch=1, dtype=torch.float32), want=want)
    assert largest.numel <= (N + 1) * 4 * config.dim < N * N


def context_of(net, height, width):
    with torch.no_grad():
        return net(images(height, width, batch=1), want={"context"}).context[0]


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    heads=st.sampled_from([1, 2, 4]),
    regions=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_cls_within_regions_equals_a_masked_attention_matrix(family, grid, heads, regions, seed):
    config = replace(FAMILIES[family], heads=heads, dim=32, depth=1 + seed % 2)
    net = lively(config, seed=seed).double()
    context = context_of(net, *(config.patch * side for side in grid))
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(regions, *grid, generator=generator) < torch.rand(1, generator=generator)
    with torch.no_grad():
        found = net.within(context, masks)
    for mask, own in zip(masks, found, strict=True):  # one of them may be empty
        expected = slow_within(
            context, net.state_dict(), mask, depth=config.depth, heads=config.heads
        )
        torch.testing.assert_close(own, expected, atol=1e-10, rtol=0)
    with torch.no_grad():  # what a region gives depends on no other region
        for i in range(regions):
            alone = net.within(context, masks[i : i + 1])[0]
            torch.testing.assert_close(alone, found[i], atol=1e-10, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_region_of_everything_is_the_image_where_there_are_no_registers(family):
    config = FAMILIES[family]
    net = lively(config).double()
    x = images(3 * config.patch, 5 * config.patch, batch=1)
    with torch.no_grad():
        out = net(x, want={"cls", "context"})
        found = net.within(out.context[0], torch.ones(2, 3, 5, dtype=torch.bool))
    assert torch.equal(found[0], found[1])
    if config.registers:
        assert (found[0] - out.cls[0]).abs().max() > 1e-3
    else:
        torch.testing.assert_close(found[0], out.cls[0], atol=1e-10, rtol=0)


def test_cls_does_not_see_patches_outside_its_region():
    net = lively(FAMILIES["dinov2-reg"]).double()
    context = context_of(net, 21, 28)
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks[0, :, :2] = masks[1, 1, 1:3] = True
    changed = context.clone()
    changed[1:5] *= -1  # the registers
    changed[5:].unflatten(0, (3, 4))[:, 2:] *= -1  # the right half
    with torch.no_grad():
        before, after = net.within(context, masks), net.within(changed, masks)
    assert torch.equal(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_no_regions_and_wrong_grids():
    net = lively(FAMILIES["dinov2-reg"]).double()
    context = context_of(net, 21, 28)
    with torch.no_grad():
        assert net.within(context, torch.zeros(0, 3, 4, dtype=torch.bool)).shape == (0, 128)
    for wrong in ((2, 4, 4), (3, 4), (1, 2, 3, 4)):
        with pytest.raises(UsageError, match=r"masks \(R, h, w\) of 12 patches.*found \("):
            net.within(context, torch.ones(wrong, dtype=torch.bool))


def test_regions_cost_one_row_each():
    net = random_vit(replace(DINO, depth=1), seed=0)
    context = context_of(net.double(), 64, 64)
    N, D = 64, DINO.dim
    for regions in (1, 7):
        masks = torch.ones(regions, 8, 8, dtype=torch.bool)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.within(context, masks)
        counts = counter.get_flop_counts()["Global"]
        found = sum(counts.get(op, 0) for op in (torch.ops.aten.addmm, torch.ops.aten.mm)) // 2
        # keys and values of CLS and patches, one query; projection and MLP of every region's row
        assert found == (2 * (N + 1) + 1 + 9 * regions) * D * D
