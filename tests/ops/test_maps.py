"""Mass thresholds, heads, ranges and the way to pixels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import maps as reference

from zerolabel.errors import UsageError
from zerolabel.ops.maps import best_head, combine, guided, mass_threshold, normalise, to_pixels


def random_maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) ** 4


@pytest.mark.parametrize("mass", [0.0, 0.1, 0.6, 0.95, 1.0])
def test_the_threshold_equals_the_loop(mass):
    attention = random_maps(2, 3, 7, 5)
    found = mass_threshold(attention, mass)
    expected = [[reference.mass_threshold(one, mass) for one in image] for image in attention]
    assert torch.equal(found, torch.stack([torch.stack(image) for image in expected]))


def test_a_threshold_worked_out_by_hand():
    attention = torch.tensor([[0.1, 0.4], [0.3, 0.2]])
    assert mass_threshold(attention, 0.6).tolist() == [[False, True], [True, False]]
    assert mass_threshold(attention, 0.75).tolist() == [[False, True], [True, True]]


def test_all_mass_keeps_what_is_positive_and_none_keeps_nothing():
    attention = torch.tensor([[0.0, 1e-30], [0.0, 1.0]])
    assert mass_threshold(attention, 1).tolist() == [[False, True], [False, True]]
    assert not mass_threshold(attention, 0).any()
    assert not mass_threshold(torch.zeros(2, 2), 1).any()


def test_equal_patches_are_told_apart_by_their_place_always_the_same():
    kept = mass_threshold(torch.ones(4, 5), 0.5)
    assert kept.flatten().tolist() == [False] * 10 + [True] * 10


@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_masks_are_nested_and_minimal(seed, n, one, other, ties):
    attention = random_maps(1, n, seed=seed).double()
    attention = (attention * 3).round() if ties else attention
    low, high = sorted((one, other))
    small, large = mass_threshold(attention, low), mass_threshold(attention, high)
    assert not (small & ~large).any()
    total = attention.sum()
    kept = attention[small]
    if total > 0 and len(kept):
        assert kept.sum() >= low * total - 1e-9 * total
        assert kept.sum() - kept.min() <= low * total + 1e-9 * total


@pytest.mark.parametrize("mass", [-0.1, 1.1, float("nan")])
def test_a_mass_is_a_share(mass):
    with pytest.raises(UsageError, match="0..1"):
        mass_threshold(torch.ones(2, 2), mass)


@pytest.mark.parametrize("value", [-1e-3, float("nan")])
def test_logits_are_not_thresholded_as_if_they_were_shares(value):
    with pytest.raises(UsageError, match="0 or more"):
        mass_threshold(torch.tensor([[value, 1.0]]), 0.5)


def test_heads_are_combined():
    maps = random_maps(2, 3, 4, 5)
    assert torch.equal(combine(maps, 1), maps[:, 1])
    assert torch.allclose(combine(maps, "mean"), (maps[:, 0] + maps[:, 1] + maps[:, 2]) / 3)
    assert torch.equal(combine(maps, "max"), maps.max(1).values)
    masks = maps > 0.3
    assert torch.equal(combine(masks, "union"), masks[:, 0] | masks[:, 1] | masks[:, 2])


@pytest.mark.parametrize("heads", [3, -1, "median"])
def test_a_head_that_is_not_there_is_named(heads):
    with pytest.raises(UsageError, match=str(heads)):
        combine(random_maps(3, 4, 5), heads)


def test_the_best_head_has_the_highest_jaccard():
    truth = torch.zeros(4, 6, dtype=torch.bool)
    truth[1:3, 1:4] = True
    shifted = truth.roll(1, 1)
    assert best_head(torch.stack([~truth, shifted, truth]), truth) == (2, 1.0)
    head, score = best_head(torch.stack([~truth, shifted]), truth)
    assert head == 1
    assert score == pytest.approx(4 / 8)
    valid = torch.ones_like(truth)
    valid[:, 4] = False  # where the shifted mask is too far right
    assert best_head(shifted[None], truth, valid=valid)[1] == pytest.approx(4 / 6)
    with pytest.raises(UsageError, match="no object"):
        best_head(shifted[None], torch.zeros_like(truth))
    with pytest.raises(UsageError, match="one size"):
        best_head(shifted[None], truth[1:])


def test_ranges():
    maps = torch.tensor([[[1.0, 3.0]], [[10.0, 10.0]]])
    assert normalise(maps).tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
    assert normalise(maps, (1.0, 5.0)).tolist() == [[[0.0, 0.5]], [[1.0, 1.0]]]


@pytest.mark.parametrize("size", [(15, 21), (16, 24), (31, 13), (3, 2)])
@pytest.mark.parametrize(("mode", "torchs"), [("nearest", "nearest-exact"), ("bilinear",) * 2])
def test_pixels_agree_with_torch_where_the_grid_covers_all(size, mode, torchs):
    maps = random_maps(2, 5, 7)
    found = to_pixels(maps, size, mode=mode)
    assert torch.allclose(found, F.interpolate(maps[None], size=size, mode=torchs)[0], atol=1e-6)


def test_a_grid_that_covers_less_is_not_stretched():
    maps = torch.arange(6.0).reshape(1, 2, 3)
    found = to_pixels(maps, (9, 12), cover=(8 / 9, 1.0))  # patches of 4 pixels and a row over
    assert torch.equal(found[:, :8], to_pixels(maps, (8, 12)))
    assert torch.equal(found[:, 8], found[:, 7])
    smooth = to_pixels(maps, (9, 12), cover=(8 / 9, 1.0), mode="bilinear")
    assert torch.allclose(smooth[:, :8], to_pixels(maps, (8, 12), mode="bilinear"))


def test_guided_maps_follow_the_photo():
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[:, :, 29:] = 220  # an edge inside a patch
    maps = torch.zeros(1, 8, 8)
    maps[..., 4:] = 1.0  # the grid says 32
    found = guided(maps, image)[0]
    assert found.shape == (64, 64)
    assert 0 <= found.min() <= found.max() <= 1
    assert (found[:, 30] - found[:, 28]).min() > 0.5
    plain = to_pixels(maps, (64, 64), mode="bilinear")[0]
    assert (plain[:, 30] - plain[:, 28]).max() < 0.3
