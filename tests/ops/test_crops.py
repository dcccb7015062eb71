import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import fgu_crops as reference

from zerolabel.errors import UsageError
from zerolabel.ops.crops import foreground, in_pixels, shares, sort_crops, windows

COCO, VOC = (0.5, 0.4, 0.3, 0.2), (0.6, 0.5, 0.4, 0.3)
GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 40))
BETAS = st.lists(st.floats(0.05, 1), min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("grid", "betas", "counts"),
    [
        ((80, 80), COCO, [9, 16, 36, 81]),
        ((80, 80), VOC, [9, 9, 16, 36]),
        ((80, 160), COCO, [21, 36, 78, 171]),
        ((160, 80), COCO, [21, 36, 78, 171]),
    ],
)
def test_published_counts(grid, betas, counts):
    assert [len(windows(grid, [beta], rule="code")) for beta in betas] == counts
    assert len(windows(grid, betas, rule="code")) == sum(counts)


@pytest.mark.parametrize("grid", [(80, 80), (80, 160), (160, 80), (50, 61), (37, 37)])
@pytest.mark.parametrize("betas", [COCO, VOC])
def test_code_rule_equals_the_conditions_on_centres(grid, betas):
    boxes = windows(grid, betas, rule="code")
    assert boxes.dtype == torch.int64
    assert boxes.tolist() == [list(box) for box in reference.code_windows(*grid, betas)]


@given(grid=GRIDS, beta=st.floats(0.05, 1))
@settings(deadline=None, max_examples=60)
def test_code_rule_equals_the_conditions_on_any_grid(grid, beta):
    if int(beta * min(grid)) == 0:
        expected = []  # the published code would divide by zero
    else:
        expected = [list(box) for box in reference.code_windows(*grid, [beta])]
    if expected:
        assert windows(grid, [beta], rule="code").tolist() == expected
    else:
        with pytest.raises(UsageError, match="no window"):
            windows(grid, [beta], rule="code")


def test_code_boxes_have_a_cell_more_than_their_side_and_reach_the_far_edge():
    boxes = windows((80, 80), [0.5], rule="code")
    assert (boxes[:, 2:] - boxes[:, :2] == 41).all()
    assert boxes.min() == 0
    assert boxes.max() == 80
    assert boxes[:3].tolist() == [[0, 0, 41, 41], [0, 20, 41, 61], [0, 39, 41, 80]]


@given(grid=GRIDS, betas=BETAS)
@settings(deadline=None, max_examples=60)
def test_paper_rule_covers_the_grid_with_squares_inside(grid, betas):
    boxes = windows(grid, betas)
    assert boxes.tolist() == [list(box) for box in reference.paper_windows(*grid, betas)]
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= torch.tensor(grid)).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides[:, 0] == sides[:, 1]).all()
    assert (sides >= 1).all()
    start = 0
    for beta in betas:
        visits = np.zeros(grid, int)
        alone = windows(grid, [beta])
        assert boxes[start : start + len(alone)].tolist() == alone.tolist()
        start += len(alone)
        for top, left, bottom, right in alone.tolist():
            visits[top:bottom, left:right] += 1
        assert visits.min() >= 1
    assert start == len(boxes)


def test_paper_rule_of_the_published_grid():
    boxes = windows((80, 80), COCO)
    assert len(boxes) == 142  # as many as the code's, each a cell smaller
    assert boxes[:3].tolist() == [[0, 0, 40, 40], [0, 20, 40, 60], [0, 40, 40, 80]]


def test_a_grid_of_one_cell():
    assert windows((1, 1), [0.5, 0.2]).tolist() == 2 * [[0, 0, 1, 1]]
    assert windows((1, 3), [0.5]).tolist() == [[0, i, 1, i + 1] for i in range(3)]
    with pytest.raises(UsageError, match="Take the rule 'paper'"):
        windows((1, 1), [0.5], rule="code")


def test_wrong_words_and_numbers():
    with pytest.raises(UsageError, match="Did you mean 'code'"):
        windows((8, 8), [0.5], rule="cod")
    with pytest.raises(UsageError, match="Unknown rule"):
        in_pixels(windows((8, 8), [0.5]), 8, rule="other")
    for grid, betas in [((8, 8), [0.0]), ((8, 8), [1.1]), ((8, 8), []), ((0, 8), [0.5])]:
        with pytest.raises(UsageError, match=r"in \(0, 1\]"):
            windows(grid, betas)


