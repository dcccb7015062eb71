import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zerolabel.errors import UsageError
from zerolabel.stages.discover import Encoded
from zerolabel.stages.foreground import (
    Foreground,
    is_background,
    region_scores,
    threshold,
    wants,
)
from zerolabel.types import RegionMap

GRIDS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 4)
)


def region_map(groups):
    groups = np.asarray(groups)
    ids = np.unique(groups, return_inverse=True)[1].reshape(groups.shape).astype(np.int32)
    count = ids.max() + 1
    return RegionMap(ids, np.ones(count, np.bool_), np.arange(count, dtype=np.int32))


def encoded(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(3, *shape, generator=generator)
    return Encoded(
        torch.zeros(*shape, 2), attention, received=torch.rand(*shape, generator=generator)
    )


def slow_scores(image, ids, options):
    """Scores of all regions, patch by patch."""
    h, w = ids.shape
    inside = {region: [] for region in range(ids.max() + 1)}
    border = dict.fromkeys(inside, 0)
    for at in np.ndindex(h, w):
        heads = [float(head[at]) for head in image.attention]
        value = sum(heads) / len(heads)
        if options.importance == "received":
            value = float(image.received[at])
        inside[ids[at]].append(value)
        border[ids[at]] += at[0] in (0, h - 1) or at[1] in (0, w - 1)
    if options.background == "border":
        return [-border[r] / sum(border.values()) for r in inside]
    return [sum(v) / (len(v) if options.area == "mean" else 1) for v in inside.values()]


@given(groups=GRIDS, seed=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_scores_are_those_of_a_loop_over_patches(groups, seed):
    regions, image = region_map(groups), encoded(groups.shape, seed)
    for background in ("attention", "border"):
        for importance in ("cls", "received"):
            for area in ("sum", "mean"):
                options = Foreground(background=background, importance=importance, area=area)
                scores = region_scores(image, regions, options)
                assert scores.dtype == torch.float32
                expected = slow_scores(image, regions.ids, options)
                np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert region_scores(image, regions, Foreground()).tolist() == [0] * regions.count


def test_what_is_wanted_of_the_backbone():
    assert wants(Foreground()) == set()
    assert wants(Foreground(background="border")) == set()
    assert wants(Foreground(background="attention")) == {"attention"}
    assert wants(Foreground(background="attention", importance="received")) == {"received"}


def test_regions_that_are_not_looked_at_are_background():
    groups = np.zeros((8, 8), int)
    groups[2:5, 2:5], groups[5:, 6:], groups[0] = 1, 2, 3
    attention = torch.full((2, 8, 8), 0.01)
    attention[:, 2:5, 2:5], attention[:, 5:, 6:] = 1.0, 0.9
    image, regions = Encoded(torch.zeros(8, 8, 1), attention), region_map(groups)
    for area in ("sum", "mean"):
        options = Foreground(background="attention", area=area)
        scores = region_scores(image, regions, options)
        assert is_background(scores, options).tolist() == [True, False, False, True]


def test_a_sum_grows_with_the_area_and_a_mean_does_not():
    groups = np.zeros((10, 10), int)
    groups[4:6, 4:6] = 1
    attention = torch.where(torch.from_numpy(groups) == 1, 1.0, 0.5)[None]
    image, regions = Encoded(torch.zeros(10, 10, 1), attention), region_map(groups)
    for area, expected in (("sum", [False, True]), ("mean", [True, False])):
        options = Foreground(background="attention", area=area)
        assert is_background(region_scores(image, regions, options), options).tolist() == expected


@given(
    scores=st.lists(st.floats(0, 10, width=32), min_size=1, max_size=7),
    name=st.sampled_from(["none", "attention", "border"]),
)
@settings(deadline=None)
def test_no_image_is_all_background(scores, name):
    scores = torch.tensor(scores, dtype=torch.float32)
    found = is_background(scores, Foreground(background=name))
    assert found.dtype == torch.bool
    assert found.shape == scores.shape
    assert not found.all()
    if found.any():  # whatever is background scores no more than any other
        assert scores[found].max() <= scores[~found].min()
    if name == "attention":
        assert found.any() == (len(scores.unique()) > 1)
    else:
        assert found.sum() == (name == "border" and len(scores) > 1)


def test_the_region_along_the_border_is_background():
    groups = np.zeros((5, 7), int)
    groups[1:4, 2:6] = 1  # touches nothing
    groups[:, :2] = 2  # 7 of the 20 outermost patches
    options = Foreground(background="border")
    scores = region_scores(encoded((5, 7)), region_map(groups), options)
    assert scores.tolist() == pytest.approx([-0.65, 0, -0.35])
    assert is_background(scores, options).tolist() == [True, False, False]
    groups[:, :4] = 2  # now 11 of 20
    scores = region_scores(encoded((5, 7)), region_map(groups), options)
    assert scores.tolist() == pytest.approx([-0.45, 0, -0.55])
    assert is_background(scores, options).tolist() == [False, False, True]


def test_of_regions_with_equal_borders_the_first_is_background():
    options = Foreground(background="border")
    halves = region_map([[0, 0, 1, 1]] * 4)
    scores = region_scores(encoded((4, 4)), halves, options)
    assert is_background(scores, options).tolist() == [True, False]
    alone = region_scores(encoded((3, 3)), region_map(np.zeros((3, 3))), options)
    assert alone.tolist() == [-1]
    assert is_background(alone, options).tolist() == [False]


def test_one_threshold_for_all_images():
    scores = [torch.tensor(s) for s in ([0.1, 0.2], [5.0, 6.0, 0.3], [0.1], [5.5])]
    options = Foreground(background="attention", grouping="dataset")
    limit = threshold(scores, options)
    assert limit == pytest.approx((0.3 + 5) / 2)
    found = [is_background(s, options, threshold=limit).tolist() for s in scores]
    assert found == [[True, True], [False, False, True], [True], [False]]
    alone = Foreground(background="attention")
    assert threshold(scores, alone) == -math.inf
    found = [is_background(s, alone, threshold=limit).tolist() for s in scores]
    assert found == [[True, False], [False, False, True], [False], [False]]


def test_scores_that_hardly_differ_are_two_clusters():
    low, high = torch.tensor(0.3), torch.nextafter(torch.tensor(0.3), torch.tensor(1.0))
    for grouping in ("image", "dataset"):
        options = Foreground(background="attention", grouping=grouping)
        for scores in (torch.stack([high, low, low]), torch.stack([low, high, high])):
            found = is_background(scores, options, threshold=threshold([scores], options))
            assert torch.equal(found, scores == low)


@pytest.mark.parametrize("scores", [[], [torch.tensor([2.0])], [torch.ones(3), torch.ones(2)]])
def test_without_two_clusters_in_the_data_set_all_is_foreground(scores):
    options = Foreground(background="attention", grouping="dataset")
    limit = threshold(scores, options)
    assert limit == -math.inf
    assert not any(is_background(s, options, threshold=limit).any() for s in scores)


@pytest.mark.parametrize("name", ["none", "border"])
def test_grouping_concerns_attention_only(name):
    scores = torch.tensor([-0.2, -0.8, 0.0])
    options = Foreground(background=name, grouping="dataset")
    assert threshold([scores, scores], options) == -math.inf
    alone = is_background(scores, Foreground(background=name))
    assert torch.equal(is_background(scores, options), alone)
    assert alone.tolist() == [False, name == "border", False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": "atention"}, "choice of background 'atention'.*mean 'attention'"),
        ({"importance": "cls_mean"}, "choice of importance 'cls_mean'.*Known: cls, received"),
        ({"area": "max"}, "choice of area 'max'.*Known: mean, sum"),
        ({"grouping": "batch"}, "choice of grouping 'batch'.*Known: dataset, image"),
    ],
)
def test_unknown_settings_are_explained(changes, message):
    options = Foreground(**{"background": "attention", **changes})
    scores = torch.zeros(2)
    for call in (
        lambda: wants(options),
        lambda: region_scores(encoded((2, 2)), region_map(np.eye(2)), options),
        lambda: threshold([scores], options),
        lambda: is_background(scores, options),
    ):
        with pytest.raises(UsageError, match=message):
            call()


@pytest.mark.parametrize("importance", ["cls", "received"])
def test_attention_must_be_there_and_fit(importance):
    options = Foreground(background="attention", importance=importance)
    with pytest.raises(UsageError, match="attention of the backbone is needed"):
        region_scores(Encoded(torch.zeros(2, 2, 1)), region_map(np.eye(2)), options)
    with pytest.raises(UsageError, match=r"grid of the regions, \(2, 2\), found \(4, 1\)"):
        region_scores(encoded((4, 1)), region_map(np.eye(2)), options)


def test_a_data_set_needs_its_threshold():
    options = Foreground(background="attention", grouping="dataset")
    with pytest.raises(UsageError, match="needs the threshold"):
        is_background(torch.zeros(2), options)
