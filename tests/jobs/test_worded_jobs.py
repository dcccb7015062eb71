"""Jobs of the methods that are told words: runs, models, resuming, odd files, what is refused."""

import hashlib
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from PIL import Image

import zerolabel
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.backbones.vit import VitBackbone
from zerolabel.cli import main
from zerolabel.data.folder import read_image
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, StoreError, UsageError, WeightsError
from zerolabel.jobs.explain import explain
from zerolabel.jobs.predict import predict
from zerolabel.methods import WORDED
from zerolabel.networks.deeplab import DeepLabV2
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import read_mask
from zerolabel.stages import parts

pytestmark = pytest.mark.usefixtures("small_worlds")
IMAGES = 18  # two batches
NAMES = ("cat", "dog", "grass")
TAUGHT = {"student": "small", "student_steps": 2, "student_batch": 4}
OWN = {"maskclip": {}, "maskclip+": TAUGHT, "reclip": {}, "reclip++": TAUGHT}
LEARNS = {"crop": 32, "batch": 4, "views": 1}
TINY = {"backbone": "random-clipt16", "classes": "cat, dog, grass: lawn | meadow"}
TINY |= {"templates": "plain", "short": 32}
RECTIFIES = {"steps": 3, "crop_size": 16, "window_share": 0.5}
SAME = ("masks", "overlays", "categories.json", "failures.json", "model.json", "model.safetensors")


def options(method, **more):
    found = TINY | OWN[method] | (LEARNS if method != "maskclip" else {})
    found |= RECTIFIES if method.startswith("reclip") else {}
    return {"method": method} | found | more


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


