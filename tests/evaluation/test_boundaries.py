import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import outlines
from scipy.io import loadmat
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from zerolabel.data.benchmarks import open_dataset
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.boundaries import REACH, Boundaries, boundaries, match

DATA = os.environ.get("ZEROLABEL_DATA")
SHAPE = (9, 12)
DIAGONAL = 15.0  # of SHAPE
edges = arrays(bool, SHAPE, elements=st.sampled_from([False, False, False, True]))
maps = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))


def smooth(seed, shape=(60, 80), regions=4):
    noise = np.random.default_rng(seed).normal(size=(regions, *shape))
    return gaussian_filter(noise, (0, 5, 5)).argmax(axis=0)


def line(row, shape=(40, 30)):
    found = np.zeros(shape, bool)
    found[row] = True
    return found


@given(maps)
def test_boundaries_are_the_thinned_corners(regions):
    np.testing.assert_array_equal(boundaries(regions), outlines.thinned(outlines.corners(regions)))


def test_boundary_between_halves():
    regions = np.zeros((5, 6), int)
    regions[:, 3:] = 7
    expected = np.zeros((5, 6), bool)
    expected[:, 2] = True
    np.testing.assert_array_equal(boundaries(regions), expected)
    assert not boundaries(np.ones((5, 6), int)).any()


@settings(deadline=None)
@given(edges, edges, st.sampled_from([0, 1, 1.5, 2.3, 4]))
def test_there_are_as_many_pairs_as_can_be(prediction, truth, radius):
    paired = match(prediction, truth, reach=radius / DIAGONAL)
    assert len(paired) == outlines.pair_count(prediction, truth, radius + 1e-9)
    assert prediction.reshape(-1)[paired].all()
    assert len(set(paired.tolist())) == len(paired)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_equal_the_assignment_of_the_benchmark(seed):
    """Its cost of a pixel without a pair, 100 times the reach, leaves no pair unmade."""
    shape = (40, 50)
    ours, theirs = (boundaries(smooth(s, shape)) for s in (seed, seed + 10))
    radius = 0.03 * np.hypot(*shape)
    a, b = np.argwhere(ours), np.argwhere(theirs)
    far = np.linalg.norm(a[:, None] - b[None], axis=-1)
    none = 100 * radius
    cost = np.where(far <= radius, far, 2 * none)
    rows, columns = linear_sum_assignment(cost)
    pairs = (far[rows, columns] <= radius).sum()
    assert len(match(ours, theirs, reach=0.03)) == pairs


def test_near_pixels_are_tried_first():
    ours = line(10) | line(12)
    paired = match(ours, line(12), reach=0.05)
    np.testing.assert_array_equal(paired, 12 * 30 + np.arange(30))


def test_reach_is_a_share_of_the_diagonal():  # 50 pixels
    assert len(match(line(10), line(12), reach=2 / 50)) == 30
    assert len(match(line(10), line(12), reach=1.99 / 50)) == 0


def test_counts_by_hand():
    # The first level has both annotators' lines, the second a wrong one besides the first's.
    total = Boundaries(reach=1 / 50)
    levels = [line(5) | line(20), line(5) | line(30)]
    found = total.add(levels, [line(5), line(20)])
    recall, precision = [30 / 60 + 30 / 60, 30 / 60], [1.0, 0.5]
    f = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    np.testing.assert_allclose(found, f)
    score = total.score()
    assert score.precision == tuple(precision)
    assert score.recall == tuple(recall)
    assert (score.f.level, score.f.ods, score.f.ois) == (0, 1.0, 1.0)


def test_a_pixel_is_right_for_any_annotator_and_missed_by_each():
    total = Boundaries(reach=1 / 50)
    total.add([line(5)], [line(5), line(5), line(20)])
    score = total.score()
    assert score.precision == (1.0,)
    assert score.recall == (pytest.approx(2 / 3),)


def test_pixels_are_added_up_before_dividing():
    total = Boundaries(reach=1 / 50)
    total.add([line(5), line(9)], [line(5)])
    total.add([line(5), line(9)], [line(9) | line(20)])
    score = total.score()
    assert score.f.each == (pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3)),) * 2
    assert score.f.level == 0
    assert score.f.ois == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))  # 60 of 60, 60 of 90


def test_no_boundary_at_all():
    nothing = np.zeros((6, 7), bool)
    total = Boundaries()
    assert total.add([nothing], [nothing]).tolist() == [0]
    assert total.add([nothing], [line(2, (6, 7))]).tolist() == [0]
    assert total.add([line(2, (6, 7))], [nothing]).tolist() == [0]
    assert total.score().f.ods == 0


@given(maps)
def test_the_same_boundaries_agree_wholly(regions):
    own = boundaries(regions)
    total = Boundaries()
    assert total.add([own], [own, own])[0] == (1 if own.any() else 0)


def test_bad_input():
    total = Boundaries()
    with pytest.raises(DataError, match="no image to score"):
        total.score()
    with pytest.raises(DataError, match="found none"):
        total.add([line(5)], [])
    with pytest.raises(DataError, match=r"expected .* \(9, 9\), found \(40, 30\)"):
        total.add([line(5)], [line(2, (9, 9))])
    with pytest.raises(UsageError, match="levels"):
        total.add([], [line(5)])


@pytest.fixture
def annotated():
    if DATA is None:
        pytest.skip("needs real data")
    return Path(DATA) / "bsds500"


def test_boundaries_are_those_of_bsds500(annotated):
    files = sorted(annotated.rglob("groundTruth/test/*.mat"))[:5]
    assert files
    for file in files:
        for own in loadmat(file)["groundTruth"][0]:
            published = own["Boundaries"][0, 0].astype(bool)
            np.testing.assert_array_equal(boundaries(own["Segmentation"][0, 0]), published)


@pytest.mark.slow
def test_people_agree_with_each_other_as_published(annotated):
    total = Boundaries(reach=REACH)
    for sample in open_dataset(annotated, split="test:15").samples:
        truth = [boundaries(regions) for regions in sample.load_regions()]
        for one, own in enumerate(truth):
            total.add([own], truth[:one] + truth[one + 1 :])
    # Arbelaez et al., 2011, on all 200 test images: 0.80
    assert total.score().f.ods == pytest.approx(0.80, abs=0.03)
