"""The background among the regions of images, and the classes of labelled images."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conceptual import Watcher, check, scenes, small
from planted import broken, label_maps, miou, small_bank
from reference.two_means import error, least_error

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.types import Sample

K = 3


@pytest.fixture(scope="module")
def samples():
    return world(K, images=6, size=(60, 84))


def slow_background(scores, background):
    """Which of the scores of one or more images are of the background."""
    scores = [float(score) for score in scores]
    if background == "border":
        return [len(scores) > 1 and i == int(np.argmin(scores)) for i in range(len(scores))]
    if len(set(scores)) < 2:
        return [False] * len(scores)
    cuts = sorted(set(scores))[1:]
    best = min(cuts, key=lambda cut: error(scores, [score >= cut for score in scores]))
    if len(scores) < 9:
        assert error(scores, [score >= best for score in scores]) == least_error(scores)
    return [score < best for score in scores]


def check_background(made, samples, store):
    """Patches of background regions, and no others, have category 0."""
    c, found = made.config, made.find(samples, store)[0]
    grouped = [list(found)] if c.grouping == "dataset" else [[pair] for pair in found]
    behind = {}
    for group in grouped if c.background == "attention" else [[pair] for pair in found]:
        flags = iter(slow_background(torch.cat([f.scores for _, f in group]), c.background))
        behind |= {sample.id: [next(flags) for _ in own.scores] for sample, own in group}
    for sample, e in check(made, samples, store)[0]:
        expected = np.array(behind[sample.id])[e.parts.numpy()]
        np.testing.assert_array_equal(e.scores.argmax(0) == 0, expected)
        assert e.typical[0] == (0 if expected.any() else -1)
    return behind


@pytest.mark.parametrize(
    ("importance", "area", "grouping"),
    list(product(("cls", "received"), ("sum", "mean"), ("image", "dataset"))),
)
def test_the_lower_of_two_clusters_of_attention_is_background(samples, importance, area, grouping):
    options = {"importance": importance, "area": area, "grouping": grouping, "merge": 1.0}
    made, store = small(samples, background="attention", **options)
    behind = check_background(made, samples, store)
    assert 0 < sum(map(sum, behind.values())) < sum(map(len, behind.values()))
    assert ("threshold" in made.arrays) == (grouping == "dataset")
    features = {"cls": "attention", "received": "received"}[importance]
    attention = getattr(made._see(samples, store)[0], features)
    maps = attention.mean(1) if importance == "cls" else attention  # (B, h, w)
    for (_, found), own in zip(made.find(samples, store)[0], maps, strict=True):
        for region, score in enumerate(found.scores.tolist()):
            inside = own[found.ids == region]
            assert score == pytest.approx(float(getattr(inside, area)()), rel=1e-4)


def test_the_region_that_covers_most_of_the_border_is_background(samples):
    made, store = small(samples, background="border", merge=1.0)
    behind = check_background(made, samples, store)
    assert all(sum(flags) <= 1 for flags in behind.values())
    for _, found in made.find(samples, store)[0]:
        outer = torch.ones(6, 8, dtype=torch.bool)
        outer[1:-1, 1:-1] = False
        shares = [(found.ids[outer] == r).float().mean() for r in range(len(found.scores))]
        torch.testing.assert_close(-found.scores, torch.stack(shares))


@pytest.mark.parametrize("background", ["attention", "border"])
def test_the_background_is_one_of_the_categories(samples, background):
    made, _ = small(samples, background=background)
    assert made.k == K
    assert len(made.arrays["centroids"]) == K - 1
    names = [category.name for category in Model(made).categories]
    assert names == ["background", "category 1", "category 2"]
    made, store = small(samples, background=background, k="auto")
    assert made.k == max(made.curve, key=made.curve.get) + 1
    check(made, samples, store)
    made, _ = small(samples, background=background, k="4-6")
    assert made.k == max(made.curve, key=made.curve.get) + 1
    assert set(made.curve) <= {3, 4, 5}
    two, store = small(samples, background=background, k=2)
    check(two, samples, store)
    with pytest.raises(UsageError, match="at least two categories: give --k 2"):
        small(samples, background=background, k=1)


def test_without_a_background_no_category_is_special(samples):
    made, _ = small(samples, k=1)
    assert made.k == 1
    assert [category.name for category in Model(made).categories] == ["category 0"]


@pytest.mark.parametrize("background", ["attention", "border"])
@pytest.mark.parametrize("grouping", ["image", "dataset"])
def test_objects_are_told_from_the_ground_and_from_each_other(background, grouping):
    planted = scenes()
    options = {"background": background, "grouping": grouping, "area": "mean", "merge": 0.9}
    made, store = small(planted, backbone=Watcher(), **options)
    maps = label_maps(made, planted, store, name="nearest")
    assert miou(planted, maps, 3) > 0.99
    for sample in planted:
        np.testing.assert_array_equal(maps[sample.id] == 0, sample.load_label() == 0)


@pytest.mark.parametrize("k", [2, "auto"])
def test_a_foreground_that_is_all_noise_is_explained(k):
    options = {"background": "attention", "area": "mean", "minimum": 10, "k": k}
    with pytest.raises(UsageError, match="background or smaller than the minimum, so"):
        small(scenes(), backbone=Watcher(), **options)


# --- classes of labelled images ------------------------------------------------------------------

RETRIEVE = {"classify": "retrieve", "skip_background": False, "concepts": 6, "iterations": 20}


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_new_images_get_the_classes_of_labelled_ones(neighbours, seed):
    planted = world(4, images=18, seed=seed)
    known, new = planted[:12], planted[12:]
    options = RETRIEVE | {"size": (96, 128), "neighbours": neighbours}
    made, store = small(known, backbone=small_bank(), **options)
    assert made.k == 4  # whatever k says
    check(made, new, store)
    maps = label_maps(made, new, store)
    right = [(maps[s.id] == s.load_label()).mean() for s in new]
    assert np.mean(right) > 0.95
    assert [category.name for category in Model(made).categories][0] == "category 0"


def test_a_region_has_class_0_only_where_it_has_no_other_if_so_asked():
    planted, labels = scenes(), {}
    for skip in (True, False):
        options = RETRIEVE | {"skip_background": skip, "concepts": 1}
        made, _ = small(planted, backbone=Watcher(), **options)
        labels[skip] = made.arrays["labels"].tolist()
    assert labels[False] == [0] * 8  # the ground covers most of every image
    assert set(labels[True]) == {1, 2}


def test_retrieved_categories_have_the_names_of_their_classes():
    planted = [replace(s, classes=("ground", "red", "blue", "nowhere")) for s in scenes()]
    planted[0] = replace(planted[0], classes=())
    for background in ("none", "attention"):
        options = RETRIEVE | {"background": background, "area": "mean"}
        made, _ = small(planted, backbone=Watcher(), **options)
        assert made.k == 3
        names = [category.name for category in Model(made).categories]
        assert names == ["ground", "red", "blue"]
    clustered, _ = small(planted, backbone=Watcher(), background="attention")
    names = [category.name for category in Model(clustered).categories]
    assert names == ["background", "category 1", "category 2"]  # clusters are no classes


def test_a_background_is_class_0():
    planted = scenes()
    made, store = small(
        planted, backbone=Watcher(), **RETRIEVE | {"background": "attention", "area": "mean"}
    )
    assert made.names() == {0: "background"}
    maps = label_maps(made, planted, store, name="nearest")
    for sample in planted:
        np.testing.assert_array_equal(maps[sample.id], sample.load_label())
    made.arrays["labels"].fill_(2)  # whatever the bank says
    maps = label_maps(made, planted, store, name="nearest")
    for sample in planted:
        np.testing.assert_array_equal(maps[sample.id] == 0, sample.load_label() == 0)


def test_classes_need_labels(samples):
    bare = [Sample(sample.id, sample.load, sample.digest) for sample in samples]
    with pytest.raises(UsageError, match="these have no labels. Fit on a labelled split"):
        small(bare, classify="retrieve")
    nothing = np.full((60, 84), 255, np.uint8)
    ignored = [from_arrays(s.id, s.load(), nothing) for s in samples]
    with pytest.raises(DataError, match="No region has a class: the labels of all images are e"):
        small(ignored, classify="retrieve")
    some = [*ignored[:-1], samples[-1]]
    made, store = small(some, classify="retrieve")
    check(made, samples, store)
    for discover in ("concepts", "kmeans"):
        with pytest.raises(DataError, match="None of the images could be read"):
            small([broken()], classify="retrieve", discover=discover)
