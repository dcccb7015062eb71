"""Concepts of images: what they are grouped by, how they are trained, what else finds regions."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conceptual import check, small
from planted import label_maps, miou, small_bank, tiny_vit

from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.methods.acseg import PRESETS, Acseg
from zerolabel.methods.configs import configure
from zerolabel.networks.concepts import ConceptGenerator
from zerolabel.stages import segments
from zerolabel.training.concepts import ConceptTrainer


@pytest.fixture(scope="module")
def samples():
    return world(3, images=6, size=(60, 84))


def test_the_published_presets_hold_the_published_numbers():
    for name in ("voc", "coco"):
        told = asdict(PRESETS[name])
        assert (told["concepts"], told["steps"], told["iterations"]) == (5, 6, 2500)
        assert (told["split"], told["minimum"], told["merge"]) == (False, 1, 1.0)
    assert (PRESETS["voc"].k, PRESETS["voc"].background) == (21, "attention")
    assert (PRESETS["coco"].k, PRESETS["coco"].background) == (27, "none")
    assert replace(PRESETS["default"], refine="bilinear") == PRESETS["protocol"]


@pytest.mark.parametrize("seed", range(3))
def test_planted_categories_are_found(seed):
    planted = world(4, images=12, seed=seed)
    options = {"k": 4, "seed": seed, "iterations": 20, "concepts": 6, "size": (96, 128)}
    made, store = small(planted, backbone=small_bank(), **options)
    assert miou(planted, label_maps(made, planted, store, name="guided"), 4) > 0.95
    assert list(made.losses) == list(range(1, 21))


@pytest.mark.parametrize("features", ["tokens", "keys", "queries", "values"])
def test_patches_are_grouped_by_the_features_asked_for(samples, features, monkeypatch):
    seen, trained = [], []
    discover, learn = segments.discover, ConceptTrainer.learn
    monkeypatch.setattr(segments, "discover", lambda x, c: (seen.append(x), discover(x, c))[1])
    monkeypatch.setattr(
        ConceptTrainer, "learn", lambda self, x: (trained.append(x), learn(self, x))[1]
    )
    made, store = small(samples, features=features, batch=64)
    check(made, samples, store)
    expected, kept, _ = made._see(samples, store)
    x = getattr(expected, features)
    assert kept == samples
    torch.testing.assert_close(torch.stack([image.features for image in seen]), x)
    generator, _ = made._trained()
    for image in seen:
        own = generator(image.features.flatten(0, 1)[None])[0]
        torch.testing.assert_close(image.concepts, own, atol=1e-4, rtol=1e-4)
    assert len(trained) == 3
    assert trained[0].shape == (6, 48, 64)  # all images, fewer than a batch
    mine = {tuple(image.half().flatten(0, 1)[0].tolist()) for image in x}
    assert {tuple(image[0].tolist()) for image in trained[0]} == mine


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_first": True},
        {"share_steps": True},
        {"attention_heads": 4},
        {"hidden": 8},
        {"concepts": 1},
        {"steps": 1},
        {"self_loops": False},
        {"decay": 0.5},
        {"lr": 1e-2},
        {"batch": 2},
        {"prototypes": "random"},
        {"amp": "on"},
    ],
    ids=str,
)
def test_every_setting_of_the_training_makes_another_generator(samples, changes):
    base, _ = small(samples)
    made, store = small(samples, **changes)
    check(made, samples, store)
    assert made.facts() != base.facts()
    own = {name: value.shape for name, value in made.arrays.items() if "generator" in name}
    shared = [name for name in own if "steps.1." in name]
    assert bool(shared) == (changes not in ({"share_steps": True}, {"steps": 1}))
    assert own["generator.prototypes"] == (changes.get("concepts", 4), 64)
    assert own["generator.steps.0.mlp.0.weight"] == (changes.get("hidden", 256), 64)


def test_merging_makes_fewer_regions(samples):
    counts = {}
    for merge in (1.0, 0.9, 0.01):
        made, store = small(samples, merge=merge, steps=1, concepts=8)
        counts[merge] = [int(e.parts.max()) + 1 for _, e in check(made, samples, store)[0]]
    few, some, many = (np.array(counts[merge]) for merge in (0.01, 0.9, 1.0))
    assert (few <= some).all()
    assert (some <= many).all()
    assert few.sum() < many.sum()


@pytest.mark.parametrize("discover", ["louvain", "kmeans", "agglomerative", "attention"])
def test_other_discoveries_train_nothing(samples, discover, monkeypatch):
    monkeypatch.delattr(ConceptTrainer, "learn")
    monkeypatch.delattr(ConceptGenerator, "forward")
    made, store = small(samples, discover=discover, segments=4)
    check(made, samples, store)
    assert set(made.arrays) == {"centroids", "patches", "counted"}
    assert made.losses == {}


def test_concepts_describe_only_regions_that_come_from_them(samples):
    made, store = small(samples, describe="concept")
    check(made, samples, store)
    with pytest.raises(UsageError, match="Only regions that come from concepts"):
        small(samples, describe="concept", discover="kmeans", segments=4)


@pytest.mark.parametrize(
    "field",
    ["features", "classify", "prototypes", "amp", "background", "importance", "area", "grouping"],
)
def test_wrong_choices_are_explained(field):
    with pytest.raises(UsageError, match=f"Unknown choice of {field} 'purple'.*Known: "):
        Acseg(configure(PRESETS, "default", {field: "purple"}), tiny_vit())


def test_heads_that_do_not_fit_the_backbone_fail_before_any_work():
    with pytest.raises(UsageError, match="expected a multiple of 7, found dim 64"):
        Acseg(configure(PRESETS, "default", {"attention_heads": 7}), tiny_vit())


def test_a_backbone_must_give_the_features():
    with pytest.raises(UsageError, match="gives tokens, but keys is needed"):
        Acseg(configure(PRESETS, "default", {"features": "keys"}), small_bank())
