from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import windows as reference

from zerolabel.errors import UsageError
from zerolabel.ops.windows import Windows, anchors, merge, merged_argmax, merged_strips, sliding

LENGTHS = st.integers(1, 40)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def count(windows):
    return len(windows.rows) * len(windows.columns)


def whole(scores, windows, **options):
    """All strips of `merged_strips` in one piece."""
    strips = list(merged_strips(scores, windows, **options))
    assert [top for top, _ in strips] == [
        sum(s.shape[1] for _, s in strips[:i]) for i in range(len(strips))
    ]
    return torch.cat([strip for _, strip in strips], dim=1)


def test_anchors_of_the_published_setting():
    assert anchors(683, 512, 512) == (0, 171)
    assert anchors(1024, 512, 512) == (0, 512)
    assert anchors(512, 512, 480) == (0,)
    assert anchors(2048, 768, 512) == (0, 512, 1024, 1280)


def test_an_axis_shorter_than_a_window_has_one():
    assert anchors(5, 9, 3) == (0,)
    windows = sliding((5, 30), window=9, stride=9)
    assert windows.window == (5, 9)
    assert windows.rows == (0,)
    assert windows.columns == (0, 9, 18, 21)


@given(length=LENGTHS, window=LENGTHS, stride=LENGTHS)
@settings(deadline=None)
def test_anchors_cover_everything_and_stay_inside(length, window, stride):
    assume(stride <= window)
    starts = anchors(length, window, stride)
    assert list(starts) == reference.anchors(length, window, stride)
    assert starts[0] == 0
    assert starts[-1] + min(window, length) == length
    assert all(0 < b - a <= stride for a, b in pairwise(starts))


@pytest.mark.parametrize("values", [(0, 1, 1), (5, 0, 1), (5, 2, 3), (5, 2, 0)])
def test_anchors_refuse_what_leaves_gaps(values):
    with pytest.raises(UsageError, match=r"stride of 1\.\.window"):
        anchors(*values)


@given(size=st.tuples(LENGTHS, LENGTHS), window=LENGTHS, stride=LENGTHS)
@settings(deadline=None)
def test_visits_count_the_boxes_over_a_pixel(size, window, stride):
    assume(stride <= window)
    windows = sliding(size, window=window, stride=stride)
    counted = torch.zeros(size, dtype=torch.int64)
    for top, left, bottom, right in windows.boxes():
        assert (bottom - top, right - left) == windows.window
        assert top >= 0
        assert left >= 0
        counted[top:bottom, left:right] += 1
    assert counted.min() >= 1
    assert counted[: windows.window[0]].any()
    torch.testing.assert_close(windows.visits(), counted)


@pytest.mark.parametrize(
    ("size", "window", "stride"), [((13, 17), 6, 4), ((7, 5), 3, 1), ((4, 9), 6, 5)]
)
def test_merge_equals_the_mean_pixel_by_pixel(size, window, stride):
    windows = sliding(size, window=window, stride=stride)
    scores = random(count(windows), 3, *windows.window, dtype=torch.float64)
    merged = merge((score for score in scores), windows)
    expected = reference.merged(list(scores.numpy()), size, window, stride)
    np.testing.assert_allclose(merged, expected, rtol=1e-13, atol=1e-14)


def test_merge_adds_half_precision_up_in_float32():
    windows = sliding((6, 6), window=4, stride=1)
    scores = random(count(windows), 2, 4, 4).half()
    merged = merge(scores, windows)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged, merge(scores.float(), windows))


def test_merge_wants_the_scores_of_all_windows():
    windows = sliding((6, 6), window=4, stride=2)
    for wrong in (random(3, 2, 4, 4), random(5, 2, 4, 4), random(4, 2, 4, 3), random(0, 2, 4, 4)):
        with pytest.raises(UsageError, match="scores"):
            merge(wrong, windows)


CASES = [  # size, window, stride, patches, cover, size of the result
    ((24, 40), 16, 16, (4, 4), None, None),
    ((23, 37), 16, 10, (4, 4), None, None),
    ((23, 37), 15, 10, (4, 4), (16, 16), None),  # windows padded to whole patches
    ((9, 30), 12, 6, (3, 3), (12, 12), None),  # lower than a window
    ((7, 8), 32, 32, (2, 2), (8, 8), None),  # smaller than a window
    ((20, 28), 12, 8, (3, 3), None, (31, 43)),
    ((20, 28), 12, 8, (3, 3), None, (11, 14)),
    ((5, 4), 1, 1, (1, 1), None, None),
    ((40, 40), 4, 4, (1, 1), None, (3, 3)),  # so small that whole windows are skipped
]


