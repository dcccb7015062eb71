import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import classify as reference

from zerolabel.errors import DataError, UsageError
from zerolabel.stages.classify import by_text, region_labels, retrieve
from zerolabel.stages.describe import pool
from zerolabel.types import RegionMap


def grids(most):
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=most)
    return hnp.arrays(np.int32, shapes, elements=st.integers(0, 3))


def region_map(groups):
    groups = np.asarray(groups)
    ids = np.unique(groups, return_inverse=True)[1].reshape(groups.shape).astype(np.int32)
    count = ids.max() + 1
    return RegionMap(ids, np.ones(count, np.bool_), np.arange(count, dtype=np.int32))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    groups=grids(4),
    label=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.sampled_from([0, 0, 1, 2, 3, 255]),
    ),
    classes=st.integers(1, 4),
    skip=st.booleans(),
)
@settings(deadline=None)
def test_labels_of_regions_are_those_of_a_loop_over_pixels(groups, label, classes, skip):
    regions = region_map(groups)
    found = region_labels(label, regions, classes, skip_background=skip)
    assert found.dtype == np.int64
    assert found.tolist() == reference.region_labels(label, regions.ids, classes, skip)


def test_background_votes_only_where_nothing_else_does():
    regions = region_map([[0, 1], [2, 3]])
    label = np.zeros((8, 8), np.uint8)
    label[0, :2], label[1, 0], label[:4, 4:] = 3, 2, 255  # 3 beats 2; all ignored; all background
    label[4:, 4:] = 5
    assert region_labels(label, regions, 6, skip_background=True).tolist() == [3, -1, 0, 5]
    assert region_labels(label, regions, 6, skip_background=False).tolist() == [0, -1, 0, 5]
    assert region_labels(label.astype(np.int64) - 256, regions, 6).tolist() == [-1] * 4


def test_a_region_below_the_size_of_a_pixel_has_no_class():
    regions = region_map([[0, 1, 2, 3, 4]])
    assert region_labels(np.full((2, 3), 1, np.uint8), regions, 2).tolist() == [1, -1, 1, -1, 1]


@pytest.mark.parametrize(
    ("label", "classes", "kind", "message"),
    [
        (np.zeros((2, 2), np.float32), 3, DataError, r"integers; found float32 \(2, 2\)"),
        (np.zeros((2, 2, 3), np.uint8), 3, DataError, r"found uint8 \(2, 2, 3\)"),
        (np.zeros((2, 2), np.uint8), 0, UsageError, "at least one class, found 0"),
    ],
)
def test_wrong_labels_are_explained(label, classes, kind, message):
    with pytest.raises(kind, match=message):
        region_labels(label, region_map(np.eye(2)), classes)