def test_pixels_of_boxes():
    boxes = torch.tensor([[0, 20, 41, 61]])
    assert in_pixels(boxes, 8).tolist() == [[0, 160, 328, 488]]
    assert in_pixels(boxes, 8, rule="code").tolist() == [[0, 160, 327, 487]]


@given(
    mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12)),
    betas=BETAS,
)
@settings(deadline=None, max_examples=60)
def test_shares_of_masks_are_exact(mask, betas):
    boxes = windows(mask.shape[1:], betas)
    found = shares(torch.from_numpy(mask), boxes)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found, reference.shares(mask, boxes.tolist()))


def test_shares_of_soft_masks_and_any_boxes():
    generator = np.random.default_rng(0)
    mask = generator.random((3, 17, 23), np.float32)
    corners = [np.sort(generator.choice(n + 1, 2, replace=False)) for n in 20 * [17, 23]]
    boxes = np.stack(
        [[r[0], c[0], r[1], c[1]] for r, c in zip(corners[::2], corners[1::2], strict=True)]
    )
    found = shares(torch.from_numpy(mask), torch.from_numpy(boxes))
    assert found.shape == (3, 20)
    expected = reference.shares(mask.astype(np.float64), boxes)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 1], [0, 2, 1, 2], [-1, 0, 1, 1], [0, 0, 5, 1], [0, 0, 1, 6], [0, -1, 1, 1]]
)
def test_shares_refuse_boxes_outside_or_empty(box):
    with pytest.raises(UsageError, match="within the grid of 4 x 5"):
        shares(torch.ones(2, 4, 5), torch.tensor([[0, 0, 4, 5], box]))


def test_shares_refuse_other_shapes():
    for mask, boxes in [((4, 5), (1, 4)), ((1, 4, 5), (4,)), ((1, 4, 5), (1, 3))]:
        with pytest.raises(UsageError, match="Expected a mask"):
            shares(torch.ones(mask), torch.ones(boxes, dtype=torch.int64))


def test_foreground_is_above_the_mean_of_its_own_image():
    attention = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[3.0, 1.0], [3.0, 1.0]]])
    expected = [[[False, False], [False, True]], [[True, False], [True, False]]]
    assert foreground(attention).tolist() == expected
    assert foreground(1e-4 * attention).tolist() == expected


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1 / 1600])
def test_attention_without_contrast_has_no_foreground(value):
    assert not foreground(torch.full((2, 37, 41), value)).any()
    assert not foreground(torch.full((1, 1, 1), value)).any()


def test_crops_are_sorted_by_strict_thresholds():
    share = torch.tensor([[0.0, 0.19, 0.2, 0.21, 0.5, 0.51, 1.0]], dtype=torch.float64)
    kinds = sort_crops(share)
    assert kinds.foreground.int().tolist() == [[0, 0, 0, 0, 0, 1, 1]]
    assert kinds.background.int().tolist() == [[1, 1, 0, 0, 0, 0, 0]]
    assert not sort_crops(share, background=1.0).background.any()


@given(
    share=st.floats(0, 1),
    background=st.floats(0, 1),
    extra=st.floats(0, 0.2),
)
@settings(deadline=None)
def test_no_crop_is_both(share, background, extra):
    foreground = min(1.0, 1 - background + extra)
    if foreground + background < 1:
        return
    kinds = sort_crops(
        torch.tensor([[share, np.nextafter(foreground, 2), foreground]], dtype=torch.float64),
        foreground=foreground,
        background=background,
    )
    assert not (kinds.foreground & kinds.background).any()


@pytest.mark.parametrize("thresholds", [(0.1, 0.8), (-0.1, 1.2), (1.1, 0.8), (0.5, 1.1)])
def test_thresholds_that_allow_both_are_refused(thresholds):
    with pytest.raises(UsageError, match="sum of 1 or more"):
        sort_crops(torch.zeros(1, 1), foreground=thresholds[0], background=thresholds[1])


def test_an_object_in_a_corner_gives_crops_of_both_kinds():
    attention = torch.zeros(1, 20, 20)
    attention[:, :9, :9] = 1
    boxes = windows((20, 20), [0.5, 0.2])
    kinds = sort_crops(shares(foreground(attention), boxes))
    assert kinds.foreground[0, 0]  # the large square at the top left
    assert kinds.background[0, -1]  # a small one at the bottom right
    assert not (kinds.foreground | kinds.background).all()  # some are cut in two
