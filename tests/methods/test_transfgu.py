"""TransFGU's settings: the published numbers, what they become, and what cannot be."""

from dataclasses import fields, replace

import pytest
import torch
from coloured import Coloured, coloured_world
from planted import broken, fitted, small_bank, tiny_vit

from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.methods import find
from zerolabel.methods.configs import configure
from zerolabel.methods.transfgu import Transfgu
from zerolabel.methods.transfgu_config import PRESETS
from zerolabel.store import Store
from zerolabel.training.bootstrap import Bootstrapping

# all that these tests depend on, whatever the default preset says
SMALL = {"k": 4, "stuff": 0, "background": "none", "apart": False, "prior": True, "zoom": 2.0}
SMALL |= {"betas": (0.5, 0.4, 0.3, 0.2), "windows": "paper", "objects": 0.5, "stuff_share": 0.8}
SMALL |= {"size": (64, 64), "crop_size": 32, "restarts": 2, "train": "initial", "amp": "off"}


def make(backbone=None, *, preset="default", **changes):
    """With the published numbers, or those of the tests."""
    if preset == "default":
        changes = SMALL | changes
    return Transfgu(configure(PRESETS, preset, changes), backbone or tiny_vit())


def fit(samples, *, backbone=None, **changes):
    return fitted("transfgu", samples, backbone=backbone or Coloured(), **SMALL | changes)


# --- the published settings ----------------------------------------------------------------------

# objects, stuff, background, size, betas, prior, lr, batch, epochs, repeat, start, intervals
WIDE, NARROW = (0.6, 0.5, 0.4, 0.3), (0.5, 0.4, 0.3, 0.2)
PUBLISHED = {
    "coco27": (12, 15, 0, (320, 320), NARROW, True, 1e-4, 256, 200, 1, 2, (2,)),
    "coco27-curated": (12, 15, 0, (320, 320), NARROW, True, 2.2e-4, 256, 200, 1, 1, (1,)),
    "coco171": (80, 91, 0, (320, 320), NARROW, True, 1e-4, 256, 200, 1, 3, (3, 3, 3, 2)),
    "coco80": (80, 0, 1, (320, 320), NARROW, True, 1e-4, 256, 200, 1, 3, (3, 3, 3, 2)),
    "cityscapes": (27, 0, 0, (320, 640), NARROW, False, 5e-5, 256, 50, 20, 1, (1,)),
    "voc": (
        *(20, 0, 1, (320, 320), WIDE, True, 1e-4, 512, 100, 20, 5),
        (5, 5, 5, 5, 4, 4, 4, 4, 4, 3),
    ),
    "lip5": (5, 0, 1, (640, 320), NARROW, False, 1e-4, 512, 100, 1, 2, (2,)),
    "lip16": (16, 0, 1, (640, 320), NARROW, False, 2e-5, 512, 100, 1, 2, (2,)),
    "lip19": (19, 0, 1, (640, 320), NARROW, False, 2e-5, 256, 100, 1, 3, (3, 3, 3, 2)),
}


