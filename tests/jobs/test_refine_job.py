"""Refining a run: what the student learns, what is written, what is counted, what is refused."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from scored_runs import save

import zerolabel
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs import fit as fit_job
from zerolabel.jobs.compare import compare
from zerolabel.jobs.explain import explain
from zerolabel.jobs.predict import predict
from zerolabel.jobs.refine import refine
from zerolabel.jobs.refining.initial import open_initial
from zerolabel.jobs.refining.students import STUDENTS, USUAL
from zerolabel.methods import METHODS, SUPERVISED, find
from zerolabel.methods.configs import configure
from zerolabel.methods.unet import Unet
from zerolabel.outputs.masks import read_mask, write_mask
from zerolabel.store import Store
from zerolabel.types import IGNORE

pytestmark = pytest.mark.usefixtures("small_worlds")
IMAGES, SIZE = 18, (32, 48)  # two batches
CLASSES = ("ground", "square", "disc")
OPTIONS = {"method": "kmeans", "k": 3, "size": 48, "backbone": "filterbank", "report": False}
TINY = {"iterations": 2, "base": 4, "depth": 2, "size": "32x32"}
QUICK = {"student": "unet", "settings": TINY, "report": False, "overlays": False}
SAME = ("masks", "overlays", "categories.json", "failures.json", "model.json", "model.safetensors")


def write_data(root, images=IMAGES):
    """A labelled data set: images, masks, names of classes."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for sample in world(3, images=images, size=SIZE, per_image=3):
        Image.fromarray(sample.load()).save(root / "images" / sample.id)
        save(root / "masks" / sample.id, sample.load_label())
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def spoil(run, *, seed=0):
    """Let a twentieth of the pixels have any category, and three tiles of each mask none."""
    rng = np.random.default_rng(seed)
    colours = np.array([entry["colour"] for entry in listed(run)], np.uint8)
    for path in sorted((run / "masks").iterdir()):
        mask = read_mask(path)
        odd = rng.random(mask.shape) < 0.05
        mask[odd] = rng.integers(0, len(colours), odd.sum())
        for row, column in zip(rng.integers(0, 24, 3), rng.integers(0, 40, 3), strict=True):
            mask[row : row + 8, column : column + 8] = IGNORE
        write_mask(path, mask, colours=colours)