def write(folder, *, images, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for sample in world(3, images=images, size=(32, 48), per_image=3, seed=seed):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


def contents(run):
    """Hash all files of a run that must not depend on how often it was interrupted."""
    files = [p for name in SAME for p in (run / name, *(run / name).rglob("*")) if p.is_file()]
    return {p.relative_to(run): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("photos"), images=IMAGES)
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module", params=sorted(WORDED))
def done(request, photos, tmp_path_factory):
    """A run of every method, with everything that a run can have."""
    out = tmp_path_factory.mktemp("runs") / request.param
    return zerolabel.segment(photos, out, **options(request.param))


# --- what is written -----------------------------------------------------------------------------


def test_masks_and_categories_have_the_classes(done, photos):
    entries = read(done.path, "categories.json")["categories"]
    assert [entry["name"] for entry in entries] == list(NAMES)
    assert [entry["colour"] for entry in entries] == palette(3).tolist()
    masks = {p.name: read_mask(p) for p in (done.path / "masks").iterdir()}
    assert sorted(masks) == sorted(p.name for p in photos.glob("*.png"))
    for entry in entries:
        counts = {name: (mask == entry["id"]).sum() for name, mask in masks.items()}
        total = sum(mask.size for mask in masks.values())
        assert entry["pixel_share"] == pytest.approx(sum(counts.values()) / total)
        assert entry["image_count"] == sum(count > 0 for count in counts.values())
        assert all(counts[name] for name in entry["exemplars"])


def test_one_broken_file_is_reported_and_no_more(done):
    assert (done.images, list(done.failures)) == (IMAGES, ["broken.jpg"])
    [entry] = read(done.path, "failures.json")["failures"]
    assert entry["id"] == "broken.jpg"
    run = read(done.path, "run.json")
    assert (run["status"], run["attempts"], run["failed"], run["k"]) == ("done", 1, 1, 3)
    job = run["job"]
    assert (job["method"], job["backbone"]) == (done.path.name, "random-clipt16")
    assert job["config"]["classes"] == TINY["classes"]
    assert "k" not in job["config"]


def test_the_report_names_the_classes(done):
    page = done.report.read_text(encoding="utf-8")
    for word in (*NAMES, "world-000.png", "broken.jpg", "random-clipt16", done.path.name):
        assert word in page
    assert "category 0" not in page
    assert page.count("data:image/jpeg") > IMAGES


# --- models --------------------------------------------------------------------------------------


def test_a_loaded_model_predicts_what_is_on_disk(done, photos, tmp_path):
    model = zerolabel.load(done.path)
    assert model.categories == done.categories
    assert model.method.notes == done.notes
    for path in sorted(photos.glob("*.png"))[::6]:
        expected = read_mask(done.path / "masks" / path.name)
        np.testing.assert_array_equal(model.predict(path).label_map, expected)
    model.save(tmp_path / "a")
    zerolabel.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (done.path / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == (done.path / name).read_bytes()


def test_fit_gives_the_same_model_and_new_photos_the_same_classes(done, photos, tmp_path):
    fitted = zerolabel.fit(photos, out=tmp_path / "fit", **options(done.path.name))
    assert list(fitted.failures) == ["broken.jpg"]
    first, second = (p / "model.safetensors" for p in (done.path, tmp_path / "fit"))
    assert first.read_bytes() == second.read_bytes()
    new = write(tmp_path / "new", images=3, seed=5)
    run = predict(tmp_path / "fit", new, tmp_path / "run", report=False)
    assert [category.name for category in run.categories] == list(NAMES)
    model = zerolabel.load(done.path)
    for path in new.iterdir():
        found = model.predict(path).label_map
        np.testing.assert_array_equal(read_mask(run.path / "masks" / path.name), found)


def test_the_weights_of_another_clip_are_refused(done, tmp_path):
    model = zerolabel.load(done.path)
    model.save(tmp_path)
    facts = read(tmp_path, "model.json")
    (tmp_path / "model.json").write_text(json.dumps({**facts, "weights": "0" * 64}))
    with pytest.raises(WeightsError, match="other weights of random-clipt16"):
        zerolabel.load(tmp_path)


def test_explain_draws_the_words(done, photos, tmp_path):
    found = explain(done.path, photos / "world-001.png", tmp_path)
    files = {path.name for path in found.path.iterdir()}
    maps = [name for name in files if name.startswith("map-")]
    assert maps
    assert files - set(maps) == {
        *("index.html", "embedding.svg", "explain.json", "run.json"),
        *("photo.jpg", "regions.jpg", "categories.jpg"),
    }
    page = found.page.read_text(encoding="utf-8")
    if done.path.name == "reclip":  # without a student
        assert len(maps) % 3 == 0
        for kind in ("query", "bias", "rectified"):
            assert f": {kind}" in page
    else:
        assert "score of " in page
    facts = found.facts
    assert facts["parts"] == "categories"
    assert {entry["name"] for entry in facts["categories"]} <= set(NAMES)
    labels = zerolabel.load(done.path).predict(photos / "world-001.png").label_map
    shares = {entry["id"]: entry["share"] for entry in facts["categories"]}
    ids, counts = np.unique(labels, return_counts=True)
    assert shares == pytest.approx(dict(zip(ids.tolist(), counts / labels.size, strict=True)))
    for name in ("photo", "regions", "categories"):
        assert read_image(found.path / f"{name}.jpg").shape == (32, 48, 3)


# --- interrupted ---------------------------------------------------------------------------------


class Killed(BaseException):
    """Like the end of the process: nothing in the program expects it."""


def limit_writes(patch, writes):
    """Let so many files get their names, then end the program before the next one does."""
    left, real = [writes], os.replace

    def counted(*paths):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        real(*paths)

    patch.setattr(os, "replace", counted)
    return left


def test_a_run_may_be_killed_between_any_two_stages(done, photos, tmp_path):
    own = options(done.path.name, report=False)
    whole, out = contents(done.path), tmp_path / "run"
    attempts = 0
    for writes in (3, 1, 2, 2, 3, 5, 9, 14):  # as many as it gets each time
        with pytest.MonkeyPatch.context() as patch:
            limit_writes(patch, writes)
            with pytest.raises(Killed):
                zerolabel.segment(photos, out, **own)
        attempts += 1
    zerolabel.segment(photos, out, **own)
    assert contents(out) == whole
    assert read(out, "run.json")["attempts"] == attempts + 1
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_both_trainings_go_on_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEEP", 2)  # steps after which a training can go on
    photos = write(tmp_path / "photos", images=3)
    own = options("reclip++", steps=5, student_steps=5)
    zerolabel.fit(photos, out=tmp_path / "whole", **own)
    out, began = tmp_path / "run", set()
    for _ in range(60):
        with pytest.MonkeyPatch.context() as patch:
            limit_writes(patch, 3)
            try:
                zerolabel.fit(photos, out=out, **own)
            except Killed:
                kept = {p.parent.name for p in (out / "cache").rglob("*-[0-9].safetensors")}
                began |= kept
                continue
            break
    zerolabel.fit(photos, out=out, **own)
    assert began == {"rectify", "distil"}
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_done_is_not_done_again(done, photos, monkeypatch):
    monkeypatch.delattr(VitBackbone, "encode")
    monkeypatch.delattr(ClipBackbone, "encode_texts")
    monkeypatch.delattr(DeepLabV2, "forward")
    before = contents(done.path)
    again = zerolabel.segment(photos, done.path, **options(done.path.name))
    assert again.categories == done.categories
    assert contents(done.path) == before


def test_other_words_are_another_run(done, photos):
    own = options(done.path.name, classes="cat, dog, lawn", report=False)
    with pytest.raises(StoreError, match="a run with classes cat, dog, grass: lawn"):
        zerolabel.segment(photos, done.path, **own)


# --- odd data, and what is refused ---------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(WORDED))
def test_nothing_readable_fails_says_why_and_can_be_mended(method, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").touch()
    (folder / "b.jpg").write_text("text")
    own = options(method, report=False)
    with pytest.raises(DataError, match="could be read"):
        zerolabel.segment(folder, tmp_path / "run", **own)
    entries = read(tmp_path / "run", "failures.json")["failures"]
    assert [entry["id"] for entry in entries] == ["a.jpg", "b.jpg"]
    assert read(tmp_path / "run", "run.json")["status"] == "started"
    write(folder, images=2)
    run = zerolabel.segment(folder, tmp_path / "run", **own)
    assert (run.images, sorted(run.failures)) == (2, ["a.jpg", "b.jpg"])


def line(method, *more, **changes):
    """A command line with settings."""
    told = options(method, **changes)
    words = ["--method", told.pop("method"), "--backbone", told.pop("backbone")]
    for name, value in told.items():
        words += ["--set", f"{name}={value}"]
    return [*words, *map(str, more)]


@pytest.mark.parametrize("method", sorted(WORDED))
def test_the_command_ends_with_3_where_a_file_is_broken(method, tmp_path):
    folder = write(tmp_path / "photos", images=2)
    (folder / "broken.jpg").write_text("no image")
    command = ["segment", str(folder), "--out", str(tmp_path / "run"), "--no-report"]
    found = CliRunner().invoke(main.cli, [*command, *line(method)], standalone_mode=False)
    assert found.return_value == 3, found.output
    assert "2 images (a folder) in 3 categories" in found.output
    assert "1 image could not be read" in found.output


@pytest.mark.parametrize("method", sorted(WORDED))
def test_wrong_words_fail_before_anything_is_made(method, photos, tmp_path):
    for classes, words in (("cat, Cat", "there twice"), ("a: x, b: x", "two classes")):
        with pytest.raises(UsageError, match=words):
            zerolabel.segment(photos, tmp_path / "run", **options(method, classes=classes))
    for name, value, words in (
        ("none", 1.0, "none and denoise are shares"),
        ("templates", "many", "Unknown set of templates"),
        ("background", "cat", "cat: expected other words"),
    ):
        with pytest.raises(UsageError, match=words):
            zerolabel.segment(photos, tmp_path / "run", **options(method, **{name: value}))
    with pytest.raises(UsageError, match="text tower|needed"):
        zerolabel.segment(photos, tmp_path / "run", **options(method, backbone="filterbank"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", sorted(WORDED))
def test_without_words_a_folder_says_what_is_missing_and_stays_usable(method, photos, tmp_path):
    with pytest.raises(UsageError, match=f"{method.replace('+', '.')} looks for classes that you"):
        zerolabel.fit(photos, out=tmp_path, **options(method, classes=""))
    with pytest.raises(UsageError, match="photo of a xxxx.* has 110 tokens, but CLIP reads at m"):
        zerolabel.fit(photos, out=tmp_path, **options(method, classes="cat, " + 100 * "x"))
    if method.startswith("reclip"):
        with pytest.raises(UsageError, match="two words or more"):
            zerolabel.fit(photos, out=tmp_path, **options(method, classes="cat"))
    fitted = zerolabel.fit(photos / "world-000.png", out=tmp_path, **options(method))
    assert [category.name for category in fitted.categories] == list(NAMES)


@pytest.mark.parametrize("method", sorted(WORDED))
def test_missing_weights_are_named_with_both_ways_to_get_them(
    method, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(zerolabel.backbones, "choose", lambda name, weights=None: (name, ""))
    said = r"clip-vitb16.*models get clip-vitb16.*598 MB.*licence MIT.*--weights FILE.*merges\.txt"
    with pytest.raises(WeightsError, match=said):
        zerolabel.segment(photos, tmp_path / "run", **options(method, backbone="auto"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", sorted(WORDED))
def test_words_have_no_granularity(method, photos, tmp_path):
    with pytest.raises(UsageError, match="has no k: its categories are the classes"):
        zerolabel.segment(photos, tmp_path / "run", granularity=[2, 3], **options(method))
    with pytest.raises(UsageError, match="has no k: its categories are the classes"):
        zerolabel.segment(photos, tmp_path / "run", k=2, **options(method))
    assert not (tmp_path / "run").exists()


def test_a_data_set_names_the_classes_itself(tmp_path):
    """A folder with labels, and the names of its classes beside them."""
    for name in ("images", "masks"):
        (tmp_path / "own" / name).mkdir(parents=True)
    for sample in world(3, images=3, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(tmp_path / "own" / "images" / sample.id)
        label = sample.load_label().astype(np.uint8)
        Image.fromarray(label).save(tmp_path / "own" / "masks" / sample.id)
    (tmp_path / "own" / "classes.txt").write_text("sea\nsky, blue\nrock\n")
    own = options("maskclip", classes="", report=False)
    run = zerolabel.segment(tmp_path / "own", tmp_path / "run", **own)
    assert [category.name for category in run.categories] == ["sea", "sky, blue", "rock"]
    assert zerolabel.load(run.path).categories == run.categories
    found = zerolabel.evaluate(run.path, tmp_path / "own", protocol="classes")
    assert len(found["per_class"]) == 3
