"""What holds for every method with every choice of every verb; a new name is tested unasked.

Methods that are told words have neither k nor these verbs: test_worded_contract.py has theirs.
"""

from dataclasses import fields

import numpy as np
import pytest
import torch
from planted import broken, fitted, label_maps, small_bank, tiny_vit

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.methods import METHODS as ALL
from zerolabel.methods import SUPERVISED, WORDED, find
from zerolabel.methods.configs import configure
from zerolabel.stages.categorise import CATEGORISE
from zerolabel.stages.describe import DESCRIBE
from zerolabel.stages.discover import DISCOVER, needs
from zerolabel.stages.refine import REFINE
from zerolabel.store import Store

METHODS = [name for name in ALL if name not in SUPERVISED | WORDED]  # no labels, no words
K = 3
BACKBONES = {"filterbank": small_bank, "vit": tiny_vit}
VERBS = {"discover": DISCOVER, "describe": DESCRIBE, "categorise": CATEGORISE}
SMALL = {"k": K, "size": (48, 64), "crop_resize": 40, "crop_size": 32, "restarts": 2}
SMALL |= {
    "base": 4,
    "iterations": 2,
    "batch": 4,
    "epochs": 2,
    "repeat": 1,
    "start": 1,
    "intervals": (1,),
}
PIXELS = {"wnet"}  # methods whose scores are of pixels and not of patches
NEEDS = {"transfgu": {"attention", "cls", "slopes"}}  # whatever is chosen


def choosers():
    """Methods that can choose the number of categories from the images."""
    kinds = {name: find(name).PRESETS["default"] for name in METHODS}
    return [
        name
        for name, config in kinds.items()
        if "str" in next(field.type for field in fields(config) if field.name == "k")
    ]


def known(method):
    return {field.name for field in fields(find(method).PRESETS["default"])}


def lacks(method, backbone, chosen):
    """What a choice needs that neither the backbone gives nor the method learns."""
    config = configure(find(method).PRESETS, "default", chosen)
    if not hasattr(config, "discover"):
        return NEEDS.get(method, set()) - backbone.gives
    wanted = needs(config) | ({"concepts"} if config.describe == "concept" else set())
    return wanted - backbone.gives - find(method).learns


def suited(method):
    """The smallest backbone that gives what a method needs."""
    return tiny_vit() if lacks(method, small_bank(), {}) else small_bank()


def settings(method, preset="default", **chosen):
    stuff = min(1, getattr(find(method).PRESETS[preset], "stuff", 0))
    options = {**SMALL, "stuff": stuff, **chosen}
    return {name: value for name, value in options.items() if name in known(method)}


PAIRS = [
    (method, name)
    for method in METHODS
    for name, backbone in BACKBONES.items()
    if not lacks(method, backbone(), {})
]


def choices():
    """Every method with every choice that it knows, one at a time."""
    return [
        pytest.param(method, {verb: name}, id=f"{method}-{verb}-{name}")
        for method in METHODS
        for verb in sorted(known(method) & VERBS.keys())
        for name in VERBS[verb]
    ]


@pytest.fixture(scope="module")
def samples():
    return [broken("a.png"), *world(K, images=5, size=(60, 84))]


def check_evidence(samples, evidence, *, grid):
    for sample, e in evidence:
        h, w = grid
        assert e.scores.shape == (K, h, w)
        assert e.scores.dtype == torch.float32
        assert e.scores.isfinite().all()
        assert e.typical.shape == (K,)
        assert e.typical.min() >= -1 - 1e-5
        assert e.typical.max() <= 1 + 1e-5
        found = set(e.scores.argmax(0).flatten().tolist())
        if e.covered is None:
            assert {k for k in range(K) if e.typical[k] > -1} <= found
        else:
            assert e.covered.shape == (h, w)
            assert e.covered.dtype == torch.bool
        assert sample in samples


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("method", "chosen"), choices())
def test_fit_evidence_and_refine(method, chosen, backbone, samples, tmp_path):
    options = settings(method, **chosen)
    if lacks(method, BACKBONES[backbone](), chosen):
        words = "gives tokens, but attention.* is needed|learns no concepts"
        with pytest.raises(UsageError, match=words):
            fitted(method, samples, backbone=BACKBONES[backbone](), **options)
        return
    made, store = fitted(method, samples, backbone=BACKBONES[backbone](), **options)
    assert made.k == K
    assert all(value.isfinite().all() for value in made.arrays.values())
    assert made.curve == {}
    evidence, failures = made.evidence(samples, store=store)
    assert failures == {"a.png": "cannot be read: torn"}
    assert [sample for sample, _ in evidence] == samples[1:]
    check_evidence(samples, evidence, grid=(48, 64) if method in PIXELS else (6, 8))
    maps = {name: label_maps(made, samples, store, name=name) for name in REFINE}
    for label_map in (m for named in maps.values() for m in named.values()):
        assert label_map.shape == (60, 84)
        assert label_map.dtype == np.uint8
        assert label_map.max() < K  # the default preset gives every pixel a category

    again, store = fitted(
        method, samples, backbone=BACKBONES[backbone](), store=Store(tmp_path), **options
    )
    assert made.arrays.keys() == again.arrays.keys()
    assert all(torch.equal(made.arrays[name], again.arrays[name]) for name in made.arrays)
    for name, first in maps.items():
        second = label_maps(again, samples, store, name=name)
        assert all(np.array_equal(first[sample], second[sample]) for sample in first)


