"""Prompt denoising and key smoothing: against loops, and what must hold for any scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import rectification as reference

from zerolabel.errors import UsageError
from zerolabel.ops.prompting import denoise, fill, fold, smooth


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- prompt denoising ----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("least", [0.0, 0.3, 0.6, 1.0])
def test_denoising_equals_the_loop(least, temperature):
    logits = draw(5, 4, 3) / 5
    kept = denoise(logits, least=least, temperature=temperature)
    assert kept.tolist() == reference.denoise(logits, least=least, temperature=temperature)


@given(
    words=st.integers(1, 6),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    least=st.floats(0, 2),
    spread=st.sampled_from([0.0, 0.01, 1.0, 300.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=80)
def test_a_word_always_stays_and_it_is_the_surest(words, size, least, spread, seed):
    logits = spread * draw(words, *size, seed=seed)
    kept = denoise(logits, least=least, temperature=10)
    shares = (10 * logits).softmax(0).amax((1, 2))
    assert kept.any()
    assert kept[shares.argmax()]
    assert not (kept & (shares < least))[torch.arange(words) != shares.argmax()].any()
    assert kept[fill(logits, kept).argmax(0)].all()  # no dropped word wins anywhere


def test_nobody_is_sure_and_the_first_word_does_not_win_for_that():
    logits = torch.zeros(4, 2, 3)
    logits[2, 1, 1] = 1e-3
    kept = denoise(logits, least=0.9, temperature=100)
    assert kept.tolist() == [False, False, True, False]
    assert (fill(logits, kept).argmax(0) == 2).all()


def test_filling_touches_only_what_is_dropped():
    logits = draw(3, 2, 2)
    before = logits.clone()
    filled = fill(logits, torch.tensor([True, False, True]))
    assert torch.equal(filled[[0, 2]], logits[[0, 2]])
    assert (filled[1] == -100).all()
    assert torch.equal(logits, before)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2, 2), (2, 0, 2)])
def test_denoising_nothing(shape):
    with pytest.raises(UsageError, match="Expected logits"):
        denoise(torch.zeros(shape), least=0.5, temperature=1)


def test_a_temperature_that_is_none():
    with pytest.raises(UsageError, match="temperature must be above 0, got 0"):
        denoise(torch.zeros(1, 1, 1), least=0.5, temperature=0)


# --- key smoothing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
@pytest.mark.parametrize("below", [0.0, 0.4, 0.6, 1.1])
def test_smoothing_equals_the_loop_over_pairs(below, dtype, close):
    shares = draw(4, 3, 5, dtype=dtype).softmax(0)
    keys = 3 * draw(3, 5, 6, seed=1, dtype=dtype) + 1
    found = smooth(shares, keys, below=below)
    expected = reference.smooth(shares, keys, below=below)
    torch.testing.assert_close(found, expected, atol=close, rtol=close)
    changed = (found != shares).any(0)
    assert torch.equal(changed, shares.amax(0) < below)


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 7), st.integers(0, 99)
)
@settings(deadline=None, max_examples=40)
def test_smoothing_at_any_size(words, height, width, dim, seed):
    shares = draw(words, height, width, seed=seed, dtype=torch.float64).softmax(0)
    keys = draw(height, width, dim, seed=seed + 1, dtype=torch.float64)
    found = smooth(shares, keys, below=2)
    expected = reference.smooth(shares, keys, below=2)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_the_length_of_keys_does_not_count():
    shares, keys = draw(3, 2, 4).softmax(0), draw(2, 4, 5, seed=1)
    lengths = torch.arange(1.0, 9).view(2, 4, 1)
    torch.testing.assert_close(
        smooth(shares, keys * lengths, below=1), smooth(shares, keys, below=1)
    )


def test_a_position_without_an_opinion_follows_those_like_it():
    shares = torch.tensor([[0.9, 0.9, 0.5, 0.2, 0.1], [0.1, 0.1, 0.5, 0.8, 0.9]])[:, None]
    keys = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1]])[None]
    found = smooth(shares, keys, below=0.6)
    assert found[:, 0, 2].argmax() == 0
    assert torch.equal(found[:, :, [0, 1, 3, 4]], shares[:, :, [0, 1, 3, 4]])


def test_keys_of_another_grid():
    with pytest.raises(UsageError, match=r"found \(2, 3, 4\) and \(4, 3, 5\)"):
        smooth(torch.zeros(2, 3, 4), torch.zeros(4, 3, 5), below=1)


# --- categories ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.sampled_from([(), (3,), (2, 3)]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_a_category_has_the_score_of_its_best_word(drawn, shape, seed):
    names = sorted(set(drawn))
    groups = [names.index(k) for k in drawn]
    scores = draw(len(groups), *shape, seed=seed)
    before = scores.clone()
    found = fold(scores, torch.tensor(groups))
    assert found.shape == (len(names), *shape)
    for k in range(len(names)):
        words = [scores[q] for q, group in enumerate(groups) if group == k]
        assert torch.equal(found[k], torch.stack(words).amax(0))
    assert torch.equal(scores, before)


@pytest.mark.parametrize("groups", [[0, 2], [0, -1], [0], [0, 1, 1], [1, 1]])
def test_categories_that_do_not_fit(groups):
    with pytest.raises(UsageError, match="Expected a category"):
        fold(torch.zeros(2, 3), torch.tensor(groups))