def read(run, name="run.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))


def listed(run, name="categories.json"):
    return read(run, name)["categories"]


def masks(run):
    return {path.name: read_mask(path) for path in sorted((run / "masks").iterdir())}


def contents(run):
    files = [p for name in SAME for p in (run / name, *(run / name).rglob("*")) if p.is_file()]
    return {p.relative_to(run): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rename(run, *names):
    with open(run / "typed.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "name"), *enumerate(names)])
    return zerolabel.name(run, csv=run / "typed.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A labelled data set, and a run on it: `clean`, and with planted noise `run`."""
    folder = tmp_path_factory.mktemp("place")
    zerolabel.segment(write_data(folder / "data"), folder / "clean", overlays=False, **OPTIONS)
    shutil.copytree(folder / "clean", folder / "run")
    spoil(folder / "run")
    entries = read(folder / "run", "categories.json")
    for entry in entries["categories"]:  # not the colours that the project would give
        entry["colour"] = [10 + 40 * entry["id"], 200, 90]
    (folder / "run/categories.json").write_text(json.dumps(entries))
    rename(folder / "run", "sky, blue", "<b> & Gras", "Straße")
    return folder


@pytest.fixture(scope="module")
def done(place):
    """The run, refined by a student that has learned something, inside the run itself."""
    out = place / "run" / "refined"
    settings = {"iterations": 60, "base": 8, "depth": 2, "size": "32x48"}
    return refine(place / "run", out, student="unet", settings=settings)


@pytest.fixture
def run(place, tmp_path):
    return shutil.copytree(
        place / "run", tmp_path / "run", ignore=shutil.ignore_patterns("refined")
    )


def quick(run, out, **more):
    return refine(run, out, **QUICK | more)


# --- what comes out ------------------------------------------------------------------------------


def test_a_student_undoes_noise_and_fills_what_had_no_category(place, done):
    clean, noisy, found = masks(place / "clean"), masks(place / "run"), masks(done.run.path)
    right = {
        name: np.mean([kind[mask] == clean[mask] for mask in clean])
        for name, kind in (("noisy", noisy), ("found", found))
    }
    assert right["noisy"] < 0.9
    assert right["found"] > right["noisy"] + 0.02
    assert all((mask != IGNORE).all() for mask in found.values())
    holes = {name: mask == IGNORE for name, mask in noisy.items()}
    filled = [(found[name] == clean[name])[holes[name]] for name in clean]
    assert np.concatenate(filled).mean() > 0.8


def test_it_is_a_run_with_the_categories_of_the_other(place, done):
    out = done.run.path
    before, after = listed(place / "run"), listed(out)
    for old, new in zip(before, after, strict=True):
        for key in ("id", "name", "colour", "naming"):
            assert new[key] == old[key]
    assert listed(out, "model.json") == after
    assert read(out, "model.json")["class_names"] == [entry["name"] for entry in before]
    found = masks(out)
    total = sum(mask.size for mask in found.values())
    for entry in after:
        pixels = sum((mask == entry["id"]).sum() for mask in found.values())
        assert entry["pixel_share"] == pytest.approx(pixels / total)
        assert entry["exemplars"]
    with Image.open(out / "masks/world-000.png") as mask:
        table = np.array(mask.getpalette()).reshape(-1, 3)
    assert table[:3].tolist() == [entry["colour"] for entry in after]
    assert len(list((out / "overlays").iterdir())) == IMAGES
    state = read(out)
    assert state["status"] == "done"
    assert state["job"]["method"] == "unet"
    assert state["data_path"] == read(place / "run")["data_path"]
    assert state["job"]["data"] == read(place / "run")["job"]["data"]
    assert read(out, "failures.json") == {"failures": []}
    assert done.run.notes == []


def test_what_changed_is_counted(place, done):
    """Counted here once more, pixel by pixel and piece by piece."""
    facts = read(done.run.path)["refined"]
    assert facts == json.loads(json.dumps(done.facts))
    assert facts["run"] == str(place / "run")
    assert (facts["student"], facts["photos"], facts["not_learned_from"]) == ("unet", IMAGES, {})
    before, after = masks(place / "run"), masks(done.run.path)
    pairs = [(before[name], after[name]) for name in before]
    total = sum(old.size for old, _ in pairs)
    assert facts["changed"] == sum((old != new).sum() for old, new in pairs) / total
    assert facts["none"] == sum((old == IGNORE).sum() for old, _ in pairs) / total
    assert facts["filled"] == facts["none"] > 0.05
    for entry in facts["categories"]:
        k = entry["id"]
        for when, place_in_pair in (("before", 0), ("after", 1)):
            own = [pair[place_in_pair] == k for pair in pairs]
            assert entry[f"share_{when}"] == sum(x.sum() for x in own) / total
            assert entry[f"pieces_{when}"] == sum(map(islands, own))
    assert facts["pieces_before"] > 2 * facts["pieces_after"]


def islands(mask):
    """Count connected pieces by walking over them."""
    left, count = {tuple(cell) for cell in np.argwhere(mask)}, 0
    while left:
        count += 1
        border = [left.pop()]
        while border:
            row, column = border.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border += near
    return count


def test_the_report_shows_before_and_after(done):
    page = done.run.report.read_text(encoding="utf-8")
    first = page.index("<h3>Before and after</h3>")
    numbers = page.index("<h3>What the student changed</h3>")
    assert first < numbers < page.index("<h3>Categories before and after</h3>")
    rows = page[first:numbers]
    assert rows.count('<article class="card row"') == 6
    assert rows.count("data:image/png") == 12
    assert rows.count("data:image/jpeg") == 12
    shares = [float(x.split(">")[-1]) for x in rows.split("% changed</span>")[:-1]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 6
    assert "no category</span>" in rows
    for part in (rows, page[page.index("<h3>Categories before and after</h3>") :]):
        assert "&lt;b&gt; &amp; Gras" in part
    facts = done.facts
    assert f"<dd>{facts['changed']:.1%}</dd>" in page
    assert f"<dd>{facts['pieces_before']:,}</dd>" in page


def test_no_true_label_is_read(place, tmp_path, monkeypatch):
    open_dataset = fit_job.open_dataset

    def never():
        raise AssertionError("ground truth was read")

    def guarded(*args, **options):
        dataset = open_dataset(*args, **options)
        kept = [dataclasses.replace(s, load_label=never) for s in dataset.samples]
        assert len(kept) == IMAGES
        return dataclasses.replace(dataset, samples=tuple(kept))

    monkeypatch.setattr(fit_job, "open_dataset", guarded)
    quick(place / "run", tmp_path / "out", report=True)
    for sample in open_initial(place / "run", None, None).samples:  # nor could it be
        assert (sample.load_label, sample.load_regions, sample.classes) == (None, None, ())


def test_every_command_takes_the_new_run(place, done, tmp_path):
    data, out = place / "data", done.run.path
    scores = {
        name: zerolabel.evaluate(path, data)["miou"]
        for name, path in (("before", place / "run"), ("after", out))
    }
    assert scores["after"] > scores["before"] + 0.02
    again = predict(out, data, tmp_path / "new", report=False, overlays=False)
    assert [c.name for c in again.categories] == [entry["name"] for entry in listed(out)]
    for name, mask in masks(tmp_path / "new").items():
        np.testing.assert_array_equal(mask, read_mask(out / "masks" / name))
    found = explain(out, "world-000.png", tmp_path / "page")
    assert "<b> & Gras" in json.dumps(found.facts, ensure_ascii=False)
    compare([place / "run", out], tmp_path / "compared", data=[data])
    twice = quick(out, tmp_path / "twice")
    assert twice.facts["run"] == str(out)


def test_it_can_be_named_and_the_report_follows(run, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):  # the second time everything is done, and times no longer change
        quick(run, out, report=True)
    rename(out, "one", "two", "three")
    renamed = (out / "report/index.html").read_bytes()
    assert b"Gras" not in renamed
    assert [c.name for c in quick(run, out, report=True).run.categories] == ["one", "two", "three"]
    assert (out / "report/index.html").read_bytes() == renamed  # as it is drawn anew
    zerolabel.name(out, reset=True)
    assert [entry["name"] for entry in listed(out)] == [f"category {k}" for k in range(3)]
    rename(run, "new", "names", "here")  # is no other job
    assert [c.name for c in quick(run, out).run.categories] == ["new", "names", "here"]
    assert read(out, "model.json")["class_names"] == ["new", "names", "here"]


# --- other runs ----------------------------------------------------------------------------------


def test_a_run_through_a_geometry_keeps_it(place, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("world-000.png", "world-001.png"):
        shutil.copy(place / "data/images" / name, photos)
    zerolabel.segment(photos, run, geometry="picie-320", **OPTIONS | {"backbone": "random-vitt16"})
    found = quick(run, out)
    assert found.facts["photos"] == 2
    assert {mask.shape for mask in masks(out).values()} == {(320, 320)}
    assert read(out)["job"]["geometry"] == "picie-320"
    assert read(out)["data"] == "a folder, through picie-320"


def test_runs_of_predict_and_of_words(place, tmp_path):
    data = place / "data"
    predict(place / "clean", data, tmp_path / "run", report=False, overlays=False)
    assert quick(tmp_path / "run", tmp_path / "out").facts["photos"] == IMAGES
    words = {"backbone": "random-clipt16", "classes": "cat, dog", "short": 32}
    worded = {"method": "maskclip", "templates": "plain", "report": False, "overlays": False}
    zerolabel.segment(data, tmp_path / "words", **words, **worded)
    found = quick(tmp_path / "words", tmp_path / "out2")
    assert [category.name for category in found.run.categories] == ["cat", "dog"]


def test_masks_made_elsewhere(place, tmp_path):
    """Of 16 bits, without a word on where they come from or what colours they have."""
    run, images = tmp_path / "run", place / "data/images"
    (run / "masks").mkdir(parents=True)
    for name, mask in masks(place / "clean").items():
        deep = mask.astype(np.uint16)
        deep[:4] = 65535
        Image.fromarray(deep).save(run / "masks" / name)
    entries = [{"id": k, "name": str(k)} for k in range(3)]
    (run / "categories.json").write_text(json.dumps({"categories": entries}))
    with pytest.raises(UsageError, match="does not say where its photos are. Give --data"):
        quick(run, tmp_path / "out")
    found = quick(run, tmp_path / "out", data=images, report=True)
    assert found.facts["none"] == pytest.approx(4 / 32)
    assert found.facts["filled"] == found.facts["none"]
    assert "of None" not in found.run.report.read_text(encoding="utf-8")


def test_a_transformer_may_be_the_student(place, tmp_path):
    settings = {"iterations": 2, "short": 32, "window": 32, "stride": 32, "crop": 32}
    asked = {"student": "segmenter", "backbone": "random-vitt8", "settings": settings}
    found = quick(place / "run", tmp_path / "out", **asked)
    assert read(tmp_path / "out")["job"]["backbone"] == "random-vitt8"
    assert len(found.run.categories) == 3
    predict(tmp_path / "out", place / "data", tmp_path / "new", report=False, overlays=False)


@pytest.mark.parametrize("student", ["light", "deeplabv3"])
def test_students_of_deeplab(place, tmp_path, student):
    settings = {"iterations": 2, "size": 32, "batch": 2}
    settings |= {"arch": "small"} if student == "deeplabv3" else {}
    found = quick(place / "run", tmp_path / "out", student=student, settings=settings, trust=0)
    assert found.facts["filled"] == found.facts["none"] > 0
    job = read(tmp_path / "out")["job"]
    assert (job["method"], job["config"]["network"]) == ("deeplab", student)
    predict(tmp_path / "out", place / "data", tmp_path / "new", report=False, overlays=False)
    for name, mask in masks(tmp_path / "new").items():
        np.testing.assert_array_equal(mask, read_mask(tmp_path / "out/masks" / name))


def test_the_old_masks_have_a_say(run, tmp_path):
    out = {trust: tmp_path / f"{trust}" for trust in (0, 0.9)}
    changed = {t: quick(run, path, trust=t).facts["changed"] for t, path in out.items()}
    assert changed[0.9] < 0.2 < changed[0]  # two steps teach a student nothing
    assert read(out[0.9])["refined"]["trust"] == 0.9
    states = [(path / "model.safetensors").read_bytes() for path in out.values()]
    assert states[0] == states[1]  # the student is what it was
    with pytest.raises(StoreError, match="trust"):
        quick(run, out[0], trust=0.9)


def test_students_are_methods_that_learn_from_labels():
    assert USUAL in STUDENTS
    for kind in STUDENTS.values():
        assert kind.method in SUPERVISED
        assert kind.preset in find(kind.method).PRESETS
        configure(find(kind.method).PRESETS, kind.preset, {"seed": 1})
    assert {kind.method for kind in STUDENTS.values()} == SUPERVISED <= set(METHODS)


# --- photos that are not learned from ------------------------------------------------------------


def test_photos_without_their_mask_are_segmented_and_not_learned_from(run, place, tmp_path):
    data = shutil.copytree(place / "data", tmp_path / "data")
    (run / "masks/world-001.png").unlink()
    (run / "masks/world-002.png").write_bytes(b"no PNG")
    Image.new("RGB", SIZE[::-1]).save(data / "images/world-003.png")
    Image.new("RGB", SIZE[::-1]).save(data / "images/new.png")
    (data / "images/world-004.png").write_bytes(b"no photo")
    found = quick(run, tmp_path / "out", data=data)
    out = {
        "new.png": "has no mask",
        "world-001.png": "has no mask",
        "world-002.png": "its mask cannot be read",
        "world-003.png": "is another photo than the one that its mask was made of",
    }
    assert found.facts["not_learned_from"] == out
    assert found.facts["photos"] == IMAGES - 4
    assert (found.run.images, list(found.run.failures)) == (IMAGES, ["world-004.png"])
    assert len(masks(tmp_path / "out")) == IMAGES
    [note] = [note for note in found.run.notes if note.startswith("segmented, but")]
    assert note.endswith("world-002.png (its mask cannot be read) and 1 more")
    again = quick(run, tmp_path / "out", data=data)
    assert again.run.notes == found.run.notes


def test_no_mask_to_learn_from(run, place, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    for path in (data / "images").iterdir():
        Image.new("RGB", SIZE[::-1]).save(path)
    with pytest.raises(DataError, match=r"None of the 18 photos .*18 x is another photo"):
        quick(run, tmp_path / "out", data=data)
    for path in (data / "images").iterdir():
        path.write_text("no photo")
    with pytest.raises(DataError, match="None of the 18 photos .*not an image"):
        quick(run, tmp_path / "out", data=data)
    assert len(read(tmp_path / "out", "failures.json")["failures"]) == IMAGES


# --- interrupted, and whose directory it is ------------------------------------------------------


class Killed(BaseException):
    """Like the end of the process: nothing in the program expects it."""


def limited(patch, writes):
    """Let so many files get their names."""
    left, replace = [writes], os.replace

    def counted(*paths):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(*paths)

    patch.setattr(os, "replace", counted)
    return left


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(run, tmp_path):
    many = 10**6
    with pytest.MonkeyPatch.context() as patch:
        left = limited(patch, many)
        quick(run, tmp_path / "whole")
    total, whole = many - left[0], contents(tmp_path / "whole")
    assert len(whole) == IMAGES + 4
    for writes in (0, 2, 4, 6, total // 2, total - 7, total - 1):
        out = tmp_path / f"run-{writes}"
        with pytest.MonkeyPatch.context() as patch:
            limited(patch, writes)
            with pytest.raises(Killed):
                quick(run, out)
        quick(run, out)
        assert contents(out) == whole, f"killed after {writes} of {total} writes"
        kept, right = read(out), read(tmp_path / "whole")
        assert {**kept["refined"]} == right["refined"]


def test_what_is_done_is_not_done_again(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    quick(run, out, report=True)
    before = contents(out)
    page = (out / "report/index.html").read_bytes()

    def never(*args, **options):
        raise AssertionError("it is done")

    monkeypatch.setattr(Unet, "fit", never)
    monkeypatch.setattr(Unet, "evidence", never)
    seconds = read(out)["seconds"]
    again = quick(run, out)
    assert contents(out) == before
    assert read(out)["seconds"] == seconds
    assert again.facts == read(out)["refined"]
    assert (out / "report/index.html").read_bytes() == page


def test_other_masks_settings_or_runs_are_refused(run, place, tmp_path):
    out = tmp_path / "out"
    quick(run, out)
    before = contents(out)
    with pytest.raises(StoreError, match="a run with initial masks .* instead of"):
        quick(place / "clean", out)
    with pytest.raises(StoreError, match="iterations 2 instead of 3"):
        quick(run, out, settings=TINY | {"iterations": 3})
    with pytest.raises(StoreError, match="method kmeans instead of unet"):
        quick(run, place / "clean")
    path = run / "masks/world-005.png"
    mask = read_mask(path)
    mask[0, 0] = (mask[0, 0] + 1) % 3
    Image.fromarray(mask).save(path)
    with pytest.raises(StoreError, match="initial masks"):
        quick(run, out)
    with Store(out).lock(), pytest.raises(StoreError, match="Another job is working"):
        quick(run, out)
    assert contents(out) == before


def test_students_of_other_masks_may_share_a_folder(place, run, tmp_path):
    """What is kept by its content there is not taken for that of another run."""
    found = [
        quick(one, tmp_path / name, shared=tmp_path / "shared")
        for name, one in (("a", place / "clean"), ("b", run))
    ]
    tensors = [read(done.run.path, "model.json")["tensors"] for done in found]
    assert tensors[0] != tensors[1]


def test_where_it_may_be_written(run, place, tmp_path):
    with pytest.raises(UsageError, match=r"is the run that is refined.*Choose another --out"):
        quick(run, run)
    with pytest.raises(UsageError, match="lies among the masks of the run"):
        quick(run, run / "masks" / "new")
    with pytest.raises(UsageError, match="is the folder of the images itself"):
        quick(run, place / "data")
    photos = shutil.copytree(place / "data/images", tmp_path / "photos")
    zerolabel.segment(photos, photos / "run", **OPTIONS)  # a run inside the photos
    assert quick(photos / "run", photos / "refined").run.images == IMAGES
    assert quick(photos / "run", photos / "run/refined").run.images == IMAGES


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"student": "ligth"}, "Unknown student 'ligth'. Did you mean 'light'"),
        ({"preset": "papr"}, "Unknown preset 'papr'"),
        ({"settings": {"iteration": 3}}, "Did you mean 'iterations'"),
        ({"settings": {"k": 5}}, "expected k=3, as .*, found k=5. Leave k out"),
        ({"settings": {"refine": "guidet"}}, "Did you mean 'guided'"),
        ({"split": "trian"}, "trian"),
        ({"trust": 1}, "from 0 .*to less than 1, found 1"),
        ({"trust": -0.1}, r"found -0\.1"),
        ({"trust": float("nan")}, "found nan"),
        ({"device": "gpu"}, "Unknown device"),
        ({"backbone": "embedded"}, "has no backbone; found embedded.*Leave --backbone"),
        ({"student": "light", "weights": "a.pt"}, r"found a\.pt.*--set start=FILE names weights"),
    ],
)
def test_wrong_words(run, tmp_path, asked, said):
    with pytest.raises(UsageError, match=said):
        quick(run, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_the_right_k_may_be_given_and_a_checkpoint_not(run, tmp_path):
    quick(run, tmp_path / "out", settings=TINY | {"k": "3"})
    asked = {"student": "segmenter", "backbone": "random-vitt8", "settings": {"checkpoint": "a.pt"}}
    with pytest.raises(UsageError, match=r"checkpoint=a\.pt, which is not trained any more"):
        quick(run, tmp_path / "other", **asked)


def test_what_is_no_run_with_masks(run, tmp_path):
    with pytest.raises(StoreError, match="is no finished run: expected masks"):
        quick(tmp_path, tmp_path / "out")
    state = read(run)
    (run / "run.json").write_text(json.dumps(state | {"status": "started"}))
    with pytest.raises(StoreError, match="is not finished. Run the command that began it again"):
        quick(run, tmp_path / "out")
    (run / "run.json").write_text(json.dumps(state))
    for path in (run / "masks").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"has no masks: expected one PNG .* found none"):
        quick(run, tmp_path / "out")
    (run / "categories.json").unlink()
    with pytest.raises(StoreError, match="holds a model and no masks. Make a run of it"):
        quick(run, tmp_path / "out")


def test_masks_that_do_not_fit(run, tmp_path):
    path = run / "masks/world-007.png"
    mask = read_mask(path)
    save(path, mask[:-1])
    with pytest.raises(
        DataError, match=r"world-007\.png has another size .* \(32, 48\), found \(31"
    ):
        quick(run, tmp_path / "out")
    mask[3, 3] = 7
    save(path, mask)
    with pytest.raises(DataError, match=r"expected 0-2, and 255 for no category, found 7"):
        quick(run, tmp_path / "out")
    mask[3, 3] = 2
    save(path, mask)
    quick(run, tmp_path / "out")  # what failed before had no results


def test_more_categories_than_labels_hold(run, tmp_path):
    entries = [{"id": k, "name": str(k)} for k in range(256)]
    (run / "categories.json").write_text(json.dumps({"categories": entries}))
    with pytest.raises(UsageError, match=r"has 256 categories, and a student .* at most 255"):
        quick(run, tmp_path / "out")


def test_photos_that_have_moved(run, place, tmp_path):
    state = read(run)
    (run / "run.json").write_text(json.dumps(state | {"data_path": str(tmp_path / "gone")}))
    with pytest.raises(DataError, match="which is not there any more. Give --data"):
        quick(run, tmp_path / "out")
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    found = quick(run, tmp_path / "out", data=moved)
    assert found.facts["photos"] == IMAGES
    assert read(tmp_path / "out")["data_path"] == str(moved)
    (tmp_path / "others").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "others/x.png")
    with pytest.raises(DataError, match="No photo has a mask in"):
        quick(run, tmp_path / "out2", data=tmp_path / "others")
