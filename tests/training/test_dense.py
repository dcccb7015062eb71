import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense as slow

from zerolabel.training import augment, dense
from zerolabel.training.dense import Places

B, MINE, THEIRS = 12, 3, 5  # images, sides of the student's and the teacher's grid
UNIFORM = st.floats(0, 1, exclude_max=True, width=32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed))


def places(seed, scale=(0.3, 1.0)):
    drawn = augment.draw(augment.View(16, scale), B, generator=generator(seed))
    return Places(drawn.box, drawn.flip)


def coordinates(view, grid):
    """Tokens that say where they lie: (B, g, g, 2)."""
    return dense.token_centres(view, grid).unflatten(1, (grid, grid))


def within(view, at, margin):
    """Whether places (B, M, 2) lie in the views, at least `margin` of a view from its border."""
    relative = (at - view.box[:, None, :2]) / view.box[:, None, 2:]
    return ((relative > margin) & (relative < 1 - margin)).all(-1)


def test_patches_lie_where_the_loops_say():
    view = places(0)
    assert 0 < view.flip.sum() < B
    found = dense.token_centres(view, MINE).unflatten(1, (MINE, MINE))
    for i in range(B):
        for row in range(MINE):
            for column in range(MINE):
                expected = slow.centre(view.box[i], view.flip[i] > 0, MINE, row, column)
                torch.testing.assert_close(found[i, row, column], torch.stack(expected))


def test_reading_equals_the_loops():
    view, at = places(0), noise(B, 9, 2)
    tokens = torch.randn(B, THEIRS, THEIRS, 4, generator=generator())
    found = dense.sample_at(tokens, at, view)
    for i in range(B):
        for m in range(9):
            expected = slow.read(tokens[i], view.box[i], view.flip[i] > 0, at[i, m])
            torch.testing.assert_close(found[i, m], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_tokens_that_know_their_place_meet_their_own(seed):
    mine, other = places(2 * seed, (0.1, 0.5)), places(2 * seed + 1)
    pairs = dense.matched(
        coordinates(mine, MINE),
        coordinates(other, THEIRS),
        (mine, other),
        noise(B, MINE**2),
        MINE**2,
    )
    # Places that differ by at most half a patch of the teacher's near the border, else by nothing.
    here = pairs.mine.unflatten(0, (B, -1))
    there = pairs.theirs.unflatten(0, (B, -1))
    weight = pairs.weight.unflatten(0, (B, -1))
    assert torch.equal(weight > 0, within(other, here, 0))
    assert 0 < weight.sum() < weight.numel()
    between = within(other, here, 0.5 / THEIRS)
    torch.testing.assert_close(there[between], here[between], atol=1e-5, rtol=0)
    reach = (0.5 / THEIRS * other.box[:, None, 2:]).expand_as(here)
    assert ((there - here).abs() <= reach + 1e-5)[weight > 0].all()
    for i in range(B):
        assert [slow.inside(other.box[i], at) for at in here[i]] == (weight[i] > 0).tolist()


def test_views_without_a_common_place_do_not_count():
    mine = Places(torch.tensor([[0.0, 0.0, 0.4, 0.4]]), torch.zeros(1))
    other = Places(torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.ones(1))
    tokens = torch.randn(1, 4, 4, 2, generator=generator())
    pairs = dense.matched(tokens, tokens, (mine, other), noise(1, 16), 5)
    assert pairs.weight.tolist() == [0.0] * 5
    itself = dense.matched(tokens, tokens, (mine, mine), noise(1, 16), 16)
    torch.testing.assert_close(itself.theirs, itself.mine)
    assert (itself.weight == 1).all()


def test_common_places_are_drawn_first():
    inside = noise(40, 20, seed=1) < 0.3
    chosen = dense.choose(inside, noise(40, 20), 6)
    for row, picked in zip(inside, chosen, strict=True):
        assert len(set(picked.tolist())) == 6
        assert row[picked].sum() == min(6, row.sum())
    assert dense.choose(inside, noise(40, 20), 99).shape == (40, 20)


def test_which_of_the_common_places_is_left_to_chance():
    inside = torch.ones(4000, 5, dtype=torch.bool)
    chosen = dense.choose(inside, noise(4000, 5), 1)
    assert (chosen.flatten().bincount(minlength=5) - 800).abs().max() < 120


@settings(max_examples=150, deadline=None)
@given(
    share=st.floats(0, 1),
    grid=st.integers(2, 30),
    numbers=st.lists(UNIFORM, min_size=3, max_size=3),
)
def test_a_rectangle_hides_the_wanted_share(share, grid, numbers):
    mask = dense.block_mask(torch.tensor([numbers]), grid, torch.tensor([share]))[0]
    assert mask.shape == (grid, grid)
    rows, columns = mask.any(1), mask.any(0)
    assert torch.equal(mask, rows[:, None] & columns)
    for at in (rows.nonzero(), columns.nonzero()):
        assert not len(at) or at.max() - at.min() + 1 == len(at)  # without gaps
    assert abs(mask.sum().item() - share * grid**2) <= grid  # one row of patches


def test_every_patch_is_hidden_now_and_then_and_none_at_a_share_of_zero():
    numbers, share = noise(500, 3), torch.full((500,), 0.3)
    share[::2] = 0
    mask = dense.block_mask(numbers, 6, share)
    assert not mask[::2].any()
    assert mask[1::2].any(0).all()
    assert mask[1::2].float().mean() == pytest.approx(0.3, abs=0.03)
    heights = mask[1::2].any(2).sum(1)
    assert heights.min() < heights.max()


def test_hidden_patches_are_drawn_first_and_weigh_half():
    masked = noise(B, 4, 4, seed=1) < 0.2
    tokens = torch.arange(B * 16.0).reshape(B, 4, 4, 1)
    pairs = dense.hidden(tokens, tokens + 0.5, masked, noise(B, 16), 6)
    torch.testing.assert_close(pairs.theirs, pairs.mine + 0.5)
    chosen = pairs.mine.flatten().long()
    is_hidden = masked.flatten()[chosen]
    expected = masked.flatten(1).sum(1).clamp(max=6)
    assert torch.equal(is_hidden.unflatten(0, (B, 6)).sum(1), expected)
    count = torch.tensor(float(len(chosen)))
    torch.testing.assert_close(pairs.weight[is_hidden].sum(), count / 2)
    torch.testing.assert_close(pairs.weight[~is_hidden].sum(), count / 2)


def test_parts_are_joined_in_order():
    parts = [
        dense.Partners(torch.full((n, 2), n * 1.0), torch.zeros(n, 2).double(), torch.ones(n) / n)
        for n in (2, 3)
    ]
    whole = dense.join(parts)
    assert whole.mine[:, 0].tolist() == [2, 2, 3, 3, 3]
    assert whole.theirs.dtype == torch.float32
    assert whole.weight.sum() == pytest.approx(2)
