"""Students of masks as a method: what noise leaves behind, what is told, what cannot be."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from planted import broken, label_maps
from reference.pupils import spoilt
from reference.resnet import weights_of

from zerolabel.backbones import layouts, load
from zerolabel.backbones.weights import cached, load_file
from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.run.settings import build
from zerolabel.methods.configs import configure
from zerolabel.methods.deeplab import PRESETS
from zerolabel.networks.deeplabv3 import DeepLabV3
from zerolabel.networks.light import Light
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.store import Store

K = 3
NAMES = ("sky", "road", "tree")
SMALL = {"size": (32, 40), "batch": 2, "iterations": 2}
NANO = {"arch": "vit-nano", "start": "random"}
DEEP = {"network": "deeplabv3", "arch": "small", "start": "random"}
KINDS = {"light": NANO, "deeplabv3": DEEP}


@pytest.fixture(scope="module")
def samples():
    """An image that cannot be read, one without a mask, and five with masks."""
    found = [replace(s, classes=NAMES) for s in world(K, images=6, size=(48, 60))]
    return [broken("a.png"), replace(found[0], load_label=None), *spoilt(found[1:], K=K)]


def fit(samples, *, store=None, preset="protocol", **changes):
    method = build("deeplab", load("none"), preset=preset, settings=SMALL | NANO | changes)
    method.fit(samples, store=store or Store())
    return method


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- settings ------------------------------------------------------------------------------------


def test_presets_are_what_the_paper_and_the_defaults_say():
    deep = PRESETS["deeplabv3"]
    assert (deep.network, deep.arch, deep.output_stride) == ("deeplabv3", "resnet-50", 8)
    assert (deep.optimiser, deep.lr, deep.decay, deep.warmup) == ("sgd", 0.01, 1e-4, 0)
    assert (deep.batch, deep.size, deep.ratio) == (8, (224, 224), (0.5, 2.0))
    assert (deep.flip, deep.distort, deep.start) == (True, False, "random")
    assert (deep.encoder, deep.balance) == ("tuned", 0)
    assert PRESETS["deeplabv3-16"] == replace(deep, output_stride=16)
    assert PRESETS["deeplabv3-101"] == replace(deep, arch="resnet-101")
    light = PRESETS["default"]
    assert (light.network, light.arch, light.start) == ("light", "vit-mini", "embedded")
    assert (light.held, light.optimiser) == (0.1, "adamw")
    assert PRESETS["protocol"] == replace(light, refine="bilinear")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "x"}, "Unknown network"),
        ({"optimiser": "x"}, "Unknown optimiser"),
        ({"amp": "maybe"}, "choice of amp"),
        ({"encoder": "icy"}, "choice of encoder"),
        ({"encoder": "frozen", "start": "random"}, "knows nothing"),
        ({"balance": 1.5}, "balance is from 0 to 1"),
        ({"held": 1.0}, "held is a share"),
        ({"patience": 0}, "patience must be 1 or more"),
        ({"ratio": (2.0, 1.0)}, "ratios above 0"),
        ({"iterations": 0}, "iterations must be 1 or more"),
        ({"start": "nowhere.pth"}, "which is no file"),
        ({**DEEP, "batch": 1}, "batch of 2 or more"),
    ],
)
def test_settings_that_cannot_be(changes, words, samples):
    with pytest.raises(UsageError, match=words):
        fit(samples, **changes)


# --- what a student is for -----------------------------------------------------------------------


def right(maps, truths):
    return np.mean([(maps[s.id] == s.load_label()).mean() for s in truths])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("light", {"lr": 3e-3, "iterations": 40}), ("deeplabv3", {"lr": 1e-2, "iterations": 60})],
)
def test_a_student_is_better_than_the_masks_it_learned(kind, changes):
    """A third of all squares is wrong at random, a tenth is missing; colours and grain are not."""
    truths = world(K, images=20, size=(48, 64))
    masks, new = spoilt(truths[:14], K=K), truths[14:]
    given = np.mean(
        [(s.load_label() == t.load_label()).mean() for s, t in zip(masks, truths, strict=False)]
    )
    assert 0.5 < given < 0.65
    method = fit(masks, size=(48, 64), batch=4, **KINDS[kind] | changes)
    seen, unseen = (label_maps(method, part, Store()) for part in (masks, new))
    assert min(m.max() for m in seen.values()) < K  # no pixel is left open
    assert right(seen, truths[:14]) > given + 0.2
    assert right(unseen, new) > given + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_fit_evidence_and_what_it_keeps(kind, samples, tmp_path):
    method = fit(samples, **KINDS[kind])
    assert method.k == K
    assert method.names() == dict(enumerate(NAMES))
    assert list(method.losses) == [1, 2]
    found, failures = method.evidence(samples, store=Store())
    assert failures == {"a.png": "cannot be read: torn"}
    assert [sample for sample, _ in found] == samples[1:]
    stride = method.student().stride
    for _, e in found:
        assert e.scores.shape == (K, 32 // stride, 40 // stride)
        torch.testing.assert_close(e.scores.sum(0), torch.ones_like(e.scores[0]))
        assert e.covered is e.labels is None
        won = set(e.scores.argmax(0).flatten().tolist())
        assert won == {k for k in range(K) if e.typical[k] > -1}
    again = fit(samples, store=Store(tmp_path), **KINDS[kind])
    same(again.arrays, method.arrays)
    other = type(method)(method.config, load("none"))
    other.arrays = {name: value.clone() for name, value in method.arrays.items()}
    assert isinstance(other.student(), Light if kind == "light" else DeepLabV3)
    first, second = (label_maps(m, samples, Store()) for m in (method, other))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    alone = label_maps(method, samples[2:3], Store())
    assert np.array_equal(alone[samples[2].id], first[samples[2].id])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_predicts_photos_of_any_size(preset, samples):
    arch = "vit-nano" if PRESETS[preset].network == "light" else "small"
    method = fit(samples, preset=preset, arch=arch, lr=1e-3)
    photo = world(2, images=1, size=(31, 200), seed=7)[0]
    dot = from_arrays("dot.png", np.full((1, 1, 3), 9, np.uint8))
    found = label_maps(method, [photo, broken(), dot], Store())
    assert {name: m.shape for name, m in found.items()} == {photo.id: (31, 200), dot.id: (1, 1)}


def test_sizes_need_not_be_whole_patches(samples):
    method = fit(samples, size=(27, 45))
    [(_, e)], _ = method.evidence(samples[2:3], store=Store())
    assert e.scores.shape == (K, 24 // 4, 40 // 4)


def test_fitting_again_gives_the_same(samples):
    method = fit(samples)
    first, notes = dict(method.arrays), list(method.notes)
    method.fit(world(2, images=2), store=Store())
    assert method.k == 2
    method.fit(samples, store=Store())
    same(first, method.arrays)
    assert method.notes == notes


def test_explain_shows_the_classes(samples):
    method = fit(samples)
    anatomy = method.look_into(samples[1], store=Store())
    assert anatomy.tokens.shape == (8, 10, K)
    assert anatomy.parts.shape == (8, 10)
    assert set(anatomy.maps) == set(NAMES)
    assert all(value.shape == (8, 10) for value in anatomy.maps.values())


# --- what is told --------------------------------------------------------------------------------


def told(method, word):
    return [note for note in method.notes if note.startswith("student: ") and word in note]


def test_notes_say_what_it_began_from_and_how_it_ended(samples, tmp_path):
    method = fit(samples)
    assert told(method, "began from random weights (vit-nano")
    assert told(method, "2 steps, none of the images held out")  # six images are too few
    torch.save(weights_of(ResNetConfig("basic", (1, 1, 1, 1), width=8, classes=9)), tmp_path / "b")
    method = fit(samples, **DEEP | {"start": str(tmp_path / "b")})
    assert told(method, "began from the residual network in b (")
    assert told(method, "classifier of 9 classes")
    method = fit(samples, held=0.34, iterations=3, patience=1)
    assert told(method, "the loss on masks held out was lowest")


@pytest.mark.slow
def test_the_default_begins_from_the_embedded_backbone(samples):
    method = fit(samples, arch="vit-mini", start="embedded")
    (said,) = told(method, "began from the embedded backbone, which saw no label")
    assert said.endswith("only its decoder learned")
    known = layouts.convert(load_file(cached("embedded")))
    assert all(torch.equal(method.arrays[f"encoder.{name}"], known[name]) for name in known)
    method = fit(samples, arch="vit-mini", start="embedded", encoder="tuned")
    assert not told(method, "only its decoder")
    assert not torch.equal(method.arrays["encoder.cls_token"], known["cls_token"])


# --- masks ---------------------------------------------------------------------------------------


def test_empty_masks_contribute_nothing(samples):
    void = replace(samples[2], id="z.png", load_label=lambda: np.full((48, 60), 255, np.uint8))
    with_it, without = fit([*samples, void]), fit(samples)
    same(with_it.arrays, without.arrays)
    assert any("z.png" in note for note in with_it.notes)
    with pytest.raises(DataError, match="No pixel"):
        fit([void])


def test_k_is_the_number_of_classes(samples):
    plain = [replace(s, classes=()) for s in samples]
    assert (fit(plain).k, fit(plain).names()) == (K, {})
    assert fit(plain, k=7).k == 7  # classes never seen are allowed
    more = fit([replace(s, classes=(*NAMES, "boat")) for s in samples])
    assert more.k == 4
    assert any("boat" in note for note in more.notes)
    with pytest.raises(UsageError, match="found 2, e.g. in"):
        fit(samples, k=2)
    with pytest.raises(UsageError, match="Labels say .*k = 2-9 was asked for"):
        fit(samples, k="2-9")


def test_without_masks_there_is_nothing_to_learn():
    with pytest.raises(UsageError, match="zerolabel refine"):
        fit([from_arrays("a.png", np.zeros((9, 9, 3), np.uint8))])


def test_only_unreadable_images_are_an_error(samples):
    torn = [replace(broken(), load_label=samples[2].load_label)]
    with pytest.raises(DataError, match="None of the images could be read"):
        fit(torn)


def test_a_configuration_can_be_written_down():
    config = configure(PRESETS, "default", {"ratio": "0.75,1.5", "size": "64x80", "held": "0"})
    assert (config.ratio, config.size, config.held) == ((0.75, 1.5), (64, 80), 0.0)
    assert replace(config, **asdict(config)) == config
