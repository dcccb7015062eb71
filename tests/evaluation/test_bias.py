import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference.preferences import space_curve

from zerolabel.errors import UsageError
from zerolabel.evaluation.bias import SpaceCurve, class_preference, distances
from zerolabel.evaluation.confusion import Confusion, by_class

C = 3
maps = arrays(np.int16, (6, 8), elements=st.sampled_from([0, 1, 2, 255]))
counts = arrays(np.int64, (C, C + 1), elements=st.integers(0, 50)).filter(lambda n: n.any())


def curve_of(images, *, bins=5, reach=1.0, classes=C):
    curve = SpaceCurve(classes, bins=bins, reach=reach)
    for truth, prediction in images:
        confusion = Confusion(classes, classes)
        confusion.add(truth, prediction)
        curve.add(confusion.counts, distances(truth, classes))
    return curve.score()


def strip(column, right, width=101):
    """One class in a column of ten pixels; as many as `right` of them are found."""
    truth = np.full((10, width), 255)
    truth[:, column] = 0
    prediction = np.full((10, width), 255)
    prediction[:right, column] = 0
    return truth, prediction


# ---- class preference


def test_class_preference_by_hand():
    found = class_preference(np.array([[6, 3, 1, 0], [5, 2, 1, 2], [0, 0, 4, 0]]))
    np.testing.assert_allclose(found.per_class, [0.6 - 0.3, 0.2 - 0.5, 1.0])
    np.testing.assert_array_equal(found.rivals, [1, 0, -1])
    assert found.score == pytest.approx((0.3 - 0.3 + 1) / 3)


def test_absent_classes_are_left_out():
    found = class_preference(np.array([[2, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]))
    np.testing.assert_array_equal(found.per_class, [0, np.nan, 1])
    assert found.score == 0.5
    assert found.rivals[1] == -1


def test_pixels_without_a_class_count_against_it_but_are_no_rival():
    found = class_preference(np.array([[3, 1, 6], [0, 5, 5]]))
    np.testing.assert_allclose(found.per_class, [0.3 - 0.1, 0.5])
    np.testing.assert_array_equal(found.rivals, [1, -1])


@given(counts)
def test_class_preference_properties(found):
    preference = class_preference(found)
    assert -1 <= preference.score <= 1
    perfect = np.append(np.diag(found.sum(axis=1)), np.zeros((C, 1), np.int64), axis=1)
    assert class_preference(perfect).score == 1
    assert class_preference(7 * found).score == pytest.approx(preference.score)
    order = [2, 0, 1]
    moved = found[order][:, [*order, C]]
    assert class_preference(moved).score == pytest.approx(preference.score)


def test_the_strongest_rival_is_what_a_planted_bias_prefers():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (50, 60))
    prediction = np.where((truth == 2) & (rng.random(truth.shape) < 0.7), 3, truth)
    confusion = Confusion(4, 4)
    confusion.add(truth, prediction)
    found = class_preference(confusion.counts)
    assert found.rivals.tolist() == [-1, -1, 3, -1]
    assert found.per_class[2] == pytest.approx(0.3 - 0.7, abs=0.08)


@pytest.mark.parametrize("wrong", [np.ones((3, 3)), np.zeros((3, 4)), np.ones((2, 4))])
def test_class_preference_needs_counts_by_class(wrong):
    with pytest.raises(UsageError, match=r"\(C, C \+ 1\)"):
        class_preference(wrong.astype(np.int64))


def test_clusters_are_folded_into_classes():
    by_cluster = np.array([[1, 2, 4, 8, 16], [3, 5, 7, 9, 11]])  # K = 4
    found = by_class(by_cluster, np.array([1, -1, 1, 0]))
    np.testing.assert_array_equal(found, [[8, 1 + 4, 2 + 16], [9, 3 + 7, 5 + 11]])


# ---- space preference


def test_distances_by_hand():
    truth = np.full((3, 4), 255)
    truth[0, 0] = 0  # the middle of the first pixel lies at (0.5, 0.5), that of the image (1.5, 2)
    truth[1, 1:3] = 1
    found = distances(truth, 3)
    np.testing.assert_allclose(found, [np.hypot(1, 1.5) / 2.5, 0, np.nan])


