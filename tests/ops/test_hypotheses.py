"""Windows over an image, and the words that are thought to be in it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import rectification as reference
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.ops.hypotheses import from_shares, from_whole, shares, windows


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- windows -------------------------------------------------------------------------------------


def covered(boxes, size):
    seen = torch.zeros(size, dtype=torch.bool)
    for row0, column0, row1, column1 in boxes.tolist():
        seen[row0:row1, column0:column1] = True
    return bool(seen.all())


@given(st.integers(12, 700), st.integers(12, 700))
@settings(deadline=None, max_examples=80)
def test_a_sixth_of_the_sides_gives_121_windows_at_any_size(height, width):
    boxes = windows((height, width), share=1 / 6)
    assert (boxes.dtype, boxes.shape) == (torch.int64, (121, 4))
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert len(sizes.unique(dim=0)) == 1
    assert (sizes[0] * 6 - torch.tensor([height, width])).abs().max() <= 3  # rounded
    assert boxes[-1, 2:].tolist() == [height, width]


@pytest.mark.parametrize("share", [1, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 7, 1 / 12])
@pytest.mark.parametrize("size", [(375, 500), (331, 499), (1024, 2048)])
def test_whole_fractions_give_the_papers_count(size, share):
    assert len(windows(size, share=share)) == reference.windows_per_axis(share) ** 2


@given(st.integers(1, 90), st.integers(1, 90), st.floats(0.03, 1).filter(lambda share: share <= 1))
@settings(deadline=None, max_examples=80)
def test_windows_of_any_share_cover_every_pixel_and_differ(height, width, share):
    boxes = windows((height, width), share=share)
    assert covered(boxes, (height, width))
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert boxes.min() == 0
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert boxes[-1, 2:].tolist() == [height, width]


def test_windows_lie_half_a_window_apart():
    boxes = windows((60, 120), share=1 / 6)
    assert boxes[:, 0].unique().tolist() == list(range(0, 55, 5))
    assert boxes[:, 1].unique().tolist() == list(range(0, 110, 10))


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [((375, 500), 56, 192), ((375, 500), 85, 70), ((1024, 2048), 85, 1081)],
)
def test_published_counts_of_the_code(size, side, count):
    assert len(windows(size, rule="code", side=side)) == count


@given(st.integers(1, 120), st.integers(1, 120), st.integers(2, 60))
@settings(deadline=None, max_examples=80)
def test_the_codes_rule_equals_its_loop_and_never_gives_nothing(height, width, side):
    boxes = windows((height, width), rule="code", side=side)
    expected = reference.code_windows(height, width, side)
    assert len(boxes)
    if expected:
        assert boxes.tolist() == expected
    assert (boxes[:, 2:] <= torch.tensor([height, width])).all()


@pytest.mark.parametrize("rule", ["paper", "code"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 2)])
def test_tiny_images_have_a_window(size, rule):
    boxes = windows(size, rule=rule, side=56)
    assert covered(boxes, size)
    assert rule == "paper" or boxes.tolist() == [[0, 0, *size]]


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((9, 9), {"rule": "codes"}, "Did you mean 'code'"),
        ((0, 9), {}, "found 0 x 9"),
        ((9, 9), {"share": 0}, r"share of the image in \(0, 1\]; found 0"),
        ((9, 9), {"share": 1.5}, "found 1.5"),
        ((9, 9), {"rule": "code"}, "needs a side of 2 pixels or more, got None"),
        ((9, 9), {"rule": "code", "side": 1}, "got 1"),
    ],
)
def test_windows_that_cannot_be_laid(size, options, message):
    with pytest.raises(UsageError, match=message):
        windows(size, **options)


# --- words ---------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 8), st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_shares_equal_the_loop_over_crops(crops, words, dim, seed):
    joint, queries = draw(crops, dim, seed=seed), normalize(draw(words, dim, seed=seed + 1), dim=1)
    found = shares(joint, queries)
    assert found.tolist() == pytest.approx(reference.shares(joint, queries), abs=1e-6)
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(shares(joint * 7, queries), found)


def test_shares_of_no_crops():
    with pytest.raises(UsageError, match=r"found \(0, 4\) and \(2, 4\)"):
        shares(torch.zeros(0, 4), torch.ones(2, 4))


def test_words_above_the_threshold_are_present():
    found = torch.tensor([0.5, 0.07, 0.0, 0.43])
    assert from_shares(found, least=0.07).tolist() == [True, False, False, True]
    assert from_shares(found, least=0.0).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("found", "most", "expected"),
    [
        ([0.25, 0.25, 0.0, 0.5], 2, [0, 3]),  # of equals the first
        ([0.25, 0.25, 0.0, 0.5], 9, [0, 1, 3]),  # never a word that no crop has
        ([0.0, 1.0], 2, [1]),
    ],
)
def test_the_most_frequent_words_where_none_passes(found, most, expected):
    present = from_shares(torch.tensor(found), least=1.0, most=most)
    assert present.nonzero()[:, 0].tolist() == expected


@given(
    st.integers(1, 30), st.integers(1, 9), st.floats(0, 1), st.integers(1, 4), st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_something_is_always_present(crops, words, least, most, seed):
    found = shares(draw(crops, 4, seed=seed), normalize(draw(words, 4, seed=seed + 1), dim=1))
    present = from_shares(found, least=least, most=most)
    assert present.any()
    assert (found[present] > 0).all()
    assert (found > least).any() == bool((present == (found > least)).all())


def test_words_near_the_whole_image():
    queries = torch.eye(4)
    joint = 5 * torch.tensor([0.8, 0.6, 0.0, 0.0])
    assert from_whole(joint, queries, least=60, most=1).tolist() == [True, True, False, False]
    assert from_whole(joint, queries, least=90, most=1).tolist() == [True, False, False, False]
    assert from_whole(joint, queries, least=90, most=3).tolist() == [True, True, True, False]


def test_nothing_to_fall_back_on():
    with pytest.raises(UsageError, match="one word or more to fall back on, got 0"):
        from_shares(torch.tensor([0.5, 0.5]), least=0.9, most=0)
