"""The main job and its relatives, by the Python API: what is written, and that it is true.

Methods that are told words, and so have no k, are in test_worded_jobs.py.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

import zerolabel
from zerolabel.backbones import load as load_backbone
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, ImageError, StoreError, UsageError, WeightsError
from zerolabel.jobs.run.settings import build
from zerolabel.methods import METHODS, SUPERVISED, WORDED, find
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import read_mask

pytestmark = pytest.mark.usefixtures("small_worlds")
DATA = os.environ.get("ZEROLABEL_DATA")
OWN = {
    "wnet": {"backbone": "none", "base": 4, "depth": 2, "iterations": 30, "batch": 4},
    "segmenter": {"backbone": "random-vitt8"},  # it trains a transformer
    # Where filterbank cannot do; crops of 224 pixels would take half a minute.
    "dino-attention": {"backbone": "random-vitt8", "describe": "pool"},
    "transfgu": {
        **{"backbone": "random-vitt8", "crop_size": 32, "zoom": 1.0, "batch": 6},
        **{"epochs": 2, "repeat": 1},
    },
    "acseg": {"iterations": 20, "batch": 6, "steps": 2, "describe": "crop-cls"},
}
ADAPTED = {"datus": ("no keys", "no CLS"), "acseg": ("no CLS",)}  # by filterbank
FAST = {"method": "kmeans", "k": 3, "size": 64, "report": False}
IMAGES = 18  # two batches


def backbone_of(method):
    if method in WORDED:
        return "random-clipt16"
    return OWN.get(method, {}).get("backbone", "filterbank")


def write_world(folder, *, images=IMAGES, categories=3, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for sample in world(categories, images=images, size=(48, 64), per_image=3, seed=seed):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("photos"))


@pytest.fixture(
    scope="module", params=[name for name in METHODS if name not in SUPERVISED | WORDED]
)
def done(request, photos, tmp_path_factory):
    """A run of every method, with everything that a run can have."""
    out = tmp_path_factory.mktemp("runs") / request.param
    options = FAST | {"method": request.param, "report": True} | OWN.get(request.param, {})
    return zerolabel.segment(photos, out, **options)


# --- what is written -----------------------------------------------------------------------------


def test_masks_are_palette_pngs_in_the_colours_of_the_categories(done, photos):
    categories = read(done.path, "categories.json")["categories"]
    names = sorted(p.stem for p in photos.iterdir())
    assert sorted(p.name for p in (done.path / "masks").iterdir()) == [f"{n}.png" for n in names]
    for name in names:
        with Image.open(done.path / "masks" / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (64, 48))
            table = np.array(mask.getpalette()).reshape(-1, 3)
            assert np.asarray(mask).max() < len(categories)
        assert table[: len(categories)].tolist() == [entry["colour"] for entry in categories]


def test_overlays_show_the_photo_with_the_colours_of_its_mask(done, photos):
    colours = palette(len(done.categories)).astype(float)
    for path in photos.iterdir():
        labels = read_mask(done.path / "masks" / path.name)
        overlay = np.asarray(Image.open(done.path / "overlays" / f"{path.stem}.jpg"), float)
        photo = np.asarray(Image.open(path), float)
        assert overlay.shape == photo.shape
        mixed = 0.5 * photo + 0.5 * colours[labels]
        inside = np.ones(labels.shape, bool)  # borders are white
        inside[:, :-1] &= labels[:, 1:] == labels[:, :-1]
        inside[:-1] &= labels[1:] == labels[:-1]
        assert np.abs(overlay - mixed)[inside].mean() < 15  # JPEG of a noisy image
        assert np.abs(overlay - photo)[inside].mean() > 15


def test_categories_json_counts_what_the_masks_hold(done):
    entries = read(done.path, "categories.json")["categories"]
    masks = {p.name: read_mask(p) for p in (done.path / "masks").iterdir()}
    total = sum(mask.size for mask in masks.values())
    assert [entry["id"] for entry in entries] == list(range(3))
    for entry in entries:
        k = entry["id"]
        assert entry["name"] == f"category {k}"
        assert entry["colour"] == palette(3)[k].tolist()
        assert entry["pixel_share"] == pytest.approx(
            sum((mask == k).sum() for mask in masks.values()) / total
        )
        showing = [name for name, mask in masks.items() if (mask == k).any()]
        assert entry["image_count"] == len(showing)
        assert 0 < len(entry["exemplars"]) <= 12
        assert set(entry["exemplars"]) <= set(showing)  # masks keep the names: all are PNGs
        sizes = [(masks[name] == k).mean() for name in entry["exemplars"]]
        assert min(sizes[:3]) > 0.05  # an exemplar shows more than a speck


def test_run_json_says_what_was_done_and_what_it_cost(done):
    run = read(done.path, "run.json")
    job = run["job"]
    assert (run["status"], run["attempts"], run["zerolabel"]) == (
        "done",
        1,
        zerolabel.__version__,
    )
    assert (job["method"], job["backbone"]) == (done.path.name, backbone_of(done.path.name))
    assert job["config"]["k"] == 3
    assert job["config"]["seed"] == 0
    assert job["config"]["size"] == [64, 64]
    assert len(job["data"]) == 32
    assert job["weights"]
    assert (run["images"], run["failed"], run["k"]) == (IMAGES, 0, 3)
    assert run["data"] == "a folder"
    assert run["seconds"]["all"] >= run["seconds"]["masks"] > 0
    assert run["peak_memory_mb"] > 50
    assert run["environment"]["threads"] >= 1
    notes = " ".join(run["notes"])
    said = tuple(words for words in ("no keys", "no CLS") if words in notes)
    assert said == ADAPTED.get(job["method"], ())
    assert read(done.path, "failures.json") == {"failures": []}


def test_the_report_is_there_and_names_what_it_shows(done, photos):
    page = (done.path / "report" / "index.html").read_text(encoding="utf-8")
    assert done.report == done.path / "report" / "index.html"
    name = done.path.name
    for word in ("category 2", "world-000.png", backbone_of(name), "Peak memory", name):
        assert word in page
    assert page.count("data:image/jpeg") > 2 * IMAGES  # photos, overlays and contact sheets


def test_nothing_else_lies_around(done):
    names = {p.name for p in done.path.iterdir()} - {".lock"}
    assert names == {
        *("run.json", "categories.json", "failures.json", "model.json", "model.safetensors"),
        *("masks", "overlays", "report", "cache"),
    }
    assert not list(done.path.rglob("*.tmp"))


def test_the_planted_categories_are_found(tmp_path):
    samples = world(3, images=IMAGES, size=(48, 64), per_image=3)
    write_world(tmp_path / "photos")
    zerolabel.segment(tmp_path / "photos", tmp_path / "run", **FAST)
    truth = np.concatenate([sample.load_label().ravel() for sample in samples])
    found = np.concatenate(
        [read_mask(tmp_path / "run" / "masks" / sample.id).ravel() for sample in samples]
    )
    agree = np.zeros((3, 3))
    np.add.at(agree, (truth, found), 1)
    assert sorted(agree.argmax(1)) == [0, 1, 2]
    assert agree.max(1).sum() / agree.sum() > 0.85


# --- models --------------------------------------------------------------------------------------


def test_a_loaded_model_predicts_what_is_on_disk(done, photos):
    model = zerolabel.load(done.path)
    assert model.categories == done.categories
    assert model.method.notes == done.notes
    for path in sorted(photos.iterdir())[::5]:
        image = np.asarray(Image.open(path))
        expected = read_mask(done.path / "masks" / path.name)
        for given in (image, path, str(path)):
            segmentation = model.predict(given)
            np.testing.assert_array_equal(segmentation.label_map, expected)
            assert segmentation.label_map.dtype == np.uint8
        assert segmentation.categories == done.categories


def test_predicting_a_folder_streams_through_it(done, photos):
    model = zerolabel.load(done.path)
    found = list(model.predict(photos))
    assert [sample.id for sample, _ in found] == sorted(p.name for p in photos.iterdir())
    for sample, segmentation in found:
        expected = read_mask(done.path / "masks" / sample.id)
        np.testing.assert_array_equal(segmentation.label_map, expected)


@pytest.mark.slow
def test_crops_and_keys_of_a_vit_predict_the_same_one_by_one(photos, tmp_path):
    run = zerolabel.segment(
        *(photos, tmp_path / "run"),
        **FAST | {"method": "datus", "backbone": "random-vitt16"},
    )
    assert run.notes == []
    model = zerolabel.load(run.path)
    for path in sorted(photos.iterdir())[::6]:
        expected = read_mask(run.path / "masks" / path.name)
        np.testing.assert_array_equal(model.predict(path).label_map, expected)


def test_saved_and_loaded_twice_a_model_stays_the_same(done, tmp_path):
    zerolabel.load(done.path).save(tmp_path / "a")
    zerolabel.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (done.path / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == (done.path / name).read_bytes()


def test_fit_in_memory_and_on_disk_give_the_segmented_model(photos, done, tmp_path):
    options = {k: v for k, v in FAST.items() if k != "report"} | {"method": done.path.name}
    options |= OWN.get(done.path.name, {})
    before = set(Path.cwd().iterdir())
    in_memory = zerolabel.fit(photos, **options)
    on_disk = zerolabel.fit(photos, out=tmp_path / "fit", **options)
    assert set(Path.cwd().iterdir()) == before
    assert not (tmp_path / "fit" / "masks").exists()
    run = read(tmp_path / "fit", "run.json")
    assert (run["status"], run["images"], run["failed"]) == ("done", IMAGES, 0)
    assert read(tmp_path / "fit", "failures.json") == {"failures": []}
    image = np.asarray(Image.open(photos / "world-003.png"))
    expected = read_mask(done.path / "masks" / "world-003.png")
    for model in (in_memory, on_disk, zerolabel.load(tmp_path / "fit")):
        np.testing.assert_array_equal(model.predict(image).label_map, expected)
    assert (tmp_path / "fit" / "model.safetensors").read_bytes() == (
        done.path / "model.safetensors"
    ).read_bytes()


def test_new_photos_get_the_same_categories(done, tmp_path):
    from zerolabel.jobs.predict import predict

    new = write_world(tmp_path / "new", images=5, seed=0)  # the world's styles come from its seed
    before = {p.name: p.read_bytes() for p in new.iterdir()}
    run = predict(done.path, new, tmp_path / "run", report=False)
    model = zerolabel.load(done.path)
    assert (run.images, run.failures) == (5, {})
    for path in new.iterdir():
        expected = model.predict(path).label_map
        np.testing.assert_array_equal(read_mask(tmp_path / "run" / "masks" / path.name), expected)
    there, here = (read(p, "categories.json")["categories"] for p in (done.path, run.path))
    assert [(c["id"], c["name"], c["colour"]) for c in there] == [
        (c["id"], c["name"], c["colour"]) for c in here
    ]
    assert sum(c["pixel_share"] for c in here) == pytest.approx(1)
    assert (
        read(run.path, "run.json")["job"]["config"] == read(done.path, "run.json")["job"]["config"]
    )
    assert {p.name: p.read_bytes() for p in new.iterdir()} == before
    with pytest.raises(StoreError, match="holds a run with"):
        predict(done.path, new, done.path)


@pytest.mark.parametrize(
    "image",
    [
        *(np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))),
        *(np.zeros((0, 4, 3), np.uint8), [[1, 2]], None, Image.new("RGB", (4, 4))),
    ],
    ids=["two axes", "four channels", "floats", "no rows", "a list", "nothing", "a picture"],
)
def test_what_is_no_image_is_refused(done, image):
    with pytest.raises(ImageError, match="Expected a uint8 array"):
        zerolabel.load(done.path).predict(image)


def test_unreadable_files_are_named(done, photos, tmp_path):
    model = zerolabel.load(done.path)
    (tmp_path / "a.jpg").write_text("text")
    Image.open(photos / "world-000.png").save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="not an image"):
        model.predict(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"a\.jpg: not an image"):
        list(model.predict(tmp_path))
    failures = {}
    assert [s.id for s, _ in model.predict_files(tmp_path, failures=failures)] == ["b.png"]
    assert list(failures) == ["a.jpg"]
    with pytest.raises(DataError, match="does not exist"):
        list(model.predict_files(tmp_path / "nope"))


def test_a_damaged_model_is_refused(done, tmp_path):
    with pytest.raises(StoreError, match=r"model\.json is not there"):
        zerolabel.load(tmp_path)
    model = zerolabel.load(done.path)
    model.save(tmp_path)
    facts = read(tmp_path, "model.json")
    for content in ("[]", "{}", "{", json.dumps({**facts, "tensors": "0" * 32})):
        (tmp_path / "model.json").write_text(content)
        with pytest.raises(StoreError, match=r"model\.json"):
            zerolabel.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"model\.safetensors cannot be read"):
        zerolabel.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"model\.safetensors cannot be read"):
        zerolabel.load(tmp_path)


def test_other_weights_than_those_of_the_fit_are_refused(photos, tmp_path):
    model = zerolabel.fit(photos, method="kmeans", k=2, size=64, backbone="random-vitt16")
    model.save(tmp_path)
    facts = read(tmp_path, "model.json")
    assert len(facts["weights"]) == 64
    (tmp_path / "model.json").write_text(json.dumps({**facts, "weights": "0" * 64}))
    with pytest.raises(WeightsError, match="other weights"):
        zerolabel.load(tmp_path)


# --- odd data ------------------------------------------------------------------------------------


def test_odd_files_are_segmented_or_reported(tmp_path):
    photos = write_world(tmp_path / "photos", images=4)
    rng = np.random.default_rng(0)
    shapes = {
        "dot": (1, 1),
        "row": (1, 300),
        "column": (300, 1),
        "wide": (3, 9000),
        "flat": (40, 30),
    }
    for name, shape in shapes.items():
        pixels = np.full((*shape, 3), 90) if name == "flat" else rng.integers(0, 256, (*shape, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(photos / f"{name}.png")
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(
        photos / "turned.jpg", exif=exif
    )
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("no image")
    (photos / "dir.jpg").mkdir()
    Image.new("CMYK", (9, 8)).save(photos / "dir.jpg" / "x.jpg")
    Image.new("L", (9, 8)).save(photos / "ä 日本.PNG")
    run = zerolabel.segment(photos, tmp_path / "run", **FAST | {"report": True})
    assert run.failures.keys() == {"empty.jpg", "text.png"}
    assert read(run.path, "failures.json") == {
        "failures": [
            {"id": "empty.jpg", "reason": "the file is empty"},
            {"id": "text.png", "reason": run.failures["text.png"]},
        ]
    }
    for name, shape in shapes.items():
        assert read_mask(run.path / "masks" / f"{name}.png").shape == shape
    assert read_mask(run.path / "masks" / "turned.png").shape == (30, 20)
    assert read_mask(run.path / "masks" / "dir.jpg" / "x.png").shape == (8, 9)
    assert (run.path / "overlays" / "ä 日本.jpg").exists()
    assert run.images == 4 + len(shapes) + 3
    assert "empty.jpg" in (run.path / "report" / "index.html").read_text(encoding="utf-8")


def test_stems_that_collide_keep_their_suffix(tmp_path):
    photos = write_world(tmp_path / "photos", images=3)
    Image.open(photos / "world-000.png").save(photos / "world-000.jpg")
    run = zerolabel.segment(photos, tmp_path / "run", **FAST)
    names = {p.name for p in (run.path / "masks").iterdir()}
    assert names == {"world-000.jpg.png", "world-000.png.png", "world-001.png", "world-002.png"}
    assert {p.name for p in (run.path / "overlays").iterdir()} == {
        Path(name).with_suffix(".jpg").name for name in names
    }


@pytest.mark.parametrize("job", ["segment", "fit"])
def test_nothing_readable_fails_and_says_why(tmp_path, job):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "photos" / "b.jpg").write_text("text")
    options = {k: v for k, v in FAST.items() if k != "report"}
    with pytest.raises(DataError, match="could be read"):
        getattr(zerolabel, job)(tmp_path / "photos", out=tmp_path / "run", **options)
    entries = read(tmp_path / "run", "failures.json")["failures"]
    assert [entry["id"] for entry in entries] == ["a.jpg", "b.jpg"]
    assert entries[0]["reason"] == "the file is empty"
    assert read(tmp_path / "run", "run.json")["status"] == "started"
    write_world(tmp_path / "photos", images=3)  # and mended, the same folder serves
    getattr(zerolabel, job)(tmp_path / "photos", out=tmp_path / "run", **options)


def test_predicting_nothing_readable_fails_and_says_why(done, tmp_path):
    from zerolabel.jobs.predict import predict

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(DataError, match="None of the images"):
        predict(done.path, tmp_path / "photos", tmp_path / "run")
    assert read(tmp_path / "run", "failures.json")["failures"][0]["id"] == "a.jpg"


def test_failures_of_fit_are_kept(tmp_path):
    photos = write_world(tmp_path / "photos", images=4)
    (photos / "empty.jpg").touch()
    for _ in range(2):  # also when everything was done before
        model = zerolabel.fit(photos, out=tmp_path / "run", method="kmeans", k=2, size=64)
        assert model.failures == {"empty.jpg": "the file is empty"}
        assert len(read(tmp_path / "run", "failures.json")["failures"]) == 1


def test_fit_segments_nothing(tmp_path, monkeypatch):
    write_world(tmp_path / "photos", images=5)
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    monkeypatch.setattr(find("kmeans"), "evidence", lambda *_, **__: pytest.fail("predicted"))
    model = zerolabel.fit(tmp_path / "photos", method="kmeans", k=2, size=64)
    assert list(model.failures) == ["bad.png"]


@pytest.mark.parametrize("images", [1, 4, 5])
def test_few_images_make_auto_k_a_guess(tmp_path, images):
    photos = write_world(tmp_path / "photos", images=images)
    options = FAST | {"method": "datus", "k": "auto"}
    run = zerolabel.segment(photos, tmp_path / "run", **options)
    guess = [note for note in run.notes if "is a guess" in note]
    assert len(guess) == (images < 5)
    assert guess == [note for note in read(run.path, "run.json")["notes"] if "guess" in note]
    assert zerolabel.load(run.path).method.notes == run.notes
    fixed = zerolabel.segment(photos, tmp_path / "fixed", **options | {"k": 2})
    assert not [note for note in fixed.notes if "guess" in note]


def test_one_file_is_enough(tmp_path, photos):
    run = zerolabel.segment(photos / "world-000.png", tmp_path / "run", **FAST)
    assert (run.images, run.data) == (1, "one file")
    assert (run.path / "masks" / "world-000.png").exists()


def test_more_categories_than_a_byte_holds(tmp_path, photos):
    run = zerolabel.segment(photos, tmp_path / "run", **FAST | {"k": 300})
    with Image.open(run.path / "masks" / "world-000.png") as mask:
        assert mask.mode == "I;16"
    model = zerolabel.load(run.path)
    expected = read_mask(run.path / "masks" / "world-000.png")
    np.testing.assert_array_equal(model.predict(photos / "world-000.png").label_map, expected)
    assert len(read(run.path, "categories.json")["categories"]) == 300


def test_pixels_without_a_category_count_in_the_area(tmp_path, photos):
    run = zerolabel.segment(
        photos, tmp_path / "run", **FAST | {"method": "datus", "preset": "paper", "minimum": 30}
    )
    masks = [read_mask(p) for p in (run.path / "masks").iterdir()]
    covered = np.mean([(mask != 255).mean() for mask in masks])
    assert covered < 1
    assert sum(c.pixel_share for c in run.categories) == pytest.approx(covered)


# --- where it is written -------------------------------------------------------------------------


def test_a_run_inside_the_photos_is_no_data(tmp_path):
    photos = write_world(tmp_path / "photos", images=3)
    for _ in range(2):
        run = zerolabel.segment(photos, photos / "run", **FAST | {"report": True})
        assert run.images == 3
    assert zerolabel.segment(photos, photos / "second", **FAST | {"k": 2}).images == 3


def test_photos_are_never_overwritten(tmp_path, monkeypatch):
    photos = write_world(tmp_path / "set" / "masks", images=3)
    before = {p.name: p.read_bytes() for p in photos.iterdir()}
    with pytest.raises(UsageError, match="folder of the images itself"):
        zerolabel.segment(photos, photos, **FAST)
    monkeypatch.chdir(photos)
    with pytest.raises(UsageError, match="folder of the images itself"):
        zerolabel.segment(photos, ".", **FAST)
    with pytest.raises(StoreError, match="files that are no run of zerolabel"):
        zerolabel.segment(photos, tmp_path / "set", **FAST)  # its masks/ would be written to
    assert {p.name: p.read_bytes() for p in photos.iterdir()} == before


def test_a_voc_like_layout_with_a_split(tmp_path):
    from zerolabel.jobs.predict import predict

    root = tmp_path / "VOCdevkit" / "VOC2012"
    listing = root / "ImageSets" / "Segmentation"
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    listing.mkdir(parents=True)
    samples = world(3, images=8, size=(48, 64), per_image=3)
    for sample in samples:
        stem = Path(sample.id).stem
        Image.fromarray(sample.load()).save(root / "JPEGImages" / f"{stem}.jpg", quality=95)
        Image.fromarray(sample.load_label()).save(root / "SegmentationClass" / f"{stem}.png")
    stems = [Path(sample.id).stem for sample in samples]
    (listing / "train.txt").write_text("\n".join(stems[:6]))
    (listing / "val.txt").write_text("\n".join(stems[6:]))

    options = {k: v for k, v in FAST.items() if k != "report"}
    zerolabel.fit(tmp_path, out=tmp_path / "fit", split="train", **options)
    run = predict(tmp_path / "fit", tmp_path, tmp_path / "run", split="val", report=False)
    assert sorted(p.stem for p in (run.path / "masks").iterdir()) == stems[6:]
    assert run.data == "voc, split val"
    result = zerolabel.evaluate(run.path, tmp_path, split="val")
    assert (result["images"], result["split"]) == (2, "val")
    assert result["pixel_accuracy"] > 0.8
    with pytest.raises(UsageError, match="Unknown split 'vall'"):
        zerolabel.segment(tmp_path, tmp_path / "x", split="vall", **FAST)
    with pytest.raises(UsageError, match="plain folder"):
        zerolabel.segment(root / "JPEGImages", tmp_path / "x", split="val", **FAST)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_passes_the_checks(method):
    for preset in find(method).PRESETS:
        build(method, load_backbone(backbone_of(method)), preset=preset)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"k": 0}, "k must be auto or a whole number"),
        ({"k": "many"}, "k must be auto or a whole number"),
        ({"k": 3.5}, "k must be"),
        ({"k": 70_000}, "k must be auto or a whole number"),
        ({"seed": -1}, "seed must be in 0"),
        ({"restarts": 0}, "restarts must be 1 or more"),
        ({"sharpness": 0.0}, "sharpness must be above 0"),
        ({"sharpness": "nan"}, "sharpness must be"),
        ({"size": 7}, "filterbank needs at least 8 pixels"),
        ({"size": "64x4"}, "size is 64x4"),
        ({"size": 100_000}, "give 4096 or less"),
        ({"refine": "guidet"}, "Did you mean 'guided'"),
        ({"categorise": "kmean"}, "Did you mean 'kmeans'"),
        ({"sise": 64}, "Did you mean 'size'"),
        ({"method": "k-means"}, "Did you mean 'kmeans'"),
        ({"preset": "protokol"}, "Did you mean 'protocol'"),
        ({"backbone": "dino-vits14"}, "Did you mean 'dino"),
        ({"device": "gpu"}, "Unknown device"),
        ({"method": "datus", "describe": "crop"}, "Did you mean 'crop-cls'"),
        ({"method": "datus", "discover": "louvin"}, "Did you mean 'louvain'"),
        ({"method": "datus", "size": 2048}, "give 1024 or less"),
        ({"method": "acseg", "background": "atention"}, "Did you mean 'attention'"),
        ({"method": "acseg", "attention_heads": 7}, "expected a multiple of 7"),
        ({"method": "acseg", "iterations": 0}, "iterations must be 1 or more"),
        ({"method": "acseg", "background": "border", "k": 1}, "give --k 2"),
        ({"method": "acseg", "describe": "concept", "discover": "louvain"}, "come from concepts"),
    ],
    ids=str,
)
def test_wrong_settings_fail_before_anything_is_made(photos, tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        zerolabel.segment(photos, tmp_path / "run", **{"method": "kmeans", **settings})
    assert not (tmp_path / "run").exists()


def test_more_categories_than_regions_say_so_and_the_folder_stays_usable(photos, tmp_path):
    options = FAST | {"method": "datus"}
    with pytest.raises(UsageError, match="5000 categories were asked for, but only"):
        zerolabel.segment(photos, tmp_path / "run", **options | {"k": 5000})
    run = zerolabel.segment(photos, tmp_path / "run", **options)
    assert len(run.categories) == 3


def test_the_public_names():
    assert zerolabel.list_methods() == sorted(METHODS)
    assert "filterbank" in zerolabel.list_backbones()
    for name in zerolabel.__all__:
        assert name in dir(zerolabel)
        assert callable(getattr(zerolabel, name))
    with pytest.raises(AttributeError, match="no attribute 'segmentation'"):
        _ = zerolabel.segmentation


def test_progress_counts_every_image_of_every_stage(photos, tmp_path):
    said = []
    zerolabel.segment(photos, tmp_path / "run", **FAST, progress=lambda *words: said.append(words))
    works = list(dict.fromkeys(work for work, _, _ in said))
    assert works == ["read", "learn", "encode", "masks"]
    for work in works:
        steps = [done for name, done, _ in said if name == work]
        assert {total for name, _, total in said if name == work} == {IMAGES}
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == (0, IMAGES)
        assert steps.count(IMAGES) == 1
    assert len([1 for name, *_ in said if name == "masks"]) > IMAGES


def test_the_size_is_rounded_down_to_whole_patches():
    backbone = load_backbone("filterbank")
    for size, whole in ((227, (224, 224)), ("64x71", (64, 64)), (8, (8, 8))):
        assert build("kmeans", backbone, settings={"size": size}).config.size == whole


# --- real photos ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="ZEROLABEL_DATA is not set")
def test_real_photos(tmp_path):
    jpegs = Path(DATA, "voc", "VOCdevkit", "VOC2012", "JPEGImages")
    (tmp_path / "photos").mkdir()
    for path in sorted(jpegs.iterdir())[:6]:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    run = zerolabel.segment(tmp_path / "photos", tmp_path / "run")
    assert (run.images, run.failures) == (6, {})
    model = zerolabel.load(run.path)
    for path in (tmp_path / "photos").iterdir():
        expected = read_mask(run.path / "masks" / f"{path.stem}.png")
        assert expected.shape == np.asarray(Image.open(path)).shape[:2]
        np.testing.assert_array_equal(model.predict(path).label_map, expected)
