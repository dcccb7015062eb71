import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from reference import linear_probe as reference

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation import probes
from zerolabel.evaluation.probes import KnnScore, judge, knn, linear_probe, mean_patch


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_neighbour_on_the_bank_itself_is_always_right():
    bank, labels = draw(500, 8), torch.arange(500) % 17
    found = knn(bank, labels, bank, labels, k=1)
    assert found == KnnScore(1.0, None, 1, 500, 500)


def test_shares_are_those_of_a_loop():
    bank, labels = (
        draw(120, 5),
        torch.randint(9, (120,), generator=torch.Generator().manual_seed(1)),
    )
    queries, truth = draw(60, 5, seed=2), torch.randint(9, (60,))
    found = knn(bank, labels, queries, truth, k=10, temperature=0.1)
    hits1 = hits5 = 0
    unit = [x / x.norm(dim=1, keepdim=True) for x in (queries, bank)]
    for i, row in enumerate((unit[0] @ unit[1].T).tolist()):
        order = sorted(range(120), key=lambda j: -row[j])[:10]
        scores = {}
        for j in order:
            scores[int(labels[j])] = scores.get(int(labels[j]), 0) + math.exp(row[j] / 0.1)
        ranked = sorted(scores, key=lambda c: -scores[c])
        hits1 += ranked[0] == int(truth[i])
        hits5 += int(truth[i]) in ranked[:5]
    assert astuple(found) == pytest.approx((hits1 / 60, hits5 / 60, 10, 120, 60))


def test_a_class_without_votes_is_no_answer():
    """Six classes, all neighbours of class 0: the other four of the first five are guesses."""
    bank = torch.tensor([[1.0, 0]] * 5 + [[-1.0, 0]])
    labels = torch.tensor([0] * 5 + [3])
    found = knn(bank, labels, torch.tensor([[1.0, 0.1]] * 6), torch.arange(6), k=5)
    assert (found.top1, found.top5) == pytest.approx((1 / 6, 1 / 6))


def test_a_small_bank_gives_all_it_has():
    found = knn(draw(3, 4), torch.tensor([0, 1, 2]), draw(2, 4), torch.tensor([7, 9]), k=20)
    assert found == KnnScore(0.0, 0.0, 3, 3, 2)
    assert knn(draw(3, 4), torch.arange(3), draw(2, 4), torch.arange(2), k=4).top5 is None


@pytest.mark.parametrize(("bank", "queries", "known"), [(2, 3, 3), (3, 0, 3), (4, 3, 3)])
def test_sizes_of_k_nn_must_fit(bank, queries, known):
    with pytest.raises(UsageError, match="one label per vector"):
        knn(draw(bank, 4), torch.zeros(known), draw(queries, 4), torch.zeros(queries))


def test_mean_patch_is_the_mean_over_the_grid():
    tokens = draw(3, 4, 5, 6)
    slow = torch.stack([image.reshape(20, 6).sum(0) / 20 for image in tokens])
    torch.testing.assert_close(mean_patch(tokens), slow)
    assert mean_patch(tokens.half()).dtype == torch.float32


CLASSES = 4