@pytest.mark.parametrize("strip", [1, 150, 1 << 20])
@pytest.mark.parametrize(("size", "window", "stride", "patches", "cover", "out"), CASES)
def test_strips_equal_the_slow_way(size, window, stride, patches, cover, out, strip):
    windows = sliding(size, window=window, stride=stride)
    scores = random(count(windows), 3, *patches, dtype=torch.float64)
    expected = reference.upsampled_and_merged(scores.numpy(), size, window, stride, cover, out)
    merged = whole(scores, windows, cover=cover, size=out, strip=strip)
    np.testing.assert_allclose(merged, expected, rtol=1e-12, atol=1e-12)
    labels, best = merged_argmax(scores, windows, cover=cover, size=out, strip=strip)
    np.testing.assert_array_equal(labels, expected.argmax(0))
    np.testing.assert_allclose(best, expected.max(0), rtol=1e-12, atol=1e-12)


def test_strips_equal_torch_and_merge():
    windows = sliding((150, 210), window=96, stride=64)
    scores = random(count(windows), 5, 6, 6)
    fine = F.interpolate(scores, size=windows.window, mode="bilinear", align_corners=False)
    expected = merge(fine, windows)
    torch.testing.assert_close(whole(scores, windows), expected, rtol=1e-5, atol=1e-5)
    resized = F.interpolate(expected[None], size=(99, 333), mode="bilinear", align_corners=False)[0]
    found = whole(scores, windows, size=(99, 333))
    torch.testing.assert_close(found, resized, rtol=0, atol=1e-4)  # torch finds places in float32


def test_one_window_that_is_the_image_is_a_single_forward():
    windows = sliding((40, 56), window=64, stride=64)
    scores = random(1, 4, 5, 7)
    fine = F.interpolate(scores, size=(40, 56), mode="bilinear", align_corners=False)[0]
    labels, best = merged_argmax(scores, windows)
    torch.testing.assert_close(labels, fine.argmax(0))
    torch.testing.assert_close(best, fine.amax(0))


@pytest.mark.parametrize("strip", [1, 5000, 1 << 21])
def test_ties_go_to_the_lowest_category(strip):
    windows = sliding((83, 119), window=48, stride=32)
    scores = random(count(windows), 4, 3, 3)
    twice = torch.cat([scores, scores, scores], dim=1)
    labels, _ = merged_argmax(twice, windows, strip=strip)
    assert labels.max() < 4
    torch.testing.assert_close(labels, merged_argmax(scores, windows, strip=strip)[0])
    assert not merged_argmax(torch.full_like(twice, 0.1), windows, strip=strip)[0].any()


def test_scores_of_one_image_shifted_through_windows_come_back():
    """Windows of whole patches that agree where they overlap give what they agree on."""
    windows = sliding((64, 96), window=32, stride=16)
    labels = torch.randint(0, 3, (8, 12), generator=torch.Generator().manual_seed(0))
    scores = F.one_hot(labels, 3).permute(2, 0, 1).float()  # (K, 8, 12) of patches of 8 pixels
    boxes = [[x // 8 for x in box] for box in windows.boxes()]
    cut = torch.stack([scores[:, t:b, x:y] for t, x, b, y in boxes])
    found, _ = merged_argmax(cut, windows)
    middles = found.reshape(8, 8, 12, 8)[:, 4, :, 4]
    torch.testing.assert_close(middles, labels)


def test_half_precision_scores_are_added_up_in_float32():
    windows = sliding((30, 40), window=16, stride=8)
    scores = random(count(windows), 3, 4, 4).bfloat16()
    labels, best = merged_argmax(scores, windows)
    expected_labels, expected = merged_argmax(scores.float(), windows)
    assert best.dtype == torch.float32
    assert labels.dtype == torch.int64
    torch.testing.assert_close(labels, expected_labels)
    torch.testing.assert_close(best, expected)


def test_what_does_not_fit_is_refused():
    windows = sliding((30, 40), window=16, stride=16)
    with pytest.raises(UsageError, match="all windows"):
        merged_argmax(random(count(windows) - 1, 3, 4, 4), windows)
    with pytest.raises(UsageError, match="all windows"):
        merged_argmax(random(3, 4, 4), windows)
    with pytest.raises(UsageError, match="beyond their patches"):
        merged_argmax(random(count(windows), 3, 4, 4), windows, cover=(16, 15))


def test_a_strip_holds_no_more_than_it_may():
    windows = Windows((64, 80), (32, 32), (0, 32), (0, 32, 48))
    strips = list(merged_strips(random(6, 10, 4, 4), windows, strip=8000))
    assert all(strip.numel() <= 8000 for _, strip in strips)
    assert sum(strip.shape[1] for _, strip in strips) == 64
