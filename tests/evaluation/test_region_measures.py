import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from reference import outlines
from sklearn.metrics import rand_score
from sklearn.metrics.cluster import contingency_matrix

from zerolabel.data.benchmarks import open_dataset
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.regions import Regions, agreement, contingency

DATA = os.environ.get("ZEROLABEL_DATA")


@st.composite
def pairs(draw, count=2):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    maps = arrays(np.int32, shape, elements=st.integers(0, 4))
    return [draw(maps) for _ in range(count)]


def blobs(seed, shape=(7, 9), regions=5):
    return np.random.default_rng(seed).integers(0, regions, shape)


def covering(pair):
    return pair.overlap @ pair.share


@given(pairs())
def test_equals_sets_and_pairs_of_pixels(maps):
    segmentation, truth = maps
    found = agreement(segmentation, truth)
    assert covering(found) == pytest.approx(outlines.covering(segmentation, truth))
    assert found.information == pytest.approx(outlines.information(segmentation, truth))
    if truth.size > 1:
        assert found.rand == pytest.approx(outlines.rand_index(segmentation, truth))


def test_equals_scikit_learn():
    segmentation, truth = blobs(0, (60, 80), 12), blobs(1, (60, 80), 30)
    expected = contingency_matrix(segmentation.ravel(), truth.ravel())
    np.testing.assert_array_equal(contingency(segmentation, truth), expected)
    rand = rand_score(segmentation.ravel(), truth.ravel())
    assert agreement(segmentation, truth).rand == pytest.approx(rand, rel=1e-12)


@given(pairs())
def test_the_same_map_agrees_wholly(maps):
    found = agreement(maps[0], maps[0])
    assert (covering(found), found.rand, found.information) == (pytest.approx(1), 1, 0)


@given(pairs(), st.permutations(range(5)), st.integers(-(10**9), 10**9))
def test_ids_do_not_matter(maps, order, offset):
    segmentation, truth = maps
    renamed = np.array(order)[segmentation] * 1000 + offset
    one, other = agreement(segmentation, truth), agreement(renamed, truth)
    np.testing.assert_allclose(one.overlap, other.overlap)
    assert one.rand == pytest.approx(other.rand)
    assert one.information == pytest.approx(other.information)


@given(pairs())
def test_bounds_and_symmetry(maps):
    one, other = agreement(*maps), agreement(*maps[::-1])
    assert 0 <= covering(one) <= 1 + 1e-12
    assert 0 <= one.rand <= 1
    assert 0 <= one.information <= 2 * np.log2(maps[0].size) + 1e-9
    assert one.rand == pytest.approx(other.rand)
    assert one.information == pytest.approx(other.information)


@given(pairs(3))
def test_information_is_a_distance(maps):
    a, b, c = maps
    through = agreement(a, b).information + agreement(b, c).information
    assert agreement(a, c).information <= through + 1e-9


def test_halves_by_hand():
    truth = np.repeat([[0, 0, 1, 1]], 2, axis=0)
    whole = agreement(np.zeros((2, 4), int), truth)
    assert (covering(whole), whole.information) == (0.5, 1.0)  # one bit says which half
    assert whole.rand == pytest.approx(12 / 28)
    quarters = agreement(np.array([[0, 0, 1, 1], [2, 2, 3, 3]]), truth)
    assert (covering(quarters), quarters.information) == (0.5, 1.0)
    assert quarters.rand == pytest.approx(1 - 8 / 28)


def test_a_map_of_one_pixel_agrees():
    found = agreement(np.array([[3]]), np.array([[0]]))
    assert (covering(found), found.rand, found.information) == (1, 1, 0)


def test_levels_and_images_by_hand():
    images = [(blobs(10, (4, 4)), blobs(11, (4, 4))), (blobs(12, (8, 6)), blobs(13, (8, 6)))]
    truths = [[blobs(20, (4, 4)), blobs(21, (4, 4))], [blobs(s, (8, 6)) for s in (22, 23, 24)]]
    total, own = Regions(), []
    for levels, truth in zip(images, truths, strict=True):
        found = total.add(levels, truth)
        measures = (outlines.covering, outlines.rand_index, outlines.information)
        expected = [[np.mean([m(s, t) for t in truth]) for s in levels] for m in measures]
        np.testing.assert_allclose(found, expected)
        own.append(np.array(expected))
    score = total.score()
    weights = [2 * 16, 3 * 48]  # covering counts pixels of all annotators, the others images
    for measure, each, weigh, best in (
        (score.covering, [o[0] for o in own], weights, max),
        (score.pri, [o[1] for o in own], None, max),
        (score.vi, [o[2] for o in own], None, min),
    ):
        levels = np.average(each, axis=0, weights=weigh)
        np.testing.assert_allclose(measure.each, levels)
        assert measure.ods == measure.each[measure.level] == best(measure.each)
        ois = np.average([best(o) for o in each], weights=weigh)
        assert measure.ois == pytest.approx(ois)
    pixels = covered = 0.0
    for levels, truth in zip(images, truths, strict=True):
        for t in truth:
            found = [outlines.best_overlaps(level, t) for level in levels]
            for name, (size, _) in found[0].items():
                covered += size * max(f[name][1] for f in found)
                pixels += size
    assert score.covering_best == pytest.approx(covered / pixels)
    assert score.covering_best >= score.covering.ois >= score.covering.ods


@given(pairs(5))
def test_best_is_never_below_ois_nor_ois_below_ods(maps):
    total = Regions()
    total.add(maps[:2], maps[4:])
    total.add(maps[1:3], maps[3:])
    score = total.score()
    assert score.covering_best >= score.covering.ois - 1e-12
    assert score.covering.ois >= score.covering.ods - 1e-12
    assert score.pri.ois >= score.pri.ods - 1e-12
    assert score.vi.ois <= score.vi.ods + 1e-12


def test_bad_input():
    total = Regions()
    with pytest.raises(DataError, match="no image to score"):
        total.score()
    with pytest.raises(DataError, match="found none"):
        total.add([blobs(0)], [])
    with pytest.raises(DataError, match=r"expected .* \(3, 3\), found \(7, 9\)"):
        total.add([blobs(0)], [np.zeros((3, 3), int)])
    with pytest.raises(DataError, match="integers"):
        total.add([blobs(0).astype(float)], [blobs(1)])
    with pytest.raises(UsageError, match="one or more levels"):
        total.add([], [blobs(1)])
    total.add([blobs(0)], [blobs(1)])
    with pytest.raises(UsageError, match="Expected 1 levels of each image, found 2"):
        total.add([blobs(0), blobs(2)], [blobs(1)])


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="needs real data")
def test_people_agree_with_each_other_as_published():
    dataset = open_dataset(Path(DATA) / "bsds500", split="test")
    total = Regions()
    for sample in dataset.samples:
        truth = sample.load_regions()
        for one, own in enumerate(truth):
            total.add([own], truth[:one] + truth[one + 1 :])
    score = total.score()
    # Arbelaez et al., 2011, on all 200 test images: 0.72, 0.88, 1.17 bits
    assert score.covering.ods == pytest.approx(0.72, abs=0.02)
    assert score.pri.ods == pytest.approx(0.88, abs=0.02)
    assert score.vi.ods == pytest.approx(1.17, abs=0.06)
