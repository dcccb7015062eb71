import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference.scores_by_sets import best_matching, exact_ious, set_scores
from sklearn.metrics import confusion_matrix

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.confusion import ABSENT, CHUNK, Confusion, floor, scores
from zerolabel.ops.matching import MATCHINGS

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


@pytest.mark.parametrize(
    ("absent", "miou", "accuracy", "f1"),
    [
        # cat 6/8, dog 3/4, cow 0 of one wrong pixel; fox left out
        ("nanmean", (6 / 8 + 3 / 4 + 0) / 3, (6 / 7 + 3 / 4) / 2, (12 / 14 + 6 / 7 + 0) / 3),
        ("zero", (6 / 8 + 3 / 4 + 0 + 0) / 4, (6 / 7 + 3 / 4) / 4, (12 / 14 + 6 / 7 + 0 + 0) / 4),
        ("gt-only", (6 / 8 + 3 / 4) / 2, (6 / 7 + 3 / 4) / 2, (12 / 14 + 6 / 7) / 2),
    ],
)
def test_rules_for_absent_classes_by_hand(absent, miou, accuracy, f1):
    # 7 pixels of cat, one of which is taken for cow; 4 of dog, one of which is taken for cat
    counts = np.array([[6, 0, 1, 0, 0], [1, 3, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = scores(counts, matching="identity", absent=absent)
    assert found.miou == pytest.approx(miou, rel=1e-12)
    assert found.mean_accuracy == pytest.approx(accuracy, rel=1e-12)
    assert found.mean_f1 == pytest.approx(f1, rel=1e-12)
    assert found.pixel_accuracy == 9 / 11
    np.testing.assert_allclose(found.iou, [6 / 8, 3 / 4, 0, np.nan])  # the same under each rule


def test_the_rules_agree_where_no_class_is_absent():
    counts = np.array([[4, 1, 0, 0], [2, 6, 0, 2], [0, 0, 5, 0]])
    assert len({scores(counts, absent=rule).miou for rule in ABSENT}) == 1


# Two classes, three clusters; the third finds no class, and one pixel has no cluster.
LEFT_OVER = np.array([[4, 0, 3, 1], [0, 5, 2, 0]])


@pytest.mark.parametrize(
    ("matching", "ignore", "iou", "accuracy"),
    [
        ("hungarian", "void", [4 / 8, 5 / 7], 9 / 15),
        ("hungarian-extra", "void", [4 / 8, 5 / 7], 9 / 15),
        ("hungarian", "void-and-unlabelled", [4 / 7, 5 / 7], 9 / 14),
        ("drop-unmatched", "void", [4 / 5, 1], 9 / 10),
        ("drop-unmatched", "void-and-unlabelled", [1, 1], 1),
        ("majority", "void", [7 / 10, 5 / 7], 12 / 15),
        ("nearest", "void", [4 / 8, 7 / 10], 11 / 15),
    ],
)
def test_pixels_without_a_class_by_hand(matching, ignore, iou, accuracy):
    centres = np.array([[0.0], [2], [3]])  # the third cluster lies nearest to the second
    found = scores(LEFT_OVER, matching=matching, ignore=ignore, centres=centres)
    np.testing.assert_allclose(found.iou, iou)
    assert found.pixel_accuracy == pytest.approx(accuracy, rel=1e-12)


def test_dropped_pixels_are_not_true_pixels():
    found = scores(LEFT_OVER, matching="drop-unmatched", ignore="void-and-unlabelled")
    assert found.pixels.tolist() == [4, 5]
    assert scores(LEFT_OVER).pixels.tolist() == [8, 7]


def test_clusters_may_be_matched_on_other_images():
    elsewhere = np.array([[0, 9, 0, 0], [9, 0, 0, 0]])
    found = scores(LEFT_OVER, source=elsewhere)
    assert found.matching.tolist() == [1, 0, -1]
    assert found.pixel_accuracy == 0
    assert scores(LEFT_OVER, source=LEFT_OVER).miou == scores(LEFT_OVER).miou


def test_one_category_everywhere_by_hand():
    # 8 of 15 pixels are of class 0: IoU 8/15 and 0
    lowest = floor(LEFT_OVER)
    assert lowest.pixel_accuracy == 8 / 15
    assert lowest.miou == pytest.approx(8 / 30)
    absent = np.vstack([LEFT_OVER, np.zeros((2, 4), np.int64)])
    assert floor(absent, absent="zero").miou == pytest.approx(8 / 60)
    assert floor(absent, absent="gt-only").miou == pytest.approx(8 / 30)


def test_majority_joins_clusters():
    found = scores(np.array([[4, 0, 3, 0], [1, 5, 2, 0]]), matching="majority")
    assert found.matching.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.iou, [7 / 10, 5 / 8])


@pytest.mark.parametrize("ignore", ["void", "void-and-unlabelled"])
def test_nothing_to_score_is_an_error(ignore):
    counts = np.zeros((3, 4), np.int64)
    counts[0, -1] = 7 * (ignore != "void")
    with pytest.raises(DataError, match="no pixel to score"):
        scores(counts, ignore=ignore)


RULES = sorted(MATCHINGS.keys() - {"identity"})  # which is about the numbers of clusters
COUNTS = arrays(np.int64, (4, 6), elements=st.integers(0, 40))
IGNORES = st.sampled_from(["void", "void-and-unlabelled"])
CENTRES = np.array([[0.0], [1], [3], [7], [15]])  # no two distances are equal


def unclear(counts, rule):
    """Whether several matchings are best: then the index decides, and scores may differ."""
    held = counts[:, :-1].tolist()
    worth = exact_ious(counts.tolist()) if rule.endswith("iou") else held
    if rule.startswith("majority"):
        return any(column.count(max(column)) > 1 for column in zip(*worth, strict=True))
    return best_matching(worth)[1] > 1


@settings(deadline=None)
@given(COUNTS, st.permutations(range(5)), st.sampled_from(RULES), st.sampled_from(list(ABSENT)))
def test_relabelling_clusters_changes_no_score(counts, order, rule, absent):
    assume(counts[:, :-1].any())
    assume(not unclear(counts, rule))
    order = list(order)
    moved = np.column_stack([counts[:, order], counts[:, -1]])
    options = {"matching": rule, "absent": absent}
    ours = scores(counts, centres=CENTRES, **options)
    theirs = scores(moved, centres=CENTRES[order], **options)
    for key in KEYS:
        assert getattr(ours, key) == pytest.approx(getattr(theirs, key), rel=1e-12)
    np.testing.assert_allclose(ours.iou, theirs.iou, rtol=1e-12)
    assert theirs.matching.tolist() == ours.matching[order].tolist()


@settings(deadline=None)
@given(arrays(np.int64, (3, 4), elements=st.integers(0, 3)), st.permutations(range(4)))
def test_relabelling_clusters_never_changes_accuracy(counts, order):
    assume(counts.any())
    rest = np.ones((3, 1), np.int64)
    ours, theirs = (scores(np.hstack([c, rest])) for c in (counts, counts[:, order]))
    assert ours.pixel_accuracy == theirs.pixel_accuracy


@settings(deadline=None)
@given(COUNTS, st.sampled_from(sorted(MATCHINGS)), st.sampled_from(list(ABSENT)), IGNORES)
def test_every_score_is_a_share(counts, rule, absent, ignore):
    assume(counts[:, :-1].any())
    try:
        found = scores(counts, matching=rule, absent=absent, ignore=ignore, centres=CENTRES)
    except DataError:  # every pixel is of a cluster that was left over
        assume(False)
    for key in KEYS:
        assert 0 <= getattr(found, key) <= 1
    for shares in (found.iou, found.accuracy, found.f1):
        assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()
    assert (np.nan_to_num(found.iou) <= np.nan_to_num(found.f1)).all()


@settings(deadline=None)
@given(COUNTS, IGNORES)
def test_majority_is_right_on_at_least_as_many_pixels_as_hungarian(counts, ignore):
    assume(counts[:, :-1].any())
    many, one = (
        scores(counts, matching=rule, ignore=ignore).pixel_accuracy
        for rule in ("majority", "hungarian")
    )
    assert many >= one


@settings(deadline=None)
@given(COUNTS, st.sampled_from(list(ABSENT)))
def test_majority_is_never_below_one_category_everywhere(counts, absent):
    counts[:, -1] = 0
    assume(counts.any())
    found = scores(counts, matching="majority", absent=absent)
    assert found.pixel_accuracy >= floor(counts, absent=absent).pixel_accuracy


@settings(deadline=None)
@given(
    arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 255)),
    arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 255)),
)
def test_ignored_pixels_are_never_counted_however_images_are_cut(truth, prediction):
    batch = counted(truth, prediction, 7, 9)
    assert batch.sum() == (truth < 7).sum()
    total, merged = Confusion(7, 9), Confusion(7, 9)
    for pair in zip(truth, prediction, strict=True):
        total.add(*pair)
        single = Confusion(7, 9)
        single.add(*pair)
        merged.merge(single)
    np.testing.assert_array_equal(total.counts, batch)
    np.testing.assert_array_equal(merged.counts, batch)
