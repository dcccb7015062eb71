"""What a fit leaves behind: in the store, in a saved model; and images that have little to say."""

import numpy as np
import pytest
import torch
from conceptual import check, small
from planted import broken, label_maps, small_bank, tiny_vit

import zerolabel
from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.jobs.run.model import Model, load
from zerolabel.methods import acseg
from zerolabel.store import Store
from zerolabel.training.concepts import ConceptTrainer


@pytest.fixture(scope="module")
def samples():
    return world(3, images=6, size=(60, 84))


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, value in one.arrays.items():
        assert torch.equal(value, other.arrays[name]), name


def same_maps(one, other):
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


# --- the store -----------------------------------------------------------------------------------

OTHER = [
    {"iterations": 4},
    {"lr": 1e-2},
    {"concepts": 5},
    {"norm_first": True},
    {"attention_heads": 2},
    {"prototypes": "random"},
    {"seed": 1},
    {"features": "values"},
    {"merge": 1.0},
    {"background": "attention"},
    {"background": "attention", "importance": "received"},
    {"background": "attention", "area": "mean"},
    {"background": "attention", "grouping": "dataset"},
    {"background": "border"},
    {"classify": "retrieve"},
    {"describe": "masked-cls"},
    {"describe": "concept"},
    {"size": (40, 64)},
    {"discover": "kmeans"},
]


@pytest.mark.parametrize("changes", OTHER, ids=str)
def test_fits_of_other_settings_do_not_mix_in_one_store(samples, changes):
    """Whichever comes first, and with a fit of other images and another backbone before both."""
    base, _ = small(samples)
    fresh, store = small(samples, **changes)
    expected = label_maps(fresh, samples, store)
    store = Store()
    small(samples[:3], store=store, **changes)
    small(samples, backbone=tiny_vit(seed=1), store=store, **changes)
    for settings, made in (({}, base), (changes, fresh), ({}, base)):
        same(small(samples, store=store, **settings)[0], made)
    same_maps(label_maps(fresh, samples, store), expected)


@pytest.mark.parametrize(
    "changes",
    [{"iterations": 4}, {"lr": 1e-2}, {"concepts": 5}, {"seed": 1}, {"prototypes": "random"}],
    ids=str,
)
def test_regions_of_another_generator_are_not_used(samples, changes):
    store = Store()
    one, _ = small(samples, store=store)
    other, _ = small(samples, store=store, **changes)
    assert one.facts() != other.facts()
    regions = [name for name in store.computed if name.startswith("segments/")]
    assert len(regions) == len(set(regions)) == 2
    again, _ = small(samples, store=store)
    assert again.facts() == one.facts()
    assert [name for name in store.computed if name.startswith("segments/")] == regions


def test_the_shape_of_a_generator_counts_beside_its_weights(samples):
    """As many weights serve any number of shared steps, and of heads."""
    facts = []
    for changes in ({}, {"steps": 3}, {"attention_heads": 4}, {"norm_first": True}):
        made, _ = small(samples, share_steps=True, **changes)
        made.arrays |= {name: torch.zeros_like(value) for name, value in made.arrays.items()}
        facts.append(made.facts())
    assert len(set(map(str, facts))) == 4
    assert len({str(fact[2][1]) for fact in facts}) == 1


def test_settings_that_come_later_find_the_training_done(samples, monkeypatch):
    store = Store()
    made, _ = small(samples, store=store)
    monkeypatch.delattr(ConceptTrainer, "learn")
    for changes in ({"k": 2}, {"merge": 1.0}, {"background": "border"}, {"classify": "retrieve"}):
        other, _ = small(samples, store=store, **changes)
        assert other.losses == made.losses
        assert torch.equal(
            other.arrays["generator.prototypes"], made.arrays["generator.prototypes"]
        )


def test_fitting_again_forgets_what_was_found_before(samples):
    options = {"background": "attention", "grouping": "dataset"}
    made, _ = small(world(2, images=3, size=(60, 84), seed=5), **options)
    before = made.facts()
    made.fit(samples, store=Store())
    fresh, _ = small(samples, **options)
    same(made, fresh)
    assert made.facts() == fresh.facts() != before


def test_batches_of_images_do_not_matter(samples, monkeypatch):
    expected, store = small(samples)
    maps = label_maps(expected, samples, store)
    monkeypatch.setattr(acseg, "BATCH", 2)  # shards of the training
    cut, store = small(samples)
    assert cut.losses[3] == pytest.approx(expected.losses[3], abs=0.02)  # another order of images
    assert label_maps(cut, samples, store).keys() == maps.keys()