def test_there_are_presets_for_every_published_data_set():
    assert PRESETS.keys() == {"default", "protocol", *PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_presets_hold_the_published_numbers(name):
    c = PRESETS[name]
    quiet = c.background == "quiet"
    assert PUBLISHED[name] == (
        *(c.k - c.stuff - quiet, c.stuff, int(quiet), c.size, c.betas, c.prior),
        *(c.lr, c.batch, c.epochs, c.repeat, c.start, c.intervals),
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_presets_share(name):
    c = PRESETS[name]
    # crops from images twice as large, by the code's rule, at 320 pixels
    assert (c.zoom, c.windows, c.crop_size) == (2.0, "code", 320)
    assert (c.prior_scale, c.norm) == (1.0, "crop")
    assert (c.objects, c.stuff_share) == (0.5, 0.8)  # more than half, more than four fifths
    # 1 - cos, four fifths of the mass, veto, attention over its maximum
    assert (c.loss, c.mass, c.veto, c.attention) == ("cosine", 0.8, True, "relative")
    people_or_streets = name.startswith(("lip", "cityscapes"))
    assert c.grad_scale == (1 / 2 if people_or_streets else 1 / 8)  # batches of 2 and of 8
    assert c.categorise == ("minibatch" if people_or_streets else "kmeans")
    assert (c.restarts, c.components) == (1, 0)
    # .3 for being undecided, 1 for looking alike, half of the targets from the teacher
    assert (c.uncertainty, c.diversity, c.teacher, c.peer) == (0.3, 1.0, 0.5, True)
    assert (c.decay, c.distort, c.train, c.apart) == (5e-4, True, "bootstrapped", False)
    assert c.refine == "bilinear"


def test_the_protocol_is_the_default_without_help_from_the_photo():
    assert replace(PRESETS["default"], refine="bilinear") == PRESETS["protocol"]
    assert PRESETS["default"].refine == "guided"


@pytest.mark.parametrize("name", PRESETS)
def test_settings_reach_the_training(name):
    made = make(preset=name, amp="off", train="bootstrapped")
    c, told = made.config, made._training
    for field in fields(Bootstrapping):
        expected = {"background": c.background == "quiet", "amp": False}.get(field.name)
        if expected is None:
            expected = getattr(c, field.name)
        assert getattr(told, field.name) == expected, field.name
    trained = make(preset=name, amp="off", train="trained")._training
    assert not any(trained.renews(epoch) for epoch in range(trained.epochs))
    assert replace(trained, start=told.start) == told


def test_the_backbone_and_name():
    assert find("transfgu") is Transfgu
    assert Transfgu.PRESETS is PRESETS
    assert make().names() == {}
    assert make(k=5, background="quiet").names() == {0: "background"}


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"background": "loud"}, "Unknown choice of background 'loud'"),
        ({"train": "bootstraped"}, "Did you mean 'bootstrapped'"),
        ({"amp": "maybe"}, "Unknown choice of amp"),
        ({"attention": "absolute"}, "Unknown choice of attention 'absolute'"),
        ({"loss": "l1"}, "Unknown loss 'l1'"),
        ({"mass": -0.1}, "mass to keep is a share"),
        ({"grad_scale": 0.0}, "scaled by a number above 0"),
        ({"windows": "both"}, "Unknown rule for windows"),
        ({"betas": (0.0,)}, "Expected shares in"),
        ({"objects": 0.1, "stuff_share": 0.2}, "sum of 1 or more"),
        ({"crop_batch": 0}, "must be positive"),
        ({"epochs": 0}, "whole numbers above 0"),
        ({"teacher": 2.0}, "a share in 0..1"),
        ({"k": 4, "stuff": 4}, "at least one must be left for objects"),
        ({"k": 4, "stuff": 3, "background": "quiet"}, "at least one must be left for objects"),
        ({"k": 1, "background": "quiet"}, "at least one must be left for objects"),
        ({"stuff": -1}, "at least one must be left for objects"),
        ({"k": 4, "stuff": 2, "prior": False}, "Stuff is told by the prior"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(UsageError, match=words):
        make(**changes)


def test_backbones_without_cls():
    with pytest.raises(UsageError, match="attention, cls, slopes is needed. Use --backbone .*dino"):
        make(small_bank())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 500}, r"500 categories of objects were asked for, but only \d+ crops show objects"),
        ({"k": 500, "stuff": 499}, r"499 categories of background .* crops show background"),
        ({"k": 500, "background": "quiet"}, "499 categories of objects"),
    ],
)
def test_more_categories_than_crops(changes, words):
    with pytest.raises(UsageError, match=words + ".*smaller --k, or --set prior=false"):
        fit(coloured_world(2), **changes)


def test_the_advice_to_leave_the_prior_is_given_once():
    with pytest.raises(UsageError, match="a smaller --k.$"):
        fit(coloured_world(2), k=5000, prior=False)


@pytest.mark.parametrize("k", [4, "auto"])
def test_attention_that_prefers_nothing_finds_no_objects(k):
    with pytest.raises(UsageError, match="only 0 crops show objects.*prior=false"):
        fit(coloured_world(3), backbone=Coloured(salience=0.0), k=k)
    made, _ = fit(coloured_world(3), backbone=Coloured(salience=0.0), k=k, prior=False)
    assert made.k == (4 if k == 4 else max(made.curve, key=made.curve.get))