def planted(count, *, noise=0.5, grid=8, size=(50, 90), seed=0, classes=CLASSES):
    """Tokens that are a noisy direction per class, and label maps of the same blocks."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, classes, (count, 2, 2)).repeat(grid // 2, 1).repeat(grid // 2, 2)
    directions = torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    tokens = 5 + directions[ids] + noise * draw(count, grid, grid, 6, seed=seed)
    rows, columns = (np.arange(n) * grid // n for n in size)
    return tokens, [image[rows][:, columns].astype(np.uint8) for image in ids]


def test_the_probe_equals_the_obvious_one():
    (train, labels), (val, truth) = planted(20, noise=2), planted(7, noise=2, seed=1)
    for label in labels[:3]:
        label[10:30, 20:60] = 255
    truth[0][:, :40] = 255
    truth[1][:20] = 77  # no class
    train[..., 2] *= 30
    generator = torch.Generator().manual_seed(3)
    bound = 6**-0.5
    start = torch.rand(7, CLASSES, generator=generator) * 2 * bound - bound
    orders = [torch.randperm(20, generator=generator) for _ in range(4)]
    expected = reference.probe(
        train, labels, val, truth, classes=CLASSES, start=start, orders=orders
    )
    found = linear_probe(train, labels, val, truth, classes=CLASSES, seed=3, epochs=4)
    assert (found.miou, found.pixel_accuracy) == pytest.approx(expected, abs=2e-4)


def test_what_is_linear_is_read():
    (train, labels), (val, truth) = planted(24), planted(9, seed=1)
    found = linear_probe(train, labels, val, truth, classes=CLASSES, seed=0, lr=0.03)
    assert found.miou > 0.8  # borders are blurred by the upsampling
    assert found.classes == CLASSES
    assert found.floor < 0.15
    noise = linear_probe(draw(24, 8, 8, 6), labels, draw(9, 8, 8, 6), truth, classes=4, seed=0)
    assert noise.miou < 0.25


def test_seeds_decide_and_nothing_else_does():
    (train, labels), (val, truth) = planted(20, noise=3), planted(5, noise=3, seed=1)

    def run(seed, tokens=train):
        found = linear_probe(tokens, labels, val, truth, classes=CLASSES, seed=seed, epochs=3)
        return found.miou, found.pixel_accuracy, found.iou.tolist()

    first = run(0)
    torch.rand(5)
    assert run(0) == first
    assert run(1) != first
    assert run(0, train.half())[0] == pytest.approx(first[0], abs=2e-3)


def test_shift_and_scale_of_channels_do_not_matter():
    (train, labels), (val, truth) = planted(20, noise=3), planted(5, noise=3, seed=1)
    scale = torch.tensor([1e-3, 1, 10, 100, 1, 7])
    runs = [
        linear_probe(a, labels, b, truth, classes=CLASSES, seed=0, epochs=3)
        for a, b in ((train, val), (train * scale - 4, val * scale - 4))
    ]
    assert runs[0].miou == pytest.approx(runs[1].miou, abs=5e-3)


def test_constant_channels_are_left_out():
    (train, labels), (val, truth) = planted(16), planted(5, seed=1)
    first = linear_probe(train, labels, val, truth, classes=CLASSES, seed=0, epochs=3)
    train[..., 5], val[..., 5] = 1 / 3, 1e6
    second = linear_probe(train, labels, val, truth, classes=CLASSES, seed=0, epochs=3)
    assert np.isfinite(second.miou)
    assert second.miou > 0.6 * first.miou


def test_only_classes_that_the_validation_holds_are_counted():
    (train, labels), (val, truth) = planted(20), planted(6, seed=1)
    truth = [np.where(label == 3, 255, label).astype(np.uint8) for label in truth]
    found = linear_probe(train, labels, val, truth, classes=7, seed=0, epochs=3)
    assert found.classes == 3
    assert np.isnan(found.iou).tolist() == [False] * 3 + [True] * 4
    assert found.miou == pytest.approx(np.nanmean(found.iou))
    counts = np.bincount(np.concatenate([reference.small(x, 7).ravel() for x in truth]))[:3]
    assert found.floor == pytest.approx(counts.max() / counts.sum() / 3)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (375, 500), (500, 333), (63, 200)])
def test_labels_are_made_small_as_by_a_loop(size):
    label = np.random.default_rng(0).integers(-2, 300, size).astype(np.int16)
    expected = reference.small(label, 21)
    np.testing.assert_array_equal(probes._small(label, 21), expected)


def test_wrong_probes_are_explained():
    tokens, labels = planted(3)
    with pytest.raises(UsageError, match=r"found \(3, 8, 8, 6\) and 2 label maps"):
        linear_probe(tokens, labels[:2], tokens, labels, classes=4, seed=0)
    with pytest.raises(UsageError, match=r"found \(3, 8, 6\)"):
        linear_probe(tokens, labels, tokens[:, 0], labels, classes=4, seed=0)
    void = [np.full((9, 9), 255, np.uint8)] * 3
    with pytest.raises(DataError, match=r"No pixel to train the probe on: expected ids 0\.\.3"):
        linear_probe(tokens, void, tokens, labels, classes=4, seed=0)
    with pytest.raises(DataError, match="no pixel to score"):
        linear_probe(tokens, labels, tokens, void, classes=4, seed=0, epochs=1)


def test_a_step_without_labelled_pixels_changes_little():
    """One batch of the epoch is all void: no NaN comes of it."""
    tokens, labels = planted(17)
    labels = [np.full_like(label, 255) if i else label for i, label in enumerate(labels)]
    found = linear_probe(tokens, labels, tokens[:1], labels[:1], classes=4, seed=0, epochs=2)
    assert np.isfinite(found.miou)


@pytest.mark.parametrize(
    ("absent", "iou", "miou", "classes", "floor"),
    [
        ("nanmean", [0.5, 0.25, 0.0, np.nan], 0.25, 3, 0.25),
        ("zero", [0.5, 0.25, 0.0, 0.0], 0.1875, 4, 0.125),
        ("gt-only", [0.5, 0.25, np.nan, np.nan], 0.375, 2, 0.25),
    ],
)
def test_a_hand_made_matrix_under_every_rule(absent, iou, miou, classes, floor):
    """Class 2 is predicted and never true, class 3 neither; half of the pixels are of class 0."""
    counts = np.zeros((4, 5), np.int64)
    counts[0, [0, 1]], counts[1, [0, 1, 2]] = (4, 2), (2, 2, 2)
    found = judge(counts, absent=absent)
    np.testing.assert_allclose(found.iou, iou)
    assert (found.miou, found.classes) == (pytest.approx(miou), classes)
    assert found.pixel_accuracy == 0.5
    assert found.floor == pytest.approx(floor)


def test_clusters_are_matched_where_a_rule_is_named():
    counts = np.array([[1, 9, 0], [8, 2, 0]])
    assert judge(counts, absent="zero", matching="hungarian").pixel_accuracy == 17 / 20
    assert judge(counts, absent="zero").pixel_accuracy == 3 / 20