# --- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"background": "attention", "grouping": "dataset", "share_steps": True},
        {"background": "border", "describe": "masked-cls", "features": "keys"},
        {"describe": "concept", "norm_first": True, "attention_heads": 4},
        {"discover": "kmeans"},
        {"classify": "retrieve", "background": "attention"},
    ],
    ids=str,
)
def test_a_saved_model_segments_as_the_fitted_one(samples, changes, tmp_path, monkeypatch):
    made, store = small(samples, **changes)
    expected = label_maps(made, samples, store)
    Model(made).save(tmp_path)
    monkeypatch.setattr(zerolabel.backbones, "load", lambda name, **options: tiny_vit())
    loaded = load(tmp_path)
    assert loaded.method.config == made.config
    assert loaded.method.notes == made.notes == []
    assert loaded.method.k == made.k
    same(loaded.method, made)
    same_maps(label_maps(loaded.method, samples, Store()), expected)
    for sample in samples[:2]:
        found = loaded.predict(sample.load()).label_map
        np.testing.assert_array_equal(found, expected[sample.id])
    new = world(2, images=1, size=(31, 200), seed=7)[0].load()
    found = loaded.predict(new).label_map
    assert found.shape == (31, 200)
    assert found.max() < made.k


def test_a_backbone_without_attention_tells_background_by_the_border(
    samples, tmp_path, monkeypatch
):
    monkeypatch.setattr(zerolabel.backbones, "load", lambda name, **options: small_bank())
    options = {"background": "attention", "describe": "crop-cls"}
    made, store = small(samples, backbone=small_bank(), **options)
    assert made.config.background == "border"
    assert [note.split(":")[0] for note in made.notes] == [
        "segments described by masked pooling",
        "background told by the border",
    ]
    border, _ = small(samples, backbone=small_bank(), background="border")
    assert border.notes == []
    same(made, border)
    Model(made).save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.method.notes == made.notes  # said once
    same_maps(label_maps(loaded.method, samples, Store()), label_maps(made, samples, store))


# --- images that have little to say --------------------------------------------------------------


BACKGROUNDS = [
    {"background": "none"},
    {"background": "border", "k": 2},
    {"background": "attention", "k": 2},
    {"background": "attention", "grouping": "dataset", "k": 2},
]


@pytest.mark.parametrize("background", BACKGROUNDS, ids=str)
@pytest.mark.parametrize("prototypes", ["clusters", "random"])
@pytest.mark.parametrize("images", [1, 3])
def test_few_images(samples, images, background, prototypes):
    options = {"k": 1} | background | {"batch": 64, "prototypes": prototypes}
    made, store = small(samples[:images], **options)
    found, _ = check(made, samples[:images], store)
    assert len(found) == images
    found, failures = check(made, [*samples, broken()], Store())
    assert (len(found), list(failures)) == (6, ["broken.png"])


@pytest.mark.parametrize("background", BACKGROUNDS, ids=str)
@pytest.mark.parametrize("describe", ["pool", "masked-cls", "crop-cls", "concept"])
def test_images_of_one_patch(samples, background, describe):
    options = {"k": 1} | background | {"size": (8, 8), "describe": describe}
    made, store = small(samples, **options)
    for _, e in check(made, samples, store)[0]:
        assert e.scores.shape == (made.k, 1, 1)
        assert e.parts.tolist() == [[0]]
        if made.k == 2 and options.get("grouping") != "dataset":
            assert e.scores.argmax(0).tolist() == [[1]]  # the only region is not background
    assert label_maps(made, samples, store)[samples[0].id].shape == (60, 84)


@pytest.mark.parametrize("background", BACKGROUNDS, ids=str)
@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("backbone", [tiny_vit, small_bank])
def test_images_of_one_colour(grey, background, backbone):
    flat = [from_arrays(f"{i}.png", np.full((20, 30, 3), grey, np.uint8)) for i in range(3)]
    made, store = small(flat, backbone=backbone(), **{"k": 1} | background)
    assert len(check(made, flat, store)[0]) == 3


@pytest.mark.parametrize("background", BACKGROUNDS, ids=str)
def test_images_of_one_region(samples, background):
    made, store = small(samples, concepts=1, **{"k": 1} | background)
    for _, e in check(made, samples, store)[0]:
        assert (e.parts == 0).all()
    if background.get("grouping") != "dataset":
        maps = label_maps(made, samples, store).values()
        assert all((m == made.k - 1).all() for m in maps)


def test_more_concepts_than_patches(samples):
    made, store = small(samples, size=(8, 16), concepts=9)
    for _, e in check(made, samples, store)[0]:
        assert e.parts.max() <= 1
