"""The regions of a batch as one stage: likeness of patches to them, and categories painted back."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import broken
from torch.nn.functional import normalize

from zerolabel.data.synthetic import world
from zerolabel.stages import segments as stage
from zerolabel.stages.discover import DISCOVER, Discover, Encoded, discover, likeness, similarities
from zerolabel.stages.segments import Segment, Segments, paint, patch_sums, segment
from zerolabel.store import Store
from zerolabel.types import RegionMap

WHOLE = {"discover": "concepts", "split": False, "minimum": 1}  # as ACSeg makes regions


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conceptual(seed=0, *, grid=(6, 7), concepts=5, dim=6):
    """An image whose concepts say something of its patches."""
    features = draw(*grid, dim, seed=seed)
    chosen = torch.randperm(grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    near = features.flatten(0, 1)[chosen[:concepts]] + 0.5 * draw(concepts, dim, seed=seed + 1)
    return Encoded(features, concepts=near)


def region_map(ids, valid=None):
    ids = np.asarray(ids, np.int32)
    count = int(ids.max()) + 1
    valid = np.ones(count, bool) if valid is None else np.array(valid)
    return RegionMap(ids, valid, np.arange(count, dtype=np.int32))


# --- likeness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_patch_is_most_like_its_own_region(seed, merge):
    image = conceptual(seed)
    regions = discover(image, Discover(**WHOLE, merge=merge))
    found = likeness(image, regions)
    assert found.shape == (regions.count, 6, 7)
    np.testing.assert_array_equal(found.argmax(0), regions.ids)
    assert found.abs().max() <= 1 + 1e-6


def test_one_region_per_concept_is_as_alike_as_its_concept():
    image = conceptual()
    regions = discover(image, Discover(**WHOLE, merge=1.0))
    torch.testing.assert_close(likeness(image, regions), similarities(image)[regions.groups])


@pytest.mark.parametrize("seed", range(4))
def test_merged_concepts_are_as_alike_as_the_best_of_them(seed):
    image = conceptual(seed)
    cosines = similarities(image)
    nearest = cosines.argmax(0)
    merged = torch.where(nearest == 3, 1, nearest)  # of concepts 1 and 3
    ids = np.unique(merged, return_inverse=True)[1].reshape(nearest.shape)
    found = likeness(image, region_map(ids))
    for region in range(ids.max() + 1):
        own = nearest[torch.from_numpy(ids == region)].unique()
        torch.testing.assert_close(found[region], cosines[own].amax(0))


def test_pieces_of_a_concept_have_no_likeness_of_their_own():
    image = conceptual()
    assert likeness(image, discover(image, Discover(**WHOLE | {"split": True}))) is None
    nearest = similarities(image).argmax(0).numpy()
    pieces = nearest * 2 + np.arange(7) % 2
    ids = np.unique(pieces, return_inverse=True)[1].reshape(nearest.shape)
    assert likeness(image, region_map(ids)) is None


def test_regions_of_something_else_have_no_likeness():
    image = conceptual()
    assert likeness(Encoded(image.features), region_map(np.zeros((6, 7)))) is None
    quarters = np.add.outer(np.arange(6) // 3, 2 * (np.arange(7) // 4))
    assert likeness(image, region_map(quarters)) is None


@pytest.mark.parametrize("features", [torch.ones(3, 4, 6), torch.zeros(3, 4, 6)])
def test_an_image_of_equal_patches_is_one_region(features):
    image = Encoded(features, concepts=draw(5, 6))
    regions = discover(image, Discover(**WHOLE))
    assert regions.count == 1
    found = likeness(image, regions)
    assert found.shape == (1, 3, 4)
    assert found.isfinite().all()


# --- paint ---------------------------------------------------------------------------------------


def found_in(image, regions, *, vectors=None):
    """Segments as a stage of a run gives them."""
    vectors = normalize(draw(int(regions.valid.sum()), 4), dim=1) if vectors is None else vectors
    [found] = stage._unpack(stage._pack([image], [regions], vectors, None))
    return found


@given(seed=st.integers(0, 999), merge=st.sampled_from([0.5, 1.0]), k=st.integers(1, 7))
@settings(deadline=None, max_examples=60)
def test_the_best_category_of_a_patch_is_that_of_its_region(seed, merge, k):
    image = conceptual(seed)
    regions = discover(image, Discover(**WHOLE, merge=merge))
    labels = torch.randint(0, k, (regions.count,), generator=torch.Generator().manual_seed(seed))
    scores, typical = paint(found_in(image, regions), labels, torch.rand(regions.count), draw(k, 6))
    np.testing.assert_array_equal(scores.argmax(0), labels.numpy()[regions.ids])
    absent = ~torch.isin(torch.arange(k), labels)
    assert (scores[absent] == -1).all()
    assert (typical[absent] == -1).all()
    assert (typical[~absent] >= 0).all()


def test_scores_are_the_likeness_to_the_best_region_of_a_category():
    image = conceptual()
    regions = discover(image, Discover(**WHOLE, merge=1.0))
    assert regions.count == 5
    labels = torch.tensor([2, 0, 2, 0, 0])
    scores, _ = paint(found_in(image, regions), labels, torch.ones(5), draw(4, 6))
    cosines = similarities(image)
    torch.testing.assert_close(scores[2], cosines[[0, 2]].amax(0), atol=6e-4, rtol=0)
    torch.testing.assert_close(scores[0], cosines[[1, 3, 4]].amax(0), atol=6e-4, rtol=0)
    assert (scores[[1, 3]] == -1).all()


def test_cosines_that_half_precision_cannot_tell_apart_do_not_change_the_region():
    features = normalize(torch.tensor([[[1.0, 0.0001], [0.0001, 1]]]), dim=2)
    concepts = torch.tensor([[1.0, 0.9999], [0.9999, 1.0]])
    image = Encoded(features, concepts=concepts)
    regions = discover(image, Discover(**WHOLE, merge=1.0))
    assert regions.ids.tolist() == [[0, 1]]
    both = likeness(image, regions).half()
    assert torch.equal(both[0], both[1])
    scores, _ = paint(found_in(image, regions), torch.tensor([1, 0]), torch.ones(2), draw(2, 2))
    assert scores.argmax(0).tolist() == [[1, 0]]


def test_noise_takes_the_category_that_it_looks_like():
    features = torch.eye(3)[torch.tensor([[0, 0, 1], [0, 2, 1]])]
    regions = region_map([[0, 0, 1], [0, 2, 1]], [True, True, False])
    patches = torch.tensor([[1.0, 0, 0], [0, 1.0, 0.9]])
    found = found_in(Encoded(features), regions)
    scores, typical = paint(found, torch.tensor([0, 1]), torch.tensor([0.5, 0.25]), patches)
    assert scores.argmax(0).tolist() == [[0, 0, 1], [0, 1, 1]]
    assert typical.tolist() == [0.5, 0.25]


def test_hard_regions_are_painted_as_they_are():
    regions = region_map([[0, 0, 1], [2, 2, 1]])
    found = found_in(Encoded(draw(2, 3, 4)), regions)
    labels = torch.tensor([3, 0, 3])
    scores, _ = paint(found, labels, torch.tensor([0.1, 0.2, 0.3]), draw(4, 4))
    assert scores.argmax(0).tolist() == [[3, 3, 0], [3, 3, 0]]
    assert (scores[[1, 2]] == -1).all()
    assert set(scores[[0, 3]].unique().tolist()) == {0.0, 1.0}


def test_patch_sums_are_those_of_a_loop():
    features, regions = draw(4, 5, 3), region_map(np.arange(20).reshape(4, 5) % 4)
    regions.valid[2] = False
    found, labels = found_in(Encoded(features), regions), torch.tensor([1, 0, 1])
    expected = torch.zeros(3, 3)
    for region, label in zip((0, 1, 3), labels, strict=True):
        mean = features[torch.from_numpy(regions.ids == region)].mean(0)
        expected[label] += mean / mean.norm()
    torch.testing.assert_close(patch_sums(found, labels, 3), expected)


# --- packed and unpacked -------------------------------------------------------------------------


def equal(one, other):
    assert (one.soft is None) == (other.soft is None)
    names = {field.name for field in dataclasses.fields(Segments)} - {"soft", "cosines"} | {"maps"}
    for name in names:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), name


@given(kinds=st.lists(st.booleans(), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_images_of_which_some_are_soft_come_back_as_they_went(kinds, seed):
    seen, regions = [], []
    for i, soft in enumerate(kinds):
        image = conceptual(seed + i)
        own = discover(image, Discover(**WHOLE, merge=0.7))
        if not soft:
            own = discover(image, Discover(discover="kmeans", segments=i + 1, split=False))
            image = dataclasses.replace(image, concepts=None)
        seen.append(image)
        regions.append(own)
    counts = [int(r.valid.sum()) for r in regions]
    vectors = draw(sum(counts), 4, seed=seed)

    def score(image, r):
        return torch.arange(r.count, dtype=torch.float32) + float(image.features[0, 0, 0])

    found = list(stage._unpack(stage._pack(seen, regions, vectors, score)))
    assert len(found) == len(kinds)
    for image, r, own, part in zip(seen, regions, found, vectors.split(counts), strict=True):
        np.testing.assert_array_equal(own.ids, r.ids)
        np.testing.assert_array_equal(own.valid, r.valid)
        assert torch.equal(own.vectors, part)
        assert torch.equal(own.scores, score(image, r))
        for region in range(r.count):
            mean = image.features[torch.from_numpy(r.ids == region)].mean(0)
            torch.testing.assert_close(own.pooled[region], mean)
        maps = likeness(image, r)
        if maps is None:
            maps = torch.nn.functional.one_hot(own.ids, r.count).permute(2, 0, 1).float()
        torch.testing.assert_close(own.maps, maps, atol=6e-4, rtol=0)
        assert own.maps.dtype == torch.float32


class Means:
    """A backbone by name; regions are described by pooling."""

    name, digest, gives, stride, dim = "means", "means", frozenset({"tokens"}), 8, 3


def look(batch):
    """Mean colours; the first image of a batch has concepts, the others not."""
    cells = torch.nn.functional.avg_pool2d(batch.images.float() / 255 - 0.4, 8).permute(0, 2, 3, 1)
    return [
        Encoded(x, concepts=normalize(x.flatten(0, 1)[:4], dim=1) if i == 0 else None)
        for i, x in enumerate(cells)
    ]


@pytest.mark.parametrize("root", [False, True])
def test_a_batch_is_found_once_and_read_as_it_was_found(root, tmp_path, monkeypatch):
    monkeypatch.setitem(  # concepts where there are some, else k-means
        DISCOVER,
        "either",
        lambda image, c: DISCOVER["kmeans" if image.concepts is None else "concepts"](image, c),
    )
    options = Segment(**WHOLE | {"discover": "either"}, describe="pool", size=(32, 40), segments=3)
    samples = [broken("a.png"), *world(3, images=3, size=(40, 60))]
    store, looks = Store(tmp_path if root else None), []

    def once(batch):
        looks.append(len(batch.kept))
        return look(batch)

    def go(**changes):
        own = dataclasses.replace(options, **changes)
        return segment(samples, once, backbone=Means(), options=own, facts=("x",), store=store)

    first, failures = go()
    again, also = go()
    assert failures == also == {"a.png": "cannot be read: torn"}
    assert [sample for sample, _ in first] == samples[1:]
    assert looks == [3]
    for (_, one), (_, other) in zip(first, again, strict=True):
        equal(one, other)
    soft = [set(found.maps.unique().tolist()) != {0.0, 1.0} for _, found in first]
    assert soft == [True, False, False]
    go(merge=0.5)
    assert looks == [3, 3]


def test_a_batch_of_which_nothing_can_be_read():
    found = segment(
        [broken()], look, backbone=Means(), options=Segment(describe="pool"), store=Store()
    )
    assert found == ([], {"broken.png": "cannot be read: torn"})
