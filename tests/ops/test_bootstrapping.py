"""Targets and losses of TransFGU against loops over patches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import bootstrapping as slow

from zerolabel.errors import UsageError
from zerolabel.ops.bootstrapping import (
    diversity_loss,
    mix,
    normalise,
    peer_loss,
    peer_weight,
    responding,
    separate,
    uncertainty_loss,
    with_background,
)

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
SEEDS = st.integers(0, 99)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def shares(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def same(found, expected, atol=1e-12):
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=atol, rtol=0)


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def masks(shape, seed):
    return shares(*shape, seed=seed) > 0.5


# targets


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_normalise_against_loops(shape, seed):
    maps = draw(*shape, seed=seed)
    maps[-1] = 0.7  # an image without contrast
    expected = tensor([slow.normalise(image.tolist()) for image in maps])
    same(normalise(maps), expected)
    assert not normalise(maps)[-1].any()


def test_normalise_takes_the_extremes_of_all_channels():
    maps = tensor([[[[2.0, 4.0]], [[3.0, 6.0]]], [[[0.0, 0.0]], [[0.0, 1e-300]]]])
    assert normalise(maps).tolist() == [[[[0, 0.5]], [[0.25, 1]]], [[[0, 0]], [[0, 1]]]]


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=SEEDS, threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_background_against_loops(shape, seed, threshold):
    maps = shares(*shape, seed=seed)
    found = with_background(maps, threshold=threshold)
    B, _, h, w = shape
    expected = [slow.background(values, threshold) for values in slow.patches(maps)]
    same(found[:, 0], tensor(expected).reshape(B, h, w))
    assert torch.equal(found[:, 1:], maps)
    clear = [max(values) > threshold for values in slow.patches(maps)]
    assert responding(maps, threshold=threshold).flatten().tolist() == clear


def test_background_wins_below_half_the_threshold():
    peaks = tensor([0.0, 0.03, 0.049, 0.051, 0.1, 0.7])
    maps = torch.stack([peaks, peaks / 2])[None, :, None]  # (1, 2, 1, 6)
    assert (with_background(maps).argmax(1) == 0)[0, 0].tolist() == [True] * 3 + [False] * 3
    assert responding(maps)[0, 0].tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("stuff", [0, 1, 3])
def test_separate_against_loops(stuff):
    maps, foreground = 1 + shares(2, 3, 2, 4), masks((2, 2, 4), 1)
    found = separate(maps, foreground, stuff=stuff)
    for b in range(2):
        for k in range(3):
            for i in range(2):
                for j in range(4):
                    stays = bool(foreground[b, i, j]) == (k < 3 - stuff)
                    assert found[b, k, i, j] == (maps[b, k, i, j] if stays else 0)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=SEEDS, share=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_mix_against_loops(shape, seed, share):
    targets, logits = shares(*shape, seed=seed), 5 * draw(*shape, seed=seed)
    found = slow.patches(mix(targets, logits, share=share))
    pairs = zip(slow.patches(targets), slow.patches(logits), strict=True)
    for values, (told, said) in zip(found, pairs, strict=True):
        chances = slow.softmax(said)
        expected = [(1 - share) * t + share * p for t, p in zip(told, chances, strict=True)]
        assert values == pytest.approx(expected, abs=1e-12)


def test_no_gradient_reaches_the_teacher():
    logits, targets = draw(1, 3, 2, 2).requires_grad_(), shares(1, 3, 2, 2).requires_grad_()
    mix(targets, logits).sum().backward()
    assert logits.grad is None
    assert targets.grad is not None


# losses


def order_of(seed, channels):
    return torch.randperm(channels, generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES, seed=SEEDS, weight=st.sampled_from([0.0, 0.03, 0.1, 2.0]), coarse=st.booleans()
)
def test_peer_loss_against_loops(shape, seed, weight, coarse):
    logits, targets = 3 * draw(*shape, seed=seed), shares(*shape, seed=seed + 1)
    if coarse:  # ties, and patches that respond to nothing
        targets = (2 * targets).round() * masks((shape[0], 1, *shape[2:]), seed)
    generator = torch.Generator().manual_seed(seed)
    found = peer_loss(logits, targets, weight=weight, generator=generator)
    order = order_of(seed, shape[1])
    expected = slow.peer_loss(slow.patches(logits), slow.patches(targets), weight, order)
    assert float(found) == pytest.approx(expected, abs=1e-10)


def test_the_order_of_peer_loss_is_one_for_the_batch_and_drawn_at_any_weight():
    logits, targets = draw(3, 5, 2, 2), shares(3, 5, 2, 2)
    states = []
    for weight in (0.0, 0.1):
        generator = torch.Generator().manual_seed(4)
        peer_loss(logits, targets, weight=weight, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states)
    generator = torch.Generator().manual_seed(4)
    orders = {float(peer_loss(logits, targets, weight=1, generator=generator)) for _ in range(9)}
    assert len(orders) > 4


def test_a_single_channel_has_nothing_wrong():
    generator = torch.Generator().manual_seed(0)
    logits, targets = draw(2, 1, 2, 2), shares(2, 1, 2, 2)
    assert peer_loss(logits, targets, weight=0.1, generator=generator) == 0
    assert uncertainty_loss(logits) == 0
    assert uncertainty_loss(draw(2, 2, 2, 2), background=True) == 0
    assert diversity_loss(shares(2, 1, 4)) == 0


def test_peer_weights():
    expected = [0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.1, 0.1]
    assert [peer_weight(epoch) for epoch in range(10)] == expected
    assert peer_weight(1000) == 0.1
    with pytest.raises(UsageError, match="or more"):
        peer_weight(-1)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=SEEDS, background=st.booleans(), kind=st.integers(0, 3))
def test_uncertainty_against_loops(shape, seed, background, kind):
    B, K, h, w = shape
    logits = 3 * draw(B, K + background, h, w, seed=seed)
    certain = [
        None,
        masks((B, h, w), seed),
        torch.zeros(B, h, w, dtype=torch.bool),
        torch.ones(B, h, w, dtype=torch.bool),
    ][kind]
    found = uncertainty_loss(logits, background=background, certain=certain)
    counts = [True] * (B * h * w) if certain is None else certain.flatten().tolist()
    expected = slow.uncertainty_loss(slow.patches(logits), background, counts)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_uncertainty_of_what_is_equal_and_of_what_is_sure():
    assert uncertainty_loss(torch.zeros(2, 4, 3, 3)) == 1
    assert uncertainty_loss(50 * torch.eye(3)[None, :, :, None]) < 1e-12
    tied = torch.full((1, 3, 1, 1), -50.0)
    tied[0, :2] = 0
    assert uncertainty_loss(tied) == 1


def test_the_background_channel_takes_no_part():
    logits = draw(2, 4, 3, 3).requires_grad_()
    loss = uncertainty_loss(logits, background=True)
    same(loss, uncertainty_loss(logits[:, 1:]))
    loss.backward()
    assert not logits.grad[:, 0].any()
    assert logits.grad[:, 1:].any()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    seed=SEEDS,
    rule=st.sampled_from(["code", "paper"]),
)
def test_diversity_against_loops(shape, seed, rule):
    classes = torch.nn.functional.normalize(draw(*shape, seed=seed), dim=2)
    expected = [slow.diversity_loss(image.tolist(), rule) for image in classes]
    same(diversity_loss(classes, rule=rule), tensor(sum(expected) / len(expected)))


def test_diversity_of_known_classes():
    axes = torch.eye(4, dtype=torch.float64)[None]
    same(diversity_loss(axes), tensor(1.0))
    same(diversity_loss(axes[:, :1].expand(1, 3, 4)), tensor(2.0))
    same(diversity_loss(torch.stack([axes[0, 0], -axes[0, 0]])[None]), tensor(0.0))
    same(diversity_loss(axes[:, :1].expand(1, 3, 4), rule="paper"), tensor(1.5))
    same(diversity_loss(torch.stack([axes[0, 0], -axes[0, 0]])[None], rule="paper"), tensor(1.0))


def test_gradients():
    logits, targets = draw(2, 3, 2, 2).requires_grad_(), shares(2, 3, 2, 2)
    certain = masks((2, 2, 2), 3)

    def peer(x):
        generator = torch.Generator().manual_seed(1)
        return peer_loss(x, targets, weight=0.1, generator=generator)

    assert torch.autograd.gradcheck(peer, logits)
    assert torch.autograd.gradcheck(uncertainty_loss, logits)
    for background in (False, True):
        assert torch.autograd.gradcheck(
            lambda x, b=background: uncertainty_loss(x, background=b, certain=certain), logits
        )
    classes = draw(2, 3, 4).requires_grad_()
    for rule in ("code", "paper"):
        assert torch.autograd.gradcheck(
            lambda x, r=rule: diversity_loss(torch.nn.functional.normalize(x, dim=2), rule=r),
            classes,
        )


def test_losses_without_anything_to_count_still_go_backwards():
    logits, classes = draw(1, 3, 2, 2).requires_grad_(), draw(1, 1, 4).requires_grad_()
    none = torch.zeros(1, 2, 2, dtype=torch.bool)
    (uncertainty_loss(logits, background=True, certain=none) + diversity_loss(classes)).backward()
    assert not logits.grad.any()
    assert not classes.grad.any()


def test_every_loss_falls_when_followed():
    logits, targets = draw(2, 4, 3, 3).requires_grad_(), shares(2, 4, 3, 3)
    classes = draw(2, 4, 6).requires_grad_()

    def losses():
        generator = torch.Generator().manual_seed(0)
        unit = torch.nn.functional.normalize(classes, dim=2)
        return [
            peer_loss(logits, targets, weight=0.05, generator=generator),
            uncertainty_loss(logits),
            diversity_loss(unit),
        ]

    before = torch.stack(losses()).tolist()
    optimiser = torch.optim.Adam([logits, classes], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        sum(losses()).backward()
        optimiser.step()
    after = torch.stack(losses()).tolist()
    assert all(now < then for now, then in zip(after, before, strict=True))


def test_what_does_not_fit():
    maps, generator = torch.ones(2, 3, 4, 5), torch.Generator()
    for function in (normalise, with_background, responding, uncertainty_loss):
        with pytest.raises(UsageError, match="one channel and patch or more"):
            function(maps[:, :0])
    with pytest.raises(UsageError, match="one channel and patch or more"):
        uncertainty_loss(maps[:, :1], background=True)
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match=r"in 0\.\.1"):
            with_background(maps, threshold=threshold)
        with pytest.raises(UsageError, match=r"in 0\.\.1"):
            mix(maps, maps, share=threshold)
    with pytest.raises(UsageError, match="a bool foreground"):
        separate(maps, torch.ones(2, 4, 5), stuff=1)
    with pytest.raises(UsageError, match="0 to 3 channels"):
        separate(maps, torch.ones(2, 4, 5).bool(), stuff=4)
    with pytest.raises(UsageError, match="With a background, both"):
        peer_loss(maps, maps[:, 1:], weight=0, generator=generator)
    with pytest.raises(UsageError, match="weigh 0 or more"):
        peer_loss(maps, maps, weight=-0.1, generator=generator)
    with pytest.raises(UsageError, match="bool patches"):
        uncertainty_loss(maps, certain=torch.ones(2, 5, 4).bool())
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        diversity_loss(maps[0], rule="papr")
    with pytest.raises(UsageError, match=r"found \(2, 0, 3\)"):
        diversity_loss(torch.ones(2, 0, 3))