@given(
    R=st.integers(0, 6),
    M=st.integers(1, 12),
    k=st.integers(1, 14),
    classes=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_retrieval_is_that_of_a_loop(R, M, k, classes, seed):
    vectors, bank = draw(R, 5, seed=seed), draw(M, 5, seed=seed + 100)
    labels = torch.randint(classes, (M,), generator=torch.Generator().manual_seed(seed))
    found, similarity = retrieve(vectors, bank, labels, neighbours=k, classes=classes)
    expected = reference.retrieve(vectors, bank, labels.tolist(), k)
    assert found.dtype == torch.int64
    assert similarity.dtype == torch.float32
    assert found.tolist() == [c for c, _ in expected]
    np.testing.assert_allclose(similarity, [s for _, s in expected], atol=1e-5)


def test_of_equal_votes_the_nearer_class_wins():
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([2, 0, 0, 2, 1])
    query = torch.tensor([[1.0, 0]])
    winners = [
        retrieve(query, bank, labels, neighbours=k, classes=3)[0].item() for k in (1, 2, 3, 4, 5)
    ]
    assert winners == [2, 2, 0, 2, 2]
    similarity = retrieve(query, bank, labels, neighbours=3, classes=3)[1]
    assert similarity.item() == pytest.approx(np.cos(0.2), abs=1e-6)


def test_regions_of_known_kinds_are_found_again():
    kinds = F.normalize(draw(20, 64), dim=1)
    truth = torch.arange(2000) % 20
    bank, vectors = (kinds[truth] + 0.08 * draw(2000, 64, seed=s) for s in (1, 2))
    for k in (1, 5):
        found, _ = retrieve(vectors, bank, truth, neighbours=k, classes=20)
        assert (found == truth).float().mean() > 0.99


def test_vectors_of_zeros_are_like_nothing():
    labels = torch.tensor([1, 0, 1])
    for vectors, bank in ((torch.zeros(2, 4), draw(3, 4)), (draw(2, 4), torch.zeros(3, 4))):
        found, similarity = retrieve(vectors, bank, labels, neighbours=3, classes=2)
        assert found.tolist() == [1, 1]
        assert (similarity == 0).all()


@pytest.mark.parametrize(
    ("bank", "labels", "k", "message"),
    [
        (draw(3, 4), torch.zeros(2, dtype=torch.int64), 1, r"one label.*\(2,\) for \(3, 4\)"),
        (draw(3, 4), torch.tensor([0, -1, 1]), 1, r"0\.\.1; found -1\.\.1"),
        (draw(3, 4), torch.tensor([0, 2, 1]), 1, r"0\.\.1; found 0\.\.2"),
        (draw(3, 5), torch.tensor([0, 0, 1]), 1, r"found \(2, 4\) and \(3, 5\)"),
        (draw(0, 4), torch.zeros(0, dtype=torch.int64), 1, "N >= 1"),
        (draw(3, 4), torch.tensor([0, 0, 1]), 0, "at least 1, got 0"),
    ],
)
def test_wrong_banks_are_explained(bank, labels, k, message):
    with pytest.raises(UsageError, match=message):
        retrieve(draw(2, 4), bank, labels, neighbours=k, classes=2)


@given(
    groups=grids(5),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    T=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_cosines_to_texts_are_those_of_a_loop_over_pieces(groups, grid, T, seed):
    regions = region_map(groups)
    dense, texts = draw(*grid, 4, seed=seed), 3 * draw(T, 4, seed=seed + 100)
    found, cosines = by_text(dense, regions, texts)
    assert cosines.shape == (regions.count, T)
    assert cosines.dtype == torch.float32
    expected = reference.text_cosines(dense, regions.ids, texts)
    np.testing.assert_allclose(cosines, expected, atol=1e-4)
    assert torch.equal(found, cosines.argmax(1))


def test_on_one_grid_it_is_the_mean_of_the_region():
    regions = region_map(np.random.default_rng(0).integers(0, 6, (9, 7)))
    dense, texts = draw(9, 7, 16), draw(8, 16, seed=1)
    expected = F.normalize(pool(dense, regions), dim=1) @ F.normalize(texts, dim=1).T
    torch.testing.assert_close(by_text(dense, regions, texts)[1], expected)
    finer = dense.repeat_interleave(2, 0).repeat_interleave(3, 1)  # patches are divided evenly
    torch.testing.assert_close(by_text(finer, regions, texts)[1], expected)


@pytest.mark.parametrize("grid", [(28, 28), (14, 14), (40, 21), (56, 56)])
def test_regions_get_the_class_that_their_features_point_to(grid):
    C, D, right, count = 20, 64, 0, 0
    texts = draw(C, D)
    rng = np.random.default_rng(0)
    for seed in range(10):
        cells = rng.permutation(16)[rng.integers(0, 16, (7, 7))]  # blocks of 4 by 4 patches
        regions = region_map(cells.repeat(4, 0).repeat(4, 1))
        truth = torch.from_numpy(rng.integers(0, C, regions.count))
        rows, columns = (np.arange(n) * 28 // n for n in grid)
        classes = truth[torch.from_numpy(regions.ids[rows][:, columns]).long()]
        dense = F.normalize(texts, dim=1)[classes] + 0.2 * draw(*grid, D, seed=seed)
        found, _ = by_text(dense, regions, texts)
        right, count = right + int((found == truth).sum()), count + regions.count
    assert right / count > 0.99


def test_a_small_region_on_a_coarse_grid_keeps_its_share():
    ids = np.zeros((8, 8), int)
    ids[3, 3] = 1  # a sixteenth of the upper left cell, and nothing of the others
    dense = torch.zeros(2, 2, 2)
    dense[..., 0], dense[0, 0] = 1, torch.tensor([0.0, 1])
    found, cosines = by_text(dense, region_map(ids), torch.eye(2))
    assert found.tolist() == [0, 1]
    assert cosines[1].tolist() == [0, 1]
    assert cosines[0, 1] / cosines[0, 0] == pytest.approx(15 / 48)


def test_a_class_is_as_near_as_its_nearest_text():
    regions = region_map([[0, 1, 2]])
    dense, texts = draw(1, 3, 6), draw(5, 6, seed=1)
    groups = torch.tensor([1, 0, 1, 2, 0])
    _, single = by_text(dense, regions, texts)
    found, cosines = by_text(dense, regions, texts, groups=groups)
    expected = torch.stack([single[:, groups == c].amax(1) for c in range(3)], 1)
    assert torch.equal(cosines, expected)
    assert torch.equal(found, groups[single.argmax(1)])


def test_features_and_texts_of_zeros_are_like_nothing():
    regions = region_map([[0, 1]])
    dense, texts = draw(1, 2, 4), draw(3, 4, seed=1)
    dense[0, 0], texts[2] = 0, 0
    found, cosines = by_text(dense, regions, texts)
    assert found[0] == 0
    assert (cosines[0] == 0).all()
    assert (cosines[:, 2] == 0).all()
    assert cosines.isfinite().all()
    lengths = torch.tensor([[5.0], [0.01], [7]])
    torch.testing.assert_close(by_text(3 * dense, regions, lengths * texts)[1], cosines)


@pytest.mark.parametrize(
    ("shape", "texts", "groups", "message"),
    [
        ((2, 2, 4), (3, 5), None, r"found \(2, 2, 4\) and \(3, 5\)"),
        ((4, 4), (3, 4), None, r"found \(4, 4\) and \(3, 4\)"),
        ((2, 2, 4), (0, 4), None, "T >= 1"),
        ((2, 2, 4), (3, 4), [0, 1], "class of each of 3 texts; found torch.int64"),
        ((2, 2, 4), (3, 4), [0.0, 1, 1], "found torch.float32"),
        ((2, 2, 4), (3, 4), [0, 2, 2], r"each with a text; found the classes \[0, 2\]"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(shape, texts, groups, message):
    with pytest.raises(UsageError, match=message):
        by_text(
            torch.ones(*shape),
            region_map(np.eye(2)),
            torch.ones(*texts),
            groups=None if groups is None else torch.tensor(groups),
        )
