import numpy as np
import pytest
import torch
from reference import patches as reference

from zerolabel.errors import DataError
from zerolabel.evaluation.confusion import scores
from zerolabel.evaluation.retrieval import (
    Pooled,
    PooledKmeans,
    cluster,
    occurrences,
    pool,
    retrieve,
)

C = 6


def scenes(count, seed, *, noise=0.1):
    """A vector, a label map and a mask per image: a square of one class, the vector its direction.

    The mask misses the square by two pixels; some pixels are void, and another class hides.
    """
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(C, 8))
    found = []
    for i in range(count):
        label = np.zeros((16, 20), np.uint8)
        kind = 1 + i % (C - 1)
        label[4:12, 5:15], label[8:12, 12:15] = kind, 1 + (i + 1) % (C - 1)
        label[:1], label[10, 6:9] = 255, 255
        mask = np.zeros(label.shape, bool)
        mask[2:11, 5:15] = True
        vector = directions[kind] + noise * generator.normal(size=8)
        found.append((vector / np.linalg.norm(vector), label, mask))
    return found


def pooled(found):
    pairs = [occurrences(label, mask, C) for _, label, mask in found]
    vectors = torch.tensor(np.stack([vector for vector, _, _ in found])).float()
    return Pooled(vectors, *(np.stack(part) for part in zip(*pairs, strict=True)))


@pytest.mark.parametrize("size", [(4, 5), (12, 15), (13, 17)])
def test_a_prototype_is_the_mean_token_of_its_pixels(size):
    tokens = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    mask = np.random.default_rng(0).random(size) < 0.4
    found = pool(tokens, mask)
    np.testing.assert_allclose(found, reference.prototype(tokens.numpy(), mask), atol=1e-6)
    assert float(found.norm()) == pytest.approx(1)
    assert not pool(tokens, np.zeros(size, bool)).any()


@pytest.mark.parametrize("among", [None, [1, 4], [2, 3, 5]])
def test_retrieval_is_that_of_whole_arrays(among):
    bank, asked = scenes(20, 1, noise=1.0), scenes(9, 2, noise=1.0)
    counts = retrieve(pooled(bank), pooled(asked), among=among)
    expected = reference.retrieve(bank, asked, C, among or range(1, C))
    np.testing.assert_array_equal(counts, expected)


def test_planted_classes_are_retrieved():
    counts = retrieve(pooled(scenes(20, 1)), pooled(scenes(10, 2)))
    assert scores(counts, matching="identity").miou > 0.6
    assert not counts[:, -1].any()


def test_labels_of_the_asked_only_score():
    bank, asked = scenes(20, 1), scenes(10, 2)
    shuffled = [(v, asked[-1 - i][1], m) for i, (v, _, m) in enumerate(asked)]
    first, second = (retrieve(pooled(bank), pooled(part)) for part in (asked, shuffled))
    np.testing.assert_array_equal(first.sum(0), second.sum(0))  # predictions stay


def test_images_without_an_object_in_the_mask_are_no_neighbours():
    bank, asked = scenes(5, 1), scenes(5, 2)
    empty = [(v, np.zeros_like(label), m) for v, label, m in asked]  # nearest, and of no class
    np.testing.assert_array_equal(
        retrieve(pooled(bank + empty), pooled(asked)), retrieve(pooled(bank), pooled(asked))
    )
    with pytest.raises(DataError, match="None of the 5 images to retrieve from"):
        retrieve(pooled(empty), pooled(asked))


def test_clusters_of_planted_classes_are_found():
    asked = pooled(scenes(60, 3))
    config = PooledKmeans(batch=16, epochs=20)
    counts = cluster(asked, config, seed=0)
    assert counts.shape == (C, C + 1)
    assert scores(counts, matching="hungarian-iou", absent="zero").miou > 0.6
    total = asked.inside.sum() + asked.outside.sum()
    assert counts.sum() == total
    np.testing.assert_array_equal(counts, cluster(asked, config, seed=0))
    assert cluster(asked, PooledKmeans(k=9), seed=0).shape == (C, 11)


def test_clusters_never_see_labels():
    """Other labels on the same scored pixels: every cluster keeps its pixels."""
    found = scenes(40, 3)
    other = [(v, np.where(label == 255, 255, 3).astype(np.uint8), m) for v, label, m in found]
    first, second = (cluster(pooled(part), PooledKmeans(), seed=1) for part in (found, other))
    np.testing.assert_array_equal(first.sum(0), second.sum(0))
    assert second[3].sum() == second.sum()


def test_an_image_without_a_salient_part_is_background():
    found = scenes(12, 3)
    vector, label, mask = found[0]
    dark = (np.zeros_like(vector), label, np.zeros_like(mask))
    counts = cluster(pooled([*found, dark]), PooledKmeans(), seed=0)
    without = cluster(pooled(found), PooledKmeans(), seed=0)
    whole, _ = occurrences(label, np.ones_like(mask), C)
    np.testing.assert_array_equal(counts[:, 0] - without[:, 0], whole)


def test_too_few_images_are_told():
    with pytest.raises(DataError, match="Expected 5 images with a salient part or more, found 4"):
        cluster(pooled(scenes(4, 0)), PooledKmeans(), seed=0)


def test_published_settings():
    config = PooledKmeans()
    assert (config.components, config.batch, config.seed, config.seeds) == (32, 1000, 1234, 5)