def test_images_smaller_than_a_window():
    made, store = fit(coloured_world(2), size=(8, 8), zoom=1.0, k=1, betas=(0.2,), prior=False)
    assert len(made.evidence(coloured_world(2), store=store)[0]) == 2
    with pytest.raises(UsageError, match="no window of 0.2 by the rule 'code'"):
        fit(coloured_world(2), size=(16, 16), windows="code", betas=(0.2,))


def test_images_smaller_than_two_patches_are_learned_too():
    samples = coloured_world(2)
    options = {"train": "trained", "epochs": 1, "k": 2, "size": (8, 16), "prior": False}
    made, store = fit(samples, **options)
    assert all(value.isfinite().all() for value in made.arrays.values())
    assert all(e.scores.shape == (2, 1, 2) for _, e in made.evidence(samples, store=store)[0])


def test_only_unreadable_images():
    with pytest.raises(DataError, match="None of the images could be read"):
        fit([broken()])
    made, store = fit(coloured_world(2))
    with pytest.raises(ImageError, match="cannot be read: torn"):
        made.look_into(broken(), store=store)


# --- choosing k, fitting again -------------------------------------------------------------------


def test_the_number_of_objects_can_be_chosen_beside_stuff_and_background():
    made, _ = fit(coloured_world(8), k="auto", stuff=2, stuff_share=0.99)
    assert made.k == max(made.curve, key=made.curve.get) == 4
    assert min(made.curve) == 4  # two kinds of objects at least
    made, _ = fit(coloured_world(8), k="5-7", stuff=2, stuff_share=0.99)
    assert made.k == max(made.curve, key=made.curve.get)
    assert set(made.curve) == {5, 6, 7}
    made, _ = fit(coloured_world(8), k="auto", background="quiet")
    assert made.k == max(made.curve, key=made.curve.get) == 3


def test_fitting_again_forgets_what_was():
    samples = coloured_world(8)
    options = {"train": "trained", "epochs": 2, "batch": 4, "amp": "off"}
    made, _ = fit(samples, k="auto", **options)
    first = dict(made.curve)
    assert first
    assert made.losses
    made.fit(samples[:3], store=Store())
    assert made.curve != first
    made.config = replace(made.config, k=2, train="initial")
    made.fit(samples, store=Store())
    assert (made.curve, made.losses, made.k) == ({}, {}, 2)
    assert made.arrays.keys() == {"centroids"}


def test_a_run_is_resumed_from_disk(tmp_path):
    samples = world(3, images=4, size=(60, 84))
    options = {"train": "bootstrapped", "epochs": 3, "start": 1, "intervals": (1,), "batch": 2}
    options |= {"backbone": tiny_vit(), "size": (48, 64), "k": 3, "amp": "off"}
    first, store = fit(samples, **options)
    kept, _ = fit(samples, store=Store(tmp_path), **options)
    again = Store(tmp_path)
    blind = tiny_vit()
    blind.encode = None  # nothing is computed again
    resumed, _ = fit(samples, **options | {"backbone": blind, "store": again})
    assert again.computed == []
    for made in (kept, resumed):
        assert made.losses == first.losses
        assert all(torch.equal(value, made.arrays[name]) for name, value in first.arrays.items())


def test_what_decides_responses_decides_the_training(tmp_path):
    samples = coloured_world(4)
    options = {"train": "trained", "epochs": 1, "batch": 4, "amp": "off", "stuff": 2}
    options |= {"stuff_share": 0.99, "store": Store(tmp_path)}
    fit(samples, **options)
    before = len([*tmp_path.rglob("decoder/*")])
    for changes in ({"apart": True}, {"mass": 0.5}, {"veto": False}, {"seed": 1}, {"lr": 1e-3}):
        fit(samples, **options | changes)
        now = len([*tmp_path.rglob("decoder/*")])
        assert now == before + 1, changes
        before = now


@pytest.mark.parametrize(("images", "most"), [(1, 2), (5, 2), (8, 4)])
def test_auto_finds_at_most_half_as_many_categories_as_images(images, most):
    """Crops of one image overlap: left alone, the silhouette makes a category of each photo."""
    made, _ = fit(coloured_world(images), k="auto", train="initial", prior=False)
    assert 2 <= made.k <= most
    assert all(k <= most for k in made.curve)
