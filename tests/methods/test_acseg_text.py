"""Regions of ACSeg that are named by words, through a CLIP beside its backbone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conceptual import Watcher, check, scenes, small
from PIL import Image
from planted import broken, label_maps, miou, small_bank, tiny_vit
from planted_clip import WORDS, planted_clip, planted_photos

import zerolabel
from zerolabel import backbones
from zerolabel.backbones.clip import random_clip
from zerolabel.errors import DataError, StoreError, UsageError, WeightsError
from zerolabel.jobs.explain import explain
from zerolabel.jobs.run.model import Model, load
from zerolabel.methods.acseg import PRESETS, Acseg
from zerolabel.methods.configs import configure
from zerolabel.store import Store

CLASSES = ", ".join(WORDS)
TEXT = {"classify": "text", "classes": CLASSES, "clip": "planted", "clip_short": 64}
TEXT |= {"templates": "plain", "concepts": 6, "iterations": 10, "size": (64, 96)}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    """The backbones "planted" and "tiny-test" are planted; the others are as ever."""
    real = backbones.load

    def found(name, **options):
        own = {"planted": planted_clip, "tiny-test": tiny_vit, "bank": small_bank}
        return own[name]() if name in own else real(name, **options)

    monkeypatch.setattr(backbones, "load", found)
    return found


@pytest.fixture(scope="module")
def photos():
    return planted_photos(6)


def named(model):
    return [category.name for category in Model(model).categories]


def right(samples, maps, order=None):
    """Share of pixels whose category is that of their class; `order` has that of each class."""
    truth = np.arange(len(WORDS)) if order is None else np.array(order)
    return np.mean([(maps[s.id] == truth[s.load_label()]).mean() for s in samples])


# --- what they are named -------------------------------------------------------------------------


def test_regions_have_the_classes_of_their_words(photos):
    made, store = small(photos, backbone=small_bank(), **TEXT)
    check(made, photos, store)
    assert made.k == len(WORDS)
    assert named(made) == list(WORDS)
    assert set(made.arrays) >= {"texts", "groups", "patches"}
    assert not {"centroids", "bank"} & set(made.arrays)
    assert made.arrays["texts"].shape == (len(WORDS), 64)
    maps = label_maps(made, photos, store)
    assert right(photos, maps) > 0.9
    assert miou(photos, maps, len(WORDS), matching="identity") > 0.8
    for _, e in made.evidence(photos, store=store)[0]:  # how like its words a region is
        assert e.typical[e.typical > -1].min() > 0.1


def test_the_order_of_the_words_is_that_of_the_categories(photos):
    turned = WORDS[::-1]
    made, store = small(photos, backbone=small_bank(), **TEXT | {"classes": ", ".join(turned)})
    assert named(made) == list(turned)
    order = [turned.index(word) for word in WORDS]
    assert right(photos, label_maps(made, photos, store), order) > 0.9


def test_several_words_may_be_one_class(photos):
    classes = "above: sky, plants: grass, ground: snow | sand, red: brick | rust"
    made, store = small(photos, backbone=small_bank(), **TEXT | {"classes": classes})
    assert named(made) == ["above", "plants", "ground", "red"]
    assert made.arrays["groups"].tolist() == [0, 1, 2, 2, 3, 3]
    order = [0, 1, 2, 3, 2, 3]  # of sky, grass, sand, brick, snow, rust
    assert right(photos, label_maps(made, photos, store), order) > 0.9


def test_without_words_the_classes_of_the_data_set_are_meant(photos):
    known = [replace(sample, classes=WORDS) for sample in photos]
    options = TEXT | {"classes": ""}
    made, store = small(known, backbone=small_bank(), **options)
    assert named(made) == list(WORDS)
    assert right(known, label_maps(made, known, store)) > 0.9
    with pytest.raises(UsageError, match="names regions by words: give them with --classes"):
        small(photos, backbone=small_bank(), **options)


def test_the_grids_of_both_networks_may_differ(photos):
    for short in (40, 128):
        options = TEXT | {"size": (48, 64), "clip_short": short}
        made, store = small(photos, backbone=small_bank(), **options)
        assert check(made, photos, store)[0][0][1].parts.shape == (6, 8)
        assert right(photos, label_maps(made, photos, store)) > 0.8


def test_a_single_class_is_everywhere(photos):
    made, store = small(photos, backbone=small_bank(), **TEXT | {"classes": "sky"})
    assert named(made) == ["sky"]
    assert all((m == 0).all() for m in label_maps(made, photos, store).values())


# --- the background ------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["attention", "border"])
@pytest.mark.parametrize("grouping", ["image", "dataset"])
@pytest.mark.parametrize("classes", ["sand, sky", "background, sand, sky"])
def test_the_background_is_category_0_and_needs_no_word(background, grouping, classes):
    options = {"background": background, "grouping": grouping, "area": "mean", "merge": 0.9}
    options |= {**TEXT, "classes": classes, "size": (48, 64), "clip_short": 48}
    made, store = small(scenes(), backbone=Watcher(), **options)
    check(made, scenes(), store)
    assert named(made) == ["background", "sand", "sky"]
    assert len(made.arrays["texts"]) == 2
    maps = label_maps(made, scenes(), store, name="nearest")
    for sample in scenes():  # the blue one is sky; of sand and sky red is neither
        np.testing.assert_array_equal(maps[sample.id] == 0, sample.load_label() == 0)
        assert (maps[sample.id][sample.load_label() == 2] == 2).all()


def test_a_class_of_the_data_set_that_is_the_background_is_category_0():
    known = [replace(s, classes=("background", "brick", "sky")) for s in scenes()]
    options = {"background": "border", **TEXT, "classes": "", "size": (48, 64), "clip_short": 48}
    made, store = small(known, backbone=Watcher(), **options, merge=0.9)
    assert named(made) == ["background", "brick", "sky"]
    maps = label_maps(made, known, store, name="nearest")
    for sample in known:
        np.testing.assert_array_equal(maps[sample.id], sample.load_label())


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("sky, background", "is category 0 and told another way. Take it out"),
        ("Background: snow | sand", "no class beside the background"),
    ],
)
def test_words_for_a_background_that_needs_none_are_refused(classes, words):
    settings = {"classify": "text", "classes": classes, "clip": "planted", "background": "border"}
    with pytest.raises(UsageError, match=words):
        Acseg(configure(PRESETS, "default", settings), tiny_vit())
    Acseg(configure(PRESETS, "default", settings | {"background": "none"}), tiny_vit())


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("classify", ["cluster", "retrieve"])
def test_words_that_nothing_reads_are_refused(classify):
    config = configure(PRESETS, "default", {"classify": classify, "classes": "sky, sand"})
    with pytest.raises(UsageError, match="nothing reads their words. Add --set classify=text"):
        Acseg(config, tiny_vit())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"clip": "random-vitt16"}, UsageError, "text tower as clip, found random-vitt16"),
        ({"clip": "clip-vitb61"}, UsageError, "Did you mean 'clip-vitb16'"),
        ({"templates": "most"}, UsageError, "Unknown set of templates 'most'"),
        ({"clip_short": 4}, UsageError, "clip_short is 4, but planted-clip needs at least 8"),
        ({"classes": "sky, Sky"}, UsageError, "there twice"),
        ({"classes": "a: x | y, b: y"}, UsageError, "two classes"),
        (
            {"clip_weights": "nowhere.safetensors"},
            WeightsError,
            r"nowhere\.safetensors is not a file",
        ),
    ],
    ids=str,
)
def test_wrong_settings_fail_before_any_work(changes, error, words):
    settings = {"classify": "text", "classes": "sky, sand", "clip": "planted"} | changes
    with pytest.raises(error, match=words):
        Acseg(configure(PRESETS, "default", settings), tiny_vit())


def test_missing_weights_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("zerolabel.backbones.weights.find", lambda item: None)
    config = configure(PRESETS, "default", {"classify": "text", "classes": "sky, sand"})
    with pytest.raises(
        WeightsError, match="models get clip-vitb16.*MIT.*clip_weights=FILE"
    ) as found:
        Acseg(config, tiny_vit())
    assert "--weights" not in str(found.value)


def test_images_that_cannot_be_read(photos):
    made, store = small([broken(), *photos], backbone=small_bank(), **TEXT)
    found, failures = check(made, [*photos, broken()], store)
    assert len(found) == len(photos)
    assert list(failures) == ["broken.png"]
    for discover in ("concepts", "kmeans"):
        with pytest.raises(DataError, match="None of the images could be read"):
            small([broken()], **TEXT | {"discover": discover})


# --- the store and the model ---------------------------------------------------------------------


def test_each_clip_has_features_of_its_own_in_one_store(photos, planted, monkeypatch):
    store = Store()
    one, _ = small(photos, store=store, **TEXT)
    before = label_maps(one, photos, store)
    computed = list(store.computed)
    monkeypatch.setattr(
        backbones,
        "load",
        lambda name, **options: random_clip("random-clipt16", device=torch.device("cpu")),
    )
    other, _ = small(photos, store=store, **TEXT)
    new = store.computed[len(computed) :]
    assert {name.split("/")[0] for name in new} == {"words", "dense"}  # no region is found again
    assert one.others().keys() == {"planted-clip"}
    assert one.facts() == other.facts()
    assert not torch.equal(one.arrays["texts"], other.arrays["texts"])
    after = label_maps(one, photos, store)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_descriptions_are_not_computed(photos):
    made, store = small(photos, **TEXT, describe="crop-cls")
    assert made.config.describe == "pool"
    assert made.others() == {"planted-clip": made.clip.digest}


@pytest.mark.parametrize("background", ["none", "attention"])
def test_a_saved_model_names_new_photos(photos, background, tmp_path):
    options = {**TEXT, "background": background, "grouping": "dataset", "area": "mean"}
    made, store = small(photos[:4], **options)
    expected = label_maps(made, photos, store)
    Model(made).save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.method.config == made.config
    assert loaded.categories == Model(made).categories
    for sample in photos:
        found = loaded.predict(sample.load())
        np.testing.assert_array_equal(found.label_map, expected[sample.id])
        assert [category.name for category in found.categories][-6:] == list(WORDS)


def test_a_model_needs_the_clip_that_it_was_fitted_with(photos, planted, monkeypatch, tmp_path):
    made, _ = small(photos, **TEXT)
    Model(made).save(tmp_path)

    def other(name, **options):
        if name != "planted":
            return planted(name, **options)
        changed = planted_clip()
        changed.digest = "0" * 64
        return changed

    monkeypatch.setattr(backbones, "load", other)
    with pytest.raises(WeightsError, match="fitted with other weights of planted-clip"):
        load(tmp_path)

    def missing(name, **options):
        if name == "planted":
            raise WeightsError("The weights of planted are not on this machine.")
        return planted(name, **options)

    monkeypatch.setattr(backbones, "load", missing)
    with pytest.raises(WeightsError, match="named by a CLIP, which is missing: The weights of p"):
        load(tmp_path)


# --- the job -------------------------------------------------------------------------------------

JOB = {"method": "acseg", "backbone": "filterbank", "classify": "text", "clip": "random-clipt16"}
JOB |= {"classes": "sky, sand", "clip_short": 32, "size": 32, "iterations": 2, "batch": 4}
JOB |= {"templates": "plain", "steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    for sample in planted_photos(3):
        Image.fromarray(sample.load()).save(place / sample.id)
    return place


@pytest.mark.usefixtures("small_worlds")
def test_a_run_is_claimed_with_its_clip_and_can_be_predicted_and_explained(folder, tmp_path):
    run = zerolabel.segment(folder, tmp_path / "run", **JOB)
    assert [category.name for category in run.categories] == ["sky", "sand"]
    assert "sand" in (run.path / "report" / "index.html").read_text(encoding="utf-8")
    again = zerolabel.load(run.path)
    assert list(again.method.others()) == ["random-clipt16"]
    found = explain(run.path, folder / "001.png", tmp_path / "shown")
    assert {entry["name"] for entry in found.facts["categories"]} <= {"sky", "sand"}
    assert zerolabel.segment(folder, tmp_path / "run", **JOB).categories == run.categories
    with pytest.raises(StoreError, match="clip random-clipt16 instead of random-clipt32"):
        zerolabel.segment(folder, tmp_path / "run", **JOB | {"clip": "random-clipt32"})


@pytest.mark.usefixtures("small_worlds")
def test_a_run_of_other_weights_under_the_same_name_is_refused(folder, tmp_path, monkeypatch):
    zerolabel.segment(folder, tmp_path / "run", **JOB, report=False)
    real = backbones.load

    def other(name, **options):
        found = real(name, **options)
        if name.startswith("random-clip"):
            found.digest = "0" * 64
        return found

    monkeypatch.setattr(backbones, "load", other)
    with pytest.raises(StoreError, match="a run with weights of random-clipt16"):
        zerolabel.segment(folder, tmp_path / "run", **JOB, report=False)


def test_a_weights_file_is_kept_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.safetensors").write_bytes(b"x")
    settings = {"classify": "text", "classes": "sky", "clip": "planted"}
    made = Acseg(
        configure(PRESETS, "default", settings | {"clip_weights": "clip.safetensors"}), tiny_vit()
    )
    assert made.config.clip_weights == str(tmp_path / "clip.safetensors")
