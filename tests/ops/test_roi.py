"""Boxes brought to one size, against loops over bins and samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import roi as slow

from zerolabel.errors import UsageError
from zerolabel.ops.roi import means, roi_align


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def boxes_in(count, grid, seed=0, beyond=0.0):
    """Random boxes in a grid, or around it."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, dtype=torch.float64, generator=generator).sort(dim=1).values
    ends = ends * (1 + 2 * beyond) - beyond
    return (ends * torch.tensor(grid)).reshape(count, 4)


def same(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    samples=st.integers(0, 3),
    beyond=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_against_loops(batch, grid, size, samples, beyond, seed):
    maps, boxes = draw(batch, 2, *grid, seed=seed), boxes_in(batch, grid, seed, beyond)
    flip = torch.arange(batch) % 2 == seed % 2
    found = roi_align(maps, boxes, size, flip=flip, samples=samples)
    assert found.shape == (batch, 2, *size)
    for b in range(batch):
        for k in range(2):
            expected = slow.roi_align(
                maps[b, k].numpy(), boxes[b].tolist(), size, flip=flip[b], samples=samples
            )
            np.testing.assert_allclose(found[b, k], expected, atol=1e-12)


@pytest.mark.parametrize("samples", [0, 1])
def test_the_whole_map_at_its_size_stays_as_it_is(samples):
    maps = draw(2, 3, 5, 7)
    whole = torch.tensor([[0.0, 0, 5, 7]]).expand(2, -1)
    same(roi_align(maps, whole, (5, 7), samples=samples), maps)
    inner = torch.tensor([[1.0, 2, 4, 6]]).expand(2, -1)
    same(roi_align(maps, inner, (3, 4), samples=samples), maps[:, :, 1:4, 2:6])


def test_halving_takes_the_mean_of_four_cells():
    maps = draw(1, 1, 6, 4)
    found = roi_align(maps, torch.tensor([[0.0, 0, 6, 4]]), (3, 2))
    same(found, torch.nn.functional.avg_pool2d(maps, 2))


def test_a_flip_mirrors_left_and_right_of_its_image_only():
    maps, boxes = draw(3, 2, 6, 8), boxes_in(3, (6, 8))
    plain = roi_align(maps, boxes, (4, 3))
    found = roi_align(maps, boxes, (4, 3), flip=torch.tensor([True, False, True]))
    same(found[1], plain[1])
    same(found[[0, 2]], plain[[0, 2]].flip(3))
    same(found[0], roi_align(maps[:1].flip(3), mirrored(boxes[:1], 8), (4, 3))[0])


def mirrored(boxes, width):
    row0, column0, row1, column1 = boxes.unbind(1)
    return torch.stack([row0, width - column1, row1, width - column0], dim=1)


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_constant_maps_stay_constant(samples):
    boxes = boxes_in(20, (6, 8), beyond=0.4)
    found = roi_align(torch.full((20, 1, 6, 8), 2.5), boxes, (5, 4), samples=samples)
    torch.testing.assert_close(found, torch.full((20, 1, 5, 4), 2.5))


def test_values_stay_between_the_extremes():
    maps, boxes = draw(20, 1, 6, 8), boxes_in(20, (6, 8), beyond=0.4)
    found = roi_align(maps, boxes, (5, 4))
    assert (found <= maps.amax((2, 3), keepdim=True) + 1e-12).all()
    assert (found >= maps.amin((2, 3), keepdim=True) - 1e-12).all()


def test_a_ramp_inside_is_sampled_exactly():
    ramp = (torch.arange(20).double() + 0.5).expand(1, 1, 20, 20)  # a cell holds its centre
    found = roi_align(ramp, torch.tensor([[2.0, 3.3, 18.0, 16.9]]), (4, 4))
    side = (16.9 - 3.3) / 4
    same(found[0, 0, 0], 3.3 + side * (torch.arange(4).double() + 0.5), atol=1e-5)


def test_linear_in_the_maps():
    one, two, boxes = draw(2, 3, 5, 6), draw(2, 3, 5, 6, seed=1), boxes_in(2, (5, 6))
    found = roi_align(2 * one - 3 * two, boxes, (4, 4))
    same(found, 2 * roi_align(one, boxes, (4, 4)) - 3 * roi_align(two, boxes, (4, 4)))


def test_gradients():
    maps, boxes = draw(2, 2, 4, 5).requires_grad_(), boxes_in(2, (4, 5))
    flip = torch.tensor([True, False])
    assert torch.autograd.gradcheck(lambda x: roi_align(x, boxes, (3, 2), flip=flip), maps)


def test_images_are_independent():
    maps, boxes = draw(3, 2, 9, 9), boxes_in(3, (9, 9))
    boxes[1] = torch.tensor([0.0, 0, 9, 9])  # more samples than its neighbours
    together = roi_align(maps, boxes, (2, 2))
    for b in range(3):
        same(roi_align(maps[b : b + 1], boxes[b : b + 1], (2, 2)), together[b : b + 1])


def test_samples_follow_the_side_of_the_bin_and_not_its_rounding():
    ends = torch.tensor([8.0, 8.00001, 9.0], dtype=torch.float64)
    start = torch.zeros(3, dtype=torch.float64)
    adaptive = means(start, ends, 4, length=20)
    same(adaptive[:2], means(start[:2], ends[:2], 4, length=20, samples=2))
    same(adaptive[2], means(start[2:], ends[2:], 4, length=20, samples=3)[0])


def test_a_box_without_extent_is_a_point():
    maps = draw(1, 1, 4, 4)
    found = roi_align(maps, torch.tensor([[1.5, 2.5, 1.5, 2.5]]), (2, 3))
    same(found, maps[:, :, 1:2, 2:3].expand(1, 1, 2, 3))


def test_types_and_nothing():
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert roi_align(torch.ones(1, 2, 4, 4, dtype=dtype), boxes, (2, 2)).dtype == dtype
    assert roi_align(torch.ones(0, 2, 4, 4), boxes[:0], (2, 2)).shape == (0, 2, 2, 2)
    assert roi_align(torch.ones(1, 0, 4, 4), boxes, (2, 2)).shape == (1, 0, 2, 2)


def test_what_does_not_fit():
    maps, boxes = torch.ones(2, 3, 4, 5), torch.tensor([[0.0, 0, 4, 4]]).expand(2, -1)
    with pytest.raises(UsageError, match=r"found \(2, 3, 4, 5\) and \(1, 4\)"):
        roi_align(maps, boxes[:1], (2, 2))
    with pytest.raises(UsageError, match="a bool flip for each of 2 images"):
        roi_align(maps, boxes, (2, 2), flip=torch.ones(2))
    with pytest.raises(UsageError, match="convert them"):
        roi_align(maps.byte(), boxes, (2, 2))
    for size, samples in (((0, 2), 0), ((2, 2), -1)):
        with pytest.raises(UsageError, match="one cell or more"):
            roi_align(maps, boxes, size, samples=samples)
    for bad in (-1.0, math.nan, math.inf):
        wrong = boxes.clone()
        wrong[1, 3] = bad
        with pytest.raises(UsageError, match="end after they start"):
            roi_align(maps, wrong, (2, 2))
