"""Masks that are hard forwards and soft backwards, and the loss that judges them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import rectification as reference
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.ops.rectification import contrastive, gumbel_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


# --- masks ---------------------------------------------------------------------------------------


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    tau=st.sampled_from([0.1, 1.0, 5.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_one_word_per_position_exactly(shape, scale, tau, seed):
    logits = (scale * draw(*shape, seed=seed, dtype=torch.float32)).requires_grad_()
    mask = gumbel_mask(logits, generator=seeded(seed), tau=tau)
    assert ((mask == 0) | (mask == 1)).all()
    assert (mask.sum(1) == 1).all()
    mask.pow(2).sum().backward()
    assert logits.grad.isfinite().all()


def test_the_gradient_is_that_of_the_softmax():
    logits, weights = draw(2, 3, 2, 4).requires_grad_(), draw(2, 3, 2, 4, seed=1)
    (gumbel_mask(logits, generator=seeded(5), tau=0.7) * weights).sum().backward()
    noise = -torch.empty(2, 3, 2, 4).exponential_(generator=seeded(5)).log().double()
    again = logits.detach().clone().requires_grad_()
    (((again + noise) / 0.7).softmax(1) * weights).sum().backward()
    torch.testing.assert_close(logits.grad, again.grad, atol=1e-12, rtol=0)
    assert logits.grad.abs().sum() > 0


def test_words_win_as_often_as_their_softmax_says():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    mask = gumbel_mask(logits[None, :, None, None].expand(1, 4, 200, 200), generator=seeded())
    torch.testing.assert_close(mask.mean((0, 2, 3)), logits.softmax(0), atol=0.01, rtol=0)


def test_large_scores_leave_no_choice():
    logits = draw(2, 5, 3, 3)
    mask = gumbel_mask(1e4 * logits, generator=seeded())
    assert torch.equal(mask.argmax(1), logits.argmax(1))


def test_the_generator_decides_and_torchs_own_state_does_not():
    logits, state = torch.zeros(1, 4, 9, 9), torch.get_rng_state()
    one, again, other = (gumbel_mask(logits, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    strided = torch.zeros(1, 9, 9, 4).permute(0, 3, 1, 2)  # the layout in memory neither
    assert torch.equal(gumbel_mask(strided, generator=seeded(1)), one)


@pytest.mark.parametrize(("shape", "tau"), [((2, 3, 4), 1.0), ((1, 2, 3, 4), 0.0)])
def test_masks_of_something_else(shape, tau):
    with pytest.raises(UsageError, match="tau above 0; found"):
        gumbel_mask(torch.zeros(shape), generator=seeded(), tau=tau)


# --- the loss ------------------------------------------------------------------------------------


def world(*, images=3, words=4, size=(2, 3), dim=5, seed=0, dtype=torch.float64):
    """Soft masks, so that every word has something under it."""
    mask = draw(images, words, *size, seed=seed, dtype=dtype).softmax(1)
    mask = mask * size[0] * size[1]  # no area below that of one position
    dense = normalize(draw(images, *size, dim, seed=seed + 1, dtype=dtype), dim=3)
    queries = normalize(draw(words, dim, seed=seed + 2, dtype=dtype), dim=1)
    present = draw(images, words, seed=seed + 3) > 0
    present[0] = False
    present[-1, seed % words] = True
    return mask, dense, queries, present


CHOICES = [(pool, cosine) for pool in ("area", "mask") for cosine in (False, True)]


@pytest.mark.parametrize(("pool", "cosine"), CHOICES)
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_equals_the_loop_over_images_words_and_positions(pool, cosine, dtype, close):
    options = {"pool": pool, "cosine": cosine, "scale": 10.0}
    mask, *rest = world(dtype=dtype)
    found = []
    for function in (contrastive, reference.contrastive):
        leaf = mask.clone().requires_grad_()
        loss = function(leaf, *rest, **options)
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(*found, atol=close, rtol=close)


@given(
    images=st.integers(1, 3),
    words=st.integers(1, 4),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dim=st.integers(2, 4),
    choice=st.sampled_from(CHOICES),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_equals_the_loop_at_any_size(images, words, size, dim, choice, seed):
    made = world(images=images, words=words, size=size, dim=dim, seed=seed)
    pool, cosine = choice
    if pool == "mask" and made[0].sum((2, 3)).min() < 1:
        return  # the loop divides by less than one position there
    found = contrastive(*made, pool=pool, cosine=cosine)
    expected = reference.contrastive(*made, pool=pool, cosine=cosine)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-10)


@pytest.mark.parametrize(("pool", "cosine"), CHOICES)
def test_gradient_of_masks_features_and_queries(pool, cosine):
    mask, dense, queries, present = world(images=2, words=3, size=(2, 2), dim=4)
    leaves = tuple(x.requires_grad_() for x in (mask, dense, queries))
    assert torch.autograd.gradcheck(
        lambda *x: contrastive(*x, present, pool=pool, cosine=cosine, scale=3.0), leaves
    )


@pytest.mark.parametrize(("pool", "cosine"), CHOICES)
def test_a_word_that_nothing_shows_has_a_finite_gradient(pool, cosine):
    mask, dense, queries, present = world(dtype=torch.float32)
    mask = torch.zeros_like(mask).index_fill_(1, torch.tensor([1]), 1.0).requires_grad_()
    present[:] = True
    loss = contrastive(mask, dense, queries, present, pool=pool, cosine=cosine)
    loss.backward()
    assert loss.isfinite()
    assert mask.grad.isfinite().all()
    assert mask.grad[:, 0].abs().sum() > 0  # and it can begin to show
    assert mask.grad.abs().max() <= 1000


def test_images_that_hold_nothing_are_left_out():
    mask, dense, queries, present = world()
    whole = contrastive(mask, dense, queries, present)
    held = present.any(1)
    assert not held.all()
    torch.testing.assert_close(
        contrastive(mask[held], dense[held], queries, present[held]), whole, atol=1e-12, rtol=0
    )
    mask.requires_grad_()
    nothing = contrastive(mask, dense, queries, torch.zeros_like(present))
    nothing.backward()
    assert nothing.item() == 0
    assert not mask.grad.any()


def test_right_masks_cost_less_than_wrong_ones():
    queries = torch.eye(3)
    truth = torch.tensor([[0, 0, 1], [2, 2, 1]])
    dense, present = queries[truth][None], torch.ones(1, 3, dtype=torch.bool)
    for pool, cosine in CHOICES:
        right, wrong = (
            contrastive(
                torch.eye(3)[labels].permute(2, 0, 1)[None],
                dense,
                queries,
                present,
                pool=pool,
                cosine=cosine,
            )
            for labels in (truth, (truth + 1) % 3)
        )
        assert right < 1e-6 < 1 < wrong


def test_the_area_counts_unless_each_mask_is_averaged_by_itself():
    mask, dense, queries, present = world()
    half = mask / 2
    options = {"scale": 3.0}
    assert contrastive(half, dense, queries, present, **options) != contrastive(
        mask, dense, queries, present, **options
    )
    mask, half = 20 * mask, 10 * mask  # not below one position
    for choice in ({"pool": "mask"}, {"cosine": True}):
        torch.testing.assert_close(
            contrastive(half, dense, queries, present, **choice, **options),
            contrastive(mask, dense, queries, present, **choice, **options),
        )


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_that_do_not_fit(wrong):
    made = list(world())
    made[wrong] = made[wrong][:, 1:]
    with pytest.raises(UsageError, match="Expected masks"):
        contrastive(*made)


def test_a_pool_that_is_none():
    with pytest.raises(UsageError, match="Unknown pool 'areas'. Did you mean 'area'"):
        contrastive(*world(), pool="areas")
