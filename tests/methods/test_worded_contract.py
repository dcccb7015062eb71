"""What holds for every method that is told words, with all presets; a new one is tested unasked."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from planted import broken, label_maps

from zerolabel.backbones import load
from zerolabel.data.folder import from_arrays
from zerolabel.data.spaces import space
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.settings import build
from zerolabel.methods import WORDED, find
from zerolabel.stages.refine import REFINE
from zerolabel.store import Store

CLIP = load("random-clipt16", device="cpu")
METHODS = sorted(WORDED)
NAMES = ("cat", "dog", "grass")
CLASSES = "cat, dog, grass: lawn | meadow"  # four words of three classes
SMALL = {"classes": CLASSES, "templates": "plain", "short": 32, "crop": 32, "batch": 2, "views": 1}
SMALL |= {"steps": 2, "epochs": 0, "crop_size": 16, "window_share": 0.5, "hidden": 4}
TAUGHT = {"student": "small", "student_steps": 1, "student_epochs": 0, "student_batch": 2}
CASES = {
    "maskclip": ("maskclip", {}),
    "maskclip-smooth": ("maskclip", {"smooth": 0.9}),
    "maskclip+": ("maskclip+", TAUGHT),
    "maskclip+-own": ("maskclip+", TAUGHT | {"head": "own"}),
    "reclip": ("reclip", {}),
    "reclip-student": ("reclip", TAUGHT),
    "reclip++": ("reclip++", {}),
    "reclip++-student": ("reclip++", TAUGHT),
    "reclip++-query": ("reclip++", TAUGHT | {"head": "query"}),
}


def settings(method, **chosen):
    own = TAUGHT if method == "maskclip+" else {}
    known = {field.name for field in fields(find(method).PRESETS["default"])}
    return {name: v for name, v in {**SMALL, **own, **chosen}.items() if name in known}


def fitted(method, samples, *, preset="default", store=None, **chosen):
    made = build(method, CLIP, preset=preset, settings=settings(method, **chosen))
    store = store or Store()
    made.fit(samples, store=store)
    return made, store


@pytest.fixture(scope="module")
def samples():
    upright = [replace(s, id=f"x-{s.id}") for s in world(3, images=2, size=(64, 40), seed=1)]
    return [broken("a.png"), *world(3, images=3, size=(40, 60)), *upright]


@pytest.fixture(scope="module", params=CASES, ids=str)
def done(request, samples):
    """A fit of every method, with and without a student."""
    method, chosen = CASES[request.param]
    return *fitted(method, samples, **chosen), chosen


def named(method):
    return [category.name for category in Model(method).categories]


# --- fit and evidence ----------------------------------------------------------------------------


def test_every_patch_of_every_photo_has_a_class(done, samples):
    made, store, _ = done
    assert made.k == 3
    assert named(made) == list(NAMES)
    assert made.arrays["queries"].shape == (4, 64)
    assert made.arrays["groups"].tolist() == [0, 1, 2, 2]
    assert all(v.isfinite().all() for v in made.arrays.values())
    assert np.isfinite(list(made.losses.values())).all()
    found, failures = made.evidence(samples, store=store)
    assert failures == {"a.png": "cannot be read: torn"}
    assert [sample for sample, _ in found] == samples[1:]
    for sample, e in found:
        high, wide = sample.load().shape[:2]
        assert e.scores.shape[0] == 3
        assert (e.scores.shape[1] > e.scores.shape[2]) == (high > wide)
        assert e.scores.dtype == torch.float32
        assert e.scores.isfinite().all()
        assert e.typical.shape == (3,)
        assert -1 - 1e-5 <= e.typical.min() <= e.typical.max() <= 1 + 1e-5
        present = set(e.scores.argmax(0).flatten().tolist())
        assert {k for k in range(3) if e.typical[k] > -1} == present
        assert e.covered is None
    for name in REFINE:
        for sample, label_map in zip(
            samples[1:], label_maps(made, samples, store, name=name).values(), strict=True
        ):
            assert label_map.shape == sample.load().shape[:2]
            assert label_map.dtype == np.uint8
            assert label_map.max() < 3


def test_in_memory_and_on_disk_a_fit_is_the_same(done, samples, tmp_path):
    made, store, chosen = done
    again, disk = fitted(made.name, samples, store=Store(tmp_path), **chosen)
    assert made.arrays.keys() == again.arrays.keys()
    for name, value in made.arrays.items():
        assert torch.equal(value, again.arrays[name]), name
    first, second = label_maps(made, samples, store), label_maps(again, samples, disk)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert again.losses == made.losses


def test_fitting_again_forgets_what_was_found_before(done, samples):
    made, _, chosen = done
    store = Store()
    other, _ = fitted(made.name, samples[2:4], store=store, **chosen)
    other.fit(samples, store=store)
    assert made.arrays.keys() == other.arrays.keys()
    assert all(torch.equal(made.arrays[name], other.arrays[name]) for name in made.arrays)


def test_what_was_fitted_is_enough_to_predict(done, samples):
    made, store, _ = done
    other = type(made)(made.config, CLIP)
    assert other.config == made.config
    other.arrays = {name: value.clone() for name, value in made.arrays.items()}
    other.class_names = made.class_names
    first, second = label_maps(made, samples, store), label_maps(other, samples, Store())
    assert all(np.array_equal(first[name], second[name]) for name in first)
    one, two = (m.look_into(samples[1], store=Store()) for m in (made, other))
    assert one.maps.keys() == two.maps.keys()


def test_an_image_does_not_depend_on_its_batch(done, samples):
    made, store, _ = done
    together = label_maps(made, samples, store)
    for sample in samples[1:]:
        alone = label_maps(made, [sample], Store())
        assert (alone[sample.id] == together[sample.id]).mean() > 0.99


def test_new_photos_of_any_shape(done):
    made, _, _ = done
    photo = world(2, images=1, size=(31, 200), seed=7)[0]
    dot = from_arrays("dot.png", np.full((1, 1, 3), 9, np.uint8))
    line = from_arrays("line.png", np.full((2, 900, 3), 9, np.uint8))
    found = label_maps(made, [photo, broken(), dot, line], Store())
    assert {name: m.shape for name, m in found.items()} == {
        photo.id: (31, 200),
        "dot.png": (1, 1),
        "line.png": (2, 900),
    }
    assert made.evidence([broken()], store=Store()) == ([], {"broken.png": "cannot be read: torn"})


def test_what_explain_draws(done, samples):
    made, store, chosen = done
    anatomy = made.look_into(samples[1], store=store)
    [seen], _ = made.photos([samples[1]], store=store)
    logits = made.logits(seen)
    assert logits.shape == (4, *anatomy.parts.shape)
    won = logits.argmax(0).flatten().bincount(minlength=4).tolist()
    words = {"cat": [0], "dog": [1], "grass": [2, 3]}  # of a class the one that wins most
    best = {name: max(own, key=lambda q: won[q]) for name, own in words.items()}
    drawn = {name: q for name, q in best.items() if won[q]}
    if made.name.startswith("reclip") and not chosen:
        expected = {f"{name}: rectified": logits[q] for name, q in drawn.items()}
        cosines = made.cosines(seen)
        expected |= {f"{name}: query": cosines[q] for name, q in drawn.items()}
        biases = {name for name in anatomy.maps if name.endswith(": bias")}
        assert biases == {f"{name}: bias" for name in drawn}
        assert all(anatomy.maps[name].std() > 0 for name in biases)
    else:
        expected, biases = {f"score of {name}": logits[q] for name, q in drawn.items()}, set()
    assert anatomy.maps.keys() - biases == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(anatomy.maps[name], values)
    with pytest.raises(ImageError, match="torn"):
        made.look_into(samples[0], store=store)


@pytest.mark.parametrize(
    ("method", "preset"),
    [(method, preset) for method in METHODS for preset in find(method).PRESETS],
)
def test_every_preset_runs_and_predicts(method, preset, samples):
    wanted = find(method).PRESETS[preset].classes
    made, store = fitted(method, samples[:3], preset=preset, classes=wanted or CLASSES)
    expected = list(space(wanted).classes) if wanted else list(NAMES)
    assert [" ".join(name.split()) for name in expected] == named(made)
    for label_map in label_maps(made, samples[2:], store).values():
        assert label_map.max() < made.k


@pytest.mark.parametrize("grey", [0, 128])
@pytest.mark.parametrize("method", METHODS)
def test_flat_photos(method, grey):
    flat = [from_arrays(f"{i}.png", np.full((20, 30, 3), grey, np.uint8)) for i in range(2)]
    made, store = fitted(method, flat)
    found, _ = made.evidence(flat, store=store)
    assert all(e.scores.isfinite().all() for _, e in found)
    assert all(m.shape == (20, 30) for m in label_maps(made, flat, store).values())


@pytest.mark.parametrize("method", METHODS)
def test_only_unreadable_images_are_an_error(method):
    with pytest.raises(DataError, match="None of the images could be read"):
        fitted(method, [broken()])


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (" , ;", "No class in the list"),
        ("cat, dog, Cat", "'Cat' is there twice"),
        ("pet: cat | dog, wild: wolf | dog", "'dog' belongs to two classes"),
        ("pet: , cat", "no word after the colon"),
        ("nowhere.txt", r"nowhere\.txt is not a file"),
        ('cat, "dog', "goes in double quotes"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_wrong_words_are_refused_before_any_work(method, classes, words):
    with pytest.raises(UsageError, match=words):
        build(method, CLIP, settings=settings(method, classes=classes))


@pytest.mark.parametrize("method", METHODS)
def test_a_name_that_the_tokenizer_cannot_hold_is_named(method, samples):
    longest, store = "a" * 80, Store()  # a token each
    with pytest.raises(UsageError, match="75") as found:
        fitted(method, samples, classes=f"cat, {longest}", store=store)
    assert longest in str(found.value)
    assert not [name for name in store.computed if not name.startswith("words/")]


@pytest.mark.parametrize("method", METHODS)
def test_a_single_class(method, samples):
    if method.startswith("reclip"):
        with pytest.raises(UsageError, match="two words or more to tell apart, found only 'cat'"):
            fitted(method, samples, classes="cat")
        made, store = fitted(method, samples, classes="cat: cat | kitten")
    else:
        made, store = fitted(method, samples, classes="cat")
    assert named(made) == ["cat"]
    assert all((m == 0).all() for m in label_maps(made, samples, store).values())


@pytest.mark.parametrize("method", METHODS)
def test_no_category_0_by_accident(method, samples):
    made, store = fitted(method, samples)
    assert not {"background", "none of these"} & set(named(made))
    patched = made.evidence(samples, store=store)[0]
    assert all(len(e.scores) == 3 for _, e in patched)


@pytest.mark.parametrize("method", METHODS)
def test_background_words_are_category_0(method, samples):
    made, store = fitted(method, samples, background="wall | floor, sky")
    assert named(made) == ["background", *NAMES]
    assert made.arrays["groups"].tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert {len(e.scores) for _, e in made.evidence(samples, store=store)[0]} == {4}
    plain, _ = fitted(method, samples, classes=f"background: wall | floor | sky, {CLASSES}")
    assert torch.equal(plain.arrays["queries"], made.arrays["queries"])
    again = type(made)(made.config, CLIP)
    assert again.config == made.config
    with pytest.raises(UsageError, match="dog: expected other words for the background"):
        build(method, CLIP, settings=settings(method, background="sky, Dog"))


@pytest.mark.parametrize("method", METHODS)
def test_a_class_called_background_and_words_for_it_are_one_category(method, samples):
    made, _ = fitted(method, samples, background="wall", classes="Background, cat, dog")
    assert named(made) == ["background", "cat", "dog"]
    assert len(made.arrays["queries"]) == 3  # wall, cat, dog
    for classes, words in (
        ("cat, background, dog", "'background' is one of the classes"),
        ("background", "no class beside the background"),
    ):
        with pytest.raises(UsageError, match=words):
            build(method, CLIP, settings=settings(method, background="wall", classes=classes))


@pytest.mark.parametrize("background", ["", "wall"])
@pytest.mark.parametrize("method", METHODS)
def test_none_of_these_is_category_0(method, background, samples):
    maps = {}
    for none in (1e-6, 0.999999):
        made, store = fitted(method, samples, none=none, background=background)
        assert named(made) == ["background" if background else "none of these", *NAMES]
        found = made.evidence(samples, store=store)[0]
        assert {len(e.scores) for _, e in found} == {4}
        for _, e in found:
            present = set(e.scores.argmax(0).flatten().tolist())
            assert {k for k in range(4) if e.typical[k] > -1} == present
        maps[none] = label_maps(made, samples, store, name="nearest").values()
    if not background:
        assert not any((m == 0).any() for m in maps[1e-6])
    assert sum((m == 0).sum() for m in maps[0.999999]) > sum((m == 0).sum() for m in maps[1e-6])
    for wrong in (1.0, 1.5):
        with pytest.raises(UsageError, match="none and denoise are shares"):
            build(method, CLIP, settings=settings(method, none=wrong))


@pytest.mark.parametrize("method", METHODS)
def test_denoising_never_takes_all_words(method, samples):
    made, store = fitted(method, samples, denoise=1.0)
    for _, e in made.evidence(samples, store=store)[0]:
        assert e.scores.isfinite().all()
        assert 1 <= (e.typical > -1).sum() <= 3
    assert all(m.max() < 3 for m in label_maps(made, samples, store).values())


@pytest.mark.parametrize("method", METHODS)
def test_without_words_the_classes_of_the_data_set_are_meant(method, samples):
    known = [replace(sample, classes=("cat", "sea, deep", "a: b")) for sample in samples]
    made, store = fitted(method, known, classes="")
    assert named(made) == ["cat", "sea, deep", "a: b"]
    assert made.config.classes == ""
    told, _ = fitted(method, samples, classes='cat, "sea, deep", "a: b"')
    assert all(torch.equal(told.arrays[name], value) for name, value in made.arrays.items())
    assert all(m.max() < 3 for m in label_maps(made, samples, store).values())
    with pytest.raises(UsageError, match=r"give them with --classes"):
        fitted(method, samples, classes="")
    mixed = [replace(known[1], classes=("x",)), *known[2:]]
    with pytest.raises(UsageError, match="labels have the same classes"):
        fitted(method, mixed, classes="")


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_words_decides_by_what_it_says(method, samples, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# what is to be seen\ncat\n\n  # and\ndog\ngrass: lawn | meadow\n")
    made = build(method, CLIP, settings=settings(method, classes=str(path)))
    told = build(method, CLIP, settings=settings(method))
    assert made.config == told.config
    path.unlink()
    made.fit(samples[:3], store=Store())  # it was read before
    assert named(made) == list(NAMES)


@pytest.mark.parametrize("method", METHODS)
def test_a_label_space_stands_for_its_classes(method):
    made = build(method, CLIP, settings=settings(method, classes="voc20"))
    assert made.config.classes.startswith("aeroplane: airplane, bicycle, bird")
    assert type(made)(made.config, CLIP).config == made.config
