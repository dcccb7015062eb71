import numpy as np
import pytest
import torch
from reference import jaccard as reference

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.jaccard import Jaccard, overlaps
from zerolabel.ops.maps import best_head


def maps(heads, h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(heads, h, w, generator=generator, dtype=torch.float64) ** 3


def labels(size, seed=0, ids=(0, 1, 2, 5, 255)):
    small = np.random.default_rng(seed).choice(ids, (3, 4)).astype(np.uint8)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, small.shape, strict=True))
    return small[rows][:, columns]


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("mass", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("grid", [(4, 6), (7, 3)])
def test_scores_are_those_of_sets(grid, mass, background):
    total, tables = Jaccard(mass=mass), []
    for seed, size in enumerate([(24, 30), (31, 17), (9, 40)]):
        attention, label = maps(3, *grid, seed=seed), labels(size, seed=seed)
        tables.append(
            reference.score_image(attention.numpy(), label, mass=mass, background=background)
        )
        mean = total.add(attention, label, background=background)
        assert mean == pytest.approx(tables[-1][:, :-1].max(1).mean())
    found = total.score()
    assert found.jaccard == pytest.approx(np.mean([t[:, :-1].max(1).mean() for t in tables]))
    assert found.per_head == pytest.approx(np.mean([t[:, :-1].mean(0) for t in tables], axis=0))
    assert found.everything == pytest.approx(np.mean([t[:, -1].mean() for t in tables]))
    best = np.concatenate([t[:, :-1].argmax(1) for t in tables])
    assert found.best == tuple(np.bincount(best, minlength=3))
    assert (found.objects, found.images) == (len(best), 3)


def test_every_object_has_its_own_best_head():
    """Two objects, a head on each: both are found, though no head finds both."""
    attention = torch.zeros(2, 4, 4)
    attention[0, :2, :2] = attention[1, 2:, 2:] = 0.25
    label = np.zeros((8, 8), np.uint8)
    label[:4, :4], label[4:, 4:] = 3, 9
    total = Jaccard(mass=1.0)
    assert total.add(attention, label) == 1
    found = total.score()
    assert (found.jaccard, found.per_head, found.best) == (1.0, (0.5, 0.5), (1, 1))
    assert found.everything == pytest.approx(0.25)


def test_objects_weigh_within_their_image_only():
    """One image with one object, one with two: images count the same."""
    total = Jaccard(mass=1.0)
    attention = torch.zeros(1, 2, 2)
    attention[0, 0, 0] = 1.0
    total.add(attention, np.array([[1, 0], [0, 0]]))
    total.add(attention, np.array([[0, 2], [3, 0]]))
    assert total.score().jaccard == 0.5
    assert total.score().objects == 3


def test_ignored_pixels_count_nowhere():
    attention = torch.ones(1, 1, 2)
    label = np.array([[1, 255]])
    assert Jaccard(mass=1.0).add(attention, label) == 1
    assert Jaccard(mass=1.0).add(attention, np.array([[1, 0]])) == 0.5


def test_the_overlap_is_that_of_the_best_head():
    generator = np.random.default_rng(0)
    masks, label = generator.random((5, 20, 30)) > 0.5, labels((20, 30))
    valid = torch.from_numpy(label != 255)
    found = overlaps(masks, label, 0)
    ids = sorted(set(label.ravel().tolist()) - {0, 255})
    for column, one in zip(found.T, ids, strict=True):
        head, share = best_head(
            torch.from_numpy(masks), torch.from_numpy(label == one), valid=valid
        )
        assert (int(column.argmax()), column.max()) == (head, pytest.approx(share))


def test_images_without_objects_are_left_out():
    total = Jaccard()
    assert total.add(maps(2, 3, 3), np.array([[0, 255]])) is None
    with pytest.raises(DataError, match="no object to score"):
        total.score()
    total.add(maps(2, 3, 3), labels((9, 9)))
    assert total.score().images == 1


def test_the_number_of_heads_stays():
    total = Jaccard()
    total.add(maps(2, 3, 3), labels((9, 9)))
    with pytest.raises(UsageError, match="Expected 2 heads as before, found 3"):
        total.add(maps(3, 3, 3), labels((9, 9)))
    with pytest.raises(UsageError, match=r"attention \(heads, h, w\), found \(3, 3\)"):
        total.add(maps(3, 3, 3)[0], labels((9, 9)))
