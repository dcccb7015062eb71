import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference.scores_by_sets import best_matching, set_scores
from sklearn.metrics import confusion_matrix

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.confusion import CHUNK, Confusion, scores

KEYS = ("miou", "pixel_accuracy", "mean_accuracy", "mean_f1")


def counted(truth, prediction, classes, clusters):
    confusion = Confusion(classes, clusters)
    confusion.add(truth, prediction)
    return confusion.counts


def planted(seed, *, shape=(40, 30), classes=5, clusters=5):
    """Random labels with ignored pixels, and predictions that are right half of the time."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape).astype(np.uint8)
    noise = rng.integers(0, clusters, shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, truth % clusters, noise).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = 255
    prediction[rng.random(shape) < 0.1] = 255
    return truth, prediction


@pytest.mark.parametrize("clusters", [3, 5, 8, 300])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.dtype(">u2")])
def test_counts_equal_scikit_learn(clusters, dtype):
    rng = np.random.default_rng(clusters)
    shape = (CHUNK // 128 + 3, 128)  # more pixels than are counted at once
    truth = rng.integers(0, 9, shape)  # classes 0..4; 5..8 are none
    truth[0, :7] = 255
    prediction = rng.integers(0, clusters + 2, shape)
    prediction[1, :7] = 65535 if clusters > 255 else 255
    counts = counted(truth.astype(dtype), prediction.astype(dtype), 5, clusters)
    scored = truth < 5
    ours = np.minimum(prediction[scored], clusters)
    ids = list(range(max(clusters + 1, 5)))
    expected = confusion_matrix(truth[scored], ours, labels=ids)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected[:5, : clusters + 1])


def test_counts_of_bytes_with_all_255_classes_and_clusters():
    truth = np.arange(256, dtype=np.uint8).reshape(16, 16)
    counts = counted(truth, truth.T.copy().T, 255, 255)
    np.testing.assert_array_equal(counts, np.eye(255, 256, dtype=np.int64))


def test_counts_of_many_classes_and_clusters_do_not_overflow():
    truth, prediction = np.full((2, 3), 254, np.uint8), np.full((2, 3), 511, np.uint16)
    counts = counted(truth, prediction, 255, 512)  # 2^17 cells
    assert counts[254, 511] == counts.sum() == 6


def test_negative_ids_are_ignored_in_truth_and_unlabelled_in_predictions():
    truth = np.array([[-1, 0, 1]])
    prediction = np.array([[0, -1, 1]], np.int8)
    np.testing.assert_array_equal(counted(truth, prediction, 2, 2), [[0, 0, 1], [0, 1, 0]])


def test_views_that_are_not_contiguous_are_counted():
    truth, prediction = planted(0)
    expected = counted(truth[::2, ::3].copy(), prediction[::2, ::3].copy(), 5, 5)
    np.testing.assert_array_equal(counted(truth[::2, ::3], prediction[::2, ::3], 5, 5), expected)


def test_images_one_by_one_in_parts_or_as_a_batch_count_the_same():
    pairs = [planted(seed) for seed in range(4)]
    one_by_one = Confusion(5, 5)
    first, second = Confusion(5, 5), Confusion(5, 5)
    for index, (truth, prediction) in enumerate(pairs):
        one_by_one.add(truth, prediction)
        (first if index % 2 else second).add(truth, prediction)
    first.merge(second)
    batch = counted(*(np.concatenate(maps) for maps in zip(*pairs, strict=True)), 5, 5)
    np.testing.assert_array_equal(one_by_one.counts, batch)
    np.testing.assert_array_equal(first.counts, batch)


def test_what_ignored_pixels_are_predicted_as_changes_nothing():
    truth, prediction = planted(1)
    other = prediction.copy()
    other[truth == 255] = 3
    np.testing.assert_array_equal(counted(truth, prediction, 5, 5), counted(truth, other, 5, 5))
    assert counted(truth, prediction, 5, 5).sum() == (truth != 255).sum()


def test_sizes_that_differ_are_named():
    with pytest.raises(DataError, match=r"expected .*\(4, 6\), found \(6, 4\)"):
        Confusion(2, 2).add(np.zeros((4, 6), np.uint8), np.zeros((6, 4), np.uint8))


def test_label_maps_of_floats_are_refused():
    with pytest.raises(DataError, match="float64"):
        Confusion(2, 2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 2)))


@pytest.mark.parametrize(("classes", "clusters"), [(0, 3), (256, 3), (3, 0)])
def test_impossible_numbers_of_classes_are_refused(classes, clusters):
    with pytest.raises(UsageError, match="Expected 1 to 255 classes"):
        Confusion(classes, clusters)


def test_matrices_of_different_shapes_are_not_merged():
    with pytest.raises(UsageError, match=r"\(2, 4\), found \(2, 5\)"):
        Confusion(2, 3).merge(Confusion(2, 4))


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_sets_of_pixels(seed):
    # five classes in the table, of which class 4 is neither there nor predicted
    truth, prediction = planted(seed, classes=4, clusters=4)
    found = scores(counted(truth, prediction, 5, 5), matching="identity")
    per_class, right = set_scores(truth.ravel().tolist(), prediction.ravel().tolist(), 5)
    np.testing.assert_allclose(
        np.stack([found.iou, found.accuracy, found.f1], axis=1), per_class, rtol=1e-12
    )
    assert found.pixel_accuracy == pytest.approx(right, rel=1e-12)
    means = (found.miou, found.mean_accuracy, found.mean_f1)
    np.testing.assert_allclose(means, np.mean(per_class[:4], axis=0), rtol=1e-12)
    assert np.isnan(found.iou[4])


def test_three_by_three_by_hand():
    counts = np.array([[4, 1, 0, 0], [2, 6, 0, 2], [0, 0, 5, 0]])  # last column: no cluster
    found = scores(counts)
    assert found.matching.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.iou, [4 / 7, 6 / 11, 1])
    np.testing.assert_allclose(found.accuracy, [4 / 5, 6 / 10, 1])
    np.testing.assert_allclose(found.f1, [8 / 11, 12 / 17, 1])
    assert found.pixel_accuracy == 15 / 20
    assert found.pixels.tolist() == [5, 10, 5]


def test_a_class_that_is_absent_but_predicted_has_iou_0():
    counts = np.array([[5, 0, 1, 0], [0, 6, 0, 0], [0, 0, 0, 0]])
    found = scores(counts)
    assert found.iou.tolist() == [5 / 6, 1, 0]
    assert found.miou == pytest.approx(11 / 18)
    assert np.isnan(found.accuracy[2])
    assert found.mean_accuracy == pytest.approx(11 / 12)


def test_a_class_neither_there_nor_predicted_is_left_out_of_the_means():
    counts = np.array([[5, 1, 0, 0], [0, 6, 0, 0], [0, 0, 0, 0]])
    assert scores(counts).miou == pytest.approx((5 / 6 + 6 / 7) / 2)


def test_pixels_without_a_matched_cluster_are_misses_unless_dropped():
    counts = np.array([[4, 0, 3, 1], [0, 5, 2, 0]])  # the third cluster finds no class
    missed, dropped = scores(counts), scores(counts, drop_unlabelled=True)
    np.testing.assert_allclose(missed.iou, [4 / 8, 5 / 7])
    assert missed.pixel_accuracy == 9 / 15
    np.testing.assert_allclose(dropped.iou, [1, 1])
    assert dropped.pixel_accuracy == 1
    assert dropped.pixels.tolist() == [4, 5]


def test_majority_joins_clusters():
    found = scores(np.array([[4, 0, 3, 0], [1, 5, 2, 0]]), matching="majority")
    assert found.matching.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.iou, [7 / 10, 5 / 8])


@pytest.mark.parametrize("drop", [False, True])
def test_nothing_to_score_is_an_error(drop):
    counts = np.zeros((3, 4), np.int64)
    counts[0, -1] = 7 * drop
    with pytest.raises(DataError, match="no pixel to score"):
        scores(counts, drop_unlabelled=drop)


@settings(deadline=None)
@given(
    arrays(np.int64, (4, 5), elements=st.integers(0, 40)),
    st.permutations(range(5)),
    st.sampled_from(["hungarian", "majority"]),
    st.booleans(),
)
def test_relabelling_clusters_changes_no_score(counts, order, rule, drop):
    assume(counts.any())
    # where several matchings are best, the index decides, and scores other than accuracy may change
    assume(rule == "majority" or best_matching(counts.tolist())[1] == 1)
    rest = np.full((4, 1), 3)
    ours = scores(np.hstack([counts, rest]), matching=rule, drop_unlabelled=drop)
    theirs = scores(np.hstack([counts[:, order], rest]), matching=rule, drop_unlabelled=drop)
    for key in KEYS:
        assert getattr(ours, key) == pytest.approx(getattr(theirs, key), rel=1e-12, nan_ok=True)
    np.testing.assert_allclose(ours.iou, theirs.iou, rtol=1e-12)
    assert theirs.matching.tolist() == ours.matching[list(order)].tolist()


@settings(deadline=None)
@given(arrays(np.int64, (3, 4), elements=st.integers(0, 3)), st.permutations(range(4)))
def test_relabelling_clusters_never_changes_accuracy(counts, order):
    assume(counts.any())
    rest = np.ones((3, 1), np.int64)
    ours, theirs = (scores(np.hstack([c, rest])) for c in (counts, counts[:, order]))
    assert ours.pixel_accuracy == theirs.pixel_accuracy