@pytest.mark.parametrize(
    ("method", "preset", "backbone"),
    [
        (method, preset, name)
        for method in METHODS
        for preset in find(method).PRESETS
        for name in BACKBONES
        if (method, name) in PAIRS
    ],
)
def test_every_preset_runs_and_predicts_new_photos(method, preset, backbone, samples):
    made, store = fitted(
        method, samples, backbone=BACKBONES[backbone](), preset=preset, **settings(method, preset)
    )
    photo = world(2, images=1, size=(31, 200), seed=7)[0]
    dot = from_arrays("dot.png", np.full((1, 1, 3), 9, np.uint8))
    found = label_maps(made, [photo, broken(), dot], store)
    assert found.keys() == {photo.id, dot.id}
    assert found[photo.id].shape == (31, 200)
    assert found[dot.id].shape == (1, 1)
    assert set(np.unique(found[photo.id])) <= {*range(K), 255}
    assert made.evidence([broken()], store=store) == ([], {"broken.png": "cannot be read: torn"})


@pytest.mark.parametrize("method", METHODS)
def test_what_was_fitted_is_enough_to_predict(method, samples):
    made, store = fitted(method, samples, backbone=suited(method), **settings(method))
    other = type(made)(made.config, suited(method).restore(made.backbone.state()))
    other.arrays = {name: value.clone() for name, value in made.arrays.items()}
    first, second = (label_maps(m, samples, Store()) for m in (made, other))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_does_not_depend_on_its_batch(method, samples):
    made, store = fitted(method, samples, backbone=suited(method), **settings(method))
    together = label_maps(made, samples, store)
    for sample in samples[1:]:
        alone = label_maps(made, [sample], store)
        assert (alone[sample.id] == together[sample.id]).mean() > 0.99


@pytest.mark.parametrize(("method", "backbone"), PAIRS)
def test_fitting_again_gives_the_same(method, backbone, samples):
    made, store = fitted(method, samples, backbone=BACKBONES[backbone](), **settings(method))
    first = {name: value.clone() for name, value in made.arrays.items()}
    made.fit(world(2, images=2), store=store)
    made.fit(samples, store=store)
    assert all(torch.equal(first[name], made.arrays[name]) for name in first)


@pytest.mark.parametrize("method", choosers())
def test_k_can_be_chosen(method, samples):
    options = settings(method, k="auto")
    made, store = fitted(method, samples, backbone=suited(method), **options)
    assert made.k == max(made.curve, key=made.curve.get)
    assert max(m.max() for m in label_maps(made, samples, store).values()) < made.k


@pytest.mark.parametrize(("method", "backbone"), PAIRS)
def test_only_unreadable_images_are_an_error(method, backbone):
    with pytest.raises(DataError, match="o.* image.* could be read"):
        fitted(method, [broken()], backbone=BACKBONES[backbone](), **settings(method))


@pytest.mark.parametrize("method", choosers())
def test_too_many_categories_are_an_error(method):
    sample = from_arrays("dot.png", np.full((9, 9, 3), 9, np.uint8))
    with pytest.raises(UsageError, match="200 categories .*were asked for, but only"):
        fitted(method, [sample], backbone=suited(method), **settings(method, k=200))


@pytest.mark.parametrize("method", METHODS)
def test_unknown_choices_are_errors(method, samples):
    for verb in sorted(known(method) & VERBS.keys()):
        with pytest.raises(UsageError, match=f"Unknown {verb} stage 'nothing'"):
            fitted(method, samples, backbone=tiny_vit(), **settings(method, **{verb: "nothing"}))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grey", [0, 128])
def test_flat_photos(method, grey):
    flat = [from_arrays(f"{i}.png", np.full((20, 30, 3), grey, np.uint8)) for i in range(2)]
    for backbone in (BACKBONES[name] for own, name in PAIRS if own == method):
        made, store = fitted(method, flat, backbone=backbone(), **settings(method, k=1))
        assert all((m == 0).all() for m in label_maps(made, flat, store).values())