@given(maps)
def test_distances_do_not_depend_on_the_side(truth):
    found = distances(truth, C)
    assert ((found >= 0) & (found <= 1) | np.isnan(found)).all()
    for turned in (truth[::-1], truth[:, ::-1], truth.T, np.repeat(truth, 3, 0).repeat(3, 1)):
        np.testing.assert_allclose(distances(turned, C), found, atol=1e-12)


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=3), st.integers(2, 6))
def test_curve_equals_loops_over_pixels(images, bins):
    if not any((truth < C).any() for truth, _ in images):
        return
    miou, objects = space_curve(images, C, bins=bins, reach=0.7)
    found = curve_of(images, bins=bins, reach=0.7)
    np.testing.assert_allclose(found.miou, np.array(miou, float))
    np.testing.assert_array_equal(found.objects, objects)
    np.testing.assert_allclose(found.distance, 0.7 * (np.arange(bins) + 0.5) / bins)


def test_slopes_by_hand():
    # Columns 50, 70 and 100 of 101 lie 0, 0.396 and 0.99 of half a width from the middle.
    images = [strip(50, 10), strip(70, 6), strip(100, 5), strip(100, 1)]
    found = curve_of(images, classes=1)  # bins begin at 0, 0.2, 0.4, 0.6, 0.8
    np.testing.assert_allclose(found.miou, [1.0, 0.6, np.nan, np.nan, 0.3])
    np.testing.assert_array_equal(found.objects, [1, 1, 0, 0, 2])
    assert found.score == pytest.approx(((0.6 - 1) / 0.2 + (0.3 - 0.6) / 0.6) / 2)
    x, y = [0.1, 0.3, 0.9, 0.9], [1.0, 0.6, 0.3, 0.3]  # every object once
    assert found.trend == pytest.approx(np.polyfit(x, y, 1)[0])


def test_a_planted_preference_for_the_middle_is_measured():
    columns = range(50, 101)
    found = curve_of([strip(c, round(10 - 8 * (c - 50) / 50)) for c in columns], classes=1)
    assert found.score == pytest.approx(-0.8, abs=0.05)  # 1 at the middle, 0.2 at the side
    assert found.trend == pytest.approx(-0.8, abs=0.05)
    other = curve_of([strip(c, round(2 + 8 * (c - 50) / 50)) for c in columns], classes=1)
    assert other.score == pytest.approx(0.8, abs=0.05)


@given(st.lists(maps, min_size=2, max_size=5).filter(lambda m: any((t < C).any() for t in m)))
def test_a_perfect_prediction_has_no_preference(truths):
    found = curve_of([(truth, truth) for truth in truths])
    assert (found.miou[found.objects > 0] == 1).all()
    assert np.isnan(found.score) or (found.score, found.trend) == (0, pytest.approx(0, abs=1e-12))


def test_a_prediction_that_is_as_good_everywhere_has_no_preference():
    found = curve_of([strip(c, 4) for c in range(50, 101)], classes=1)
    assert found.score == pytest.approx(0, abs=1e-12)
    assert found.trend == pytest.approx(0, abs=1e-12)


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=4))
def test_the_order_of_images_does_not_matter(images):
    if not any((truth < C).any() for truth, _ in images):
        return
    one, other = curve_of(images), curve_of(images[::-1])
    np.testing.assert_array_equal(one.miou, other.miou)


def test_memory_does_not_grow_with_images():
    curve = SpaceCurve(5, bins=4)
    before = {name: np.shape(value) for name, value in vars(curve).items()}
    for column in range(40):
        truth, prediction = strip(column, 3)
        confusion = Confusion(5, 5)
        confusion.add(truth, prediction)
        curve.add(confusion.counts, distances(truth, 5))
    assert {name: np.shape(value) for name, value in vars(curve).items()} == before


def test_one_bin_has_no_slope():
    found = curve_of([strip(50, 4)], classes=1)
    assert np.isnan(found.score)
    assert np.isnan(found.trend)


def test_bad_curves():
    with pytest.raises(UsageError, match="2 bins"):
        SpaceCurve(3, bins=1)
    with pytest.raises(UsageError, match="reach"):
        SpaceCurve(3, reach=0)
    with pytest.raises(UsageError, match="found none"):
        SpaceCurve(3).score()
