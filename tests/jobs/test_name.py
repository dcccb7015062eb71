"""Names for the categories of a run: the right ones, in every file, and they stay."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from scored_runs import PREDICTED, write_data, write_run
from speaking import Speaking, truth, write_colours

import zerolabel
from zerolabel import backbones
from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.data.words import parse_words
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.compare import compare
from zerolabel.jobs.explain import explain
from zerolabel.jobs.naming.vocabulary import _choose
from zerolabel.jobs.predict import predict as predict_job
from zerolabel.outputs.masks import read_mask
from zerolabel.store import Store

pytestmark = pytest.mark.usefixtures("small_worlds")
OPTIONS = {"method": "kmeans", "k": 3, "size": 64, "backbone": "filterbank"}
WORDS = "pink, blue, yellow, green, red"
CLASSES = ("red", "green", "blue")
FILES = ("categories.json", "model.json", "report/index.html")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A labelled data set, and a run on it."""
    folder = tmp_path_factory.mktemp("place")
    write_colours(folder / "data")
    for _ in range(2):  # the second time everything is done, and times no longer change
        zerolabel.segment(folder / "data", folder / "run", overlays=False, **OPTIONS)
    return folder


@pytest.fixture
def run(place, tmp_path):
    return shutil.copytree(place / "run", tmp_path / "run")


@pytest.fixture
def clip(monkeypatch):
    """Whatever backbone is asked for by `name` reads colours; runs load theirs."""
    load, backbone = backbones.load, Speaking()

    def loaded(name, *, weights=None, device="auto"):
        if not name.startswith("clip-"):
            return load(name, weights=weights, device=device)
        return backbone

    monkeypatch.setattr(backbones, "load", loaded)
    return backbone


def again(place, run):
    zerolabel.segment(place / "data", run, overlays=False, **OPTIONS)


def listed(run, name="categories.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))["categories"]


def names(run, name="categories.json"):
    return [entry["name"] for entry in listed(run, name)]


def files(run):
    return {name: (run / name).read_bytes() for name in FILES}


def pixels(run):
    return {path.name: path.read_bytes() for path in (run / "masks").iterdir()}


def true_names(run):
    """The class of most pixels of each category, counted here."""
    counts = np.zeros((3, 3), int)
    for i in range(6):
        np.add.at(counts, (read_mask(run / "masks" / f"{i}.png"), truth(i)), 1)
    return [CLASSES[c] for c in counts.argmax(1)], (counts.max(1) / counts.sum(1)).tolist()


def table(run, *lines, head="id,name"):
    path = run / "typed.csv"
    path.write_text("\n".join([head, *lines]), encoding="utf-8")
    return path


# --- by a vocabulary -----------------------------------------------------------------------------


def test_categories_get_the_words_of_their_colours(run, clip):
    before, masks = listed(run), pixels(run)
    found = zerolabel.name(run, vocabulary=WORDS)
    right, _ = true_names(run)
    assert sorted(right) == sorted(CLASSES)
    assert [category.name for category in found.categories] == right
    assert names(run) == names(run, "model.json") == right
    for entry, old in zip(listed(run), before, strict=True):
        naming = entry.pop("naming")
        assert {**entry, "name": old["name"]} == old  # colours, shares, exemplars
        assert (naming["way"], naming["was"]) == ("vocabulary", old["name"])
        assert 0.8 < naming["score"] <= 1
        others = [score for _, score in naming["alternatives"]]
        assert naming["margin"] == pytest.approx(naming["score"] - others[0], abs=2e-4)
        assert others == sorted(others, reverse=True)
        words = [word for word, _ in naming["alternatives"]]
        assert sorted([entry["name"], *words]) == sorted(WORDS.split(", "))
    assert pixels(run) == masks
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "category 0" not in page
    assert page.count("<h3>red</h3>") == 1
    assert '<a href="#names">Names</a>' in page
    assert set(found.files) == {run / name for name in FILES}
    assert not found.notes


def test_a_named_run_is_a_model_with_names(run, place, clip):
    zerolabel.name(run, vocabulary=WORDS)
    result = zerolabel.load(run).predict(place / "data/images/1.png")
    called = np.array([category.name for category in result.categories])
    assert (called[result.label_map] == np.array(CLASSES)[truth(1)]).mean() > 0.9
    zerolabel.load(run).save(run / "copy")
    assert names(run / "copy", "model.json") == names(run)
    assert listed(run / "copy", "model.json") == listed(run, "model.json")


def test_nothing_is_encoded_twice(run, clip):
    zerolabel.name(run, vocabulary=WORDS)
    assert clip.seen == [6]  # every photo once, for all of its categories
    first, read = files(run), len(clip.read)
    zerolabel.name(run, vocabulary=WORDS)
    assert (clip.seen, len(clip.read)) == ([6], read)
    assert files(run) == first
    zerolabel.name(run, vocabulary="grey", templates="plain")
    assert clip.seen == [6]
    assert clip.read[read:] == ["a photo of a grey."]


def test_one_word_for_all_and_numbers_by_size(run, clip):
    found = zerolabel.name(run, vocabulary="red | green, blue", images=2, size=(32, 48))
    assert sum(clip.seen) <= 6
    right, _ = true_names(run)
    assert [category.name for category in found.categories] == right  # the best word of a class
    found = zerolabel.name(run, vocabulary="colour")
    order = sorted(found.categories, key=lambda category: -category.pixel_share)
    assert [category.name for category in order] == ["colour", "colour 2", "colour 3"]
    assert {category.naming.margin for category in order} == {None}


def test_each_class_once(run, clip):
    found = zerolabel.name(run, vocabulary="red, colour", unique=True)
    left = [category for category in found.categories if category.naming is None]
    assert len(left) == 1
    assert left[0].name == f"category {left[0].id}"
    assert sorted(c.name for c in found.categories if c.naming) == ["colour", "red"]
    right, _ = true_names(run)
    assert found.categories[right.index("red")].name == "red"
    assert found.notes == (f"no name was found for {left[0].name}",)
    other = next(c for c in found.categories if c.name == "colour")
    assert other.naming.alternatives[0][0] == "red"


def test_fewer_photos_than_exemplars(run, clip):
    zerolabel.name(run, vocabulary=WORDS, images=1)
    best = {entry["exemplars"][0] for entry in listed(run)}
    assert sum(clip.seen) == len(best) < 6
    assert names(run) == true_names(run)[0]


def test_more_photos_than_exemplars(run, clip):
    content = json.loads((run / "categories.json").read_text())
    for entry in content["categories"]:
        entry["exemplars"] = entry["exemplars"][:1]
    (run / "categories.json").write_text(json.dumps(content))
    told = []
    zerolabel.name(run, vocabulary=WORDS, images=1, progress=lambda *what: told.append(what))
    assert sum(clip.seen) <= 3
    assert {work for work, _, _ in told} == {"look", "words"}
    zerolabel.name(run, vocabulary=WORDS, images=4, progress=lambda *what: told.append(what))
    assert "search" in {work for work, _, _ in told}
    assert names(run) == true_names(run)[0]


def test_a_category_that_no_image_shows_keeps_its_number(run, clip):
    for name in ("categories.json", "model.json"):
        content = json.loads((run / name).read_text())
        extra = {"id": 3, "name": "category 3", "colour": [1, 2, 3], "exemplars": []}
        content["categories"].append({**content["categories"][0], **extra, "image_count": 0})
        (run / name).write_text(json.dumps(content))
    found = zerolabel.name(run, vocabulary=WORDS)
    assert names(run) == [*true_names(run)[0], "category 3"]
    assert found.notes == ("no name was found for category 3",)
    zerolabel.name(run, vocabulary=WORDS, unique=True)
    assert names(run) == [*true_names(run)[0], "category 3"]


def test_what_nothing_is_known_of_takes_no_class():
    """Though a score of 0 would be better than the others'."""
    cosines = np.array([[-0.1], [0.0], [-0.2]])
    words = parse_words("cat")
    found = _choose(cosines, words, np.array([True, False, True]), unique=True)
    assert [choice and choice.word for choice in found] == ["cat", None, None]


def test_photos_are_looked_at_as_in_their_run(place, clip, tmp_path):
    out = tmp_path / "geometry"
    zerolabel.segment(place / "data", out, geometry="picie-320", report=False, **OPTIONS)
    assert not zerolabel.name(out, vocabulary=WORDS).notes
    assert sorted(names(out)) == sorted(CLASSES)
    plant("camvid", tmp_path / "camvid", images=2)
    out = tmp_path / "split"
    zerolabel.segment(tmp_path / "camvid", out, split="train", report=False, **OPTIONS)
    assert not zerolabel.name(out, vocabulary=WORDS).notes
    zerolabel.name(out, truth=True)
    classes = open_dataset(tmp_path / "camvid").classes
    assert {name.partition(" ")[0] for name in names(out)} <= set(classes)
    with pytest.raises(DataError, match="No photo has a mask"):
        zerolabel.name(out, vocabulary=WORDS, split="val")


def test_photos_that_are_gone_or_others(run, place, clip, tmp_path):
    moved = shutil.copytree(place / "data", tmp_path / "moved")
    Image.new("RGB", (96, 64)).save(moved / "images/0.png")
    (moved / "images/1.png").unlink()
    found = zerolabel.name(run, vocabulary=WORDS, data=moved)
    assert names(run) == true_names(run)[0]
    assert clip.seen == [4]
    [note] = found.notes
    assert note.startswith("could not be looked at: 0.png: is another photo than")
    shutil.rmtree(run / "cache")  # without the list of photos sizes must do
    Image.new("RGB", (9, 9)).save(moved / "images/0.png")
    found = zerolabel.name(run, vocabulary=WORDS, data=moved)
    assert found.notes == (note,)
    for i in range(2, 6):
        Image.new("RGB", (9, 9)).save(moved / f"images/{i}.png")
    with pytest.raises(DataError, match=r"could be looked at \(5 x is another photo"):
        zerolabel.name(run, vocabulary=WORDS, data=moved)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "photos/zebra.png")
    with pytest.raises(DataError, match="No photo has a mask in .*found zebra.png"):
        zerolabel.name(run, vocabulary=WORDS, data=tmp_path / "photos")


def test_the_photos_of_a_run_that_are_not_there_any_more(run, clip):
    facts = json.loads((run / "run.json").read_text())
    facts["data_path"] = str(run / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="gone, which is not there any more. Give --data"):
        zerolabel.name(run, vocabulary=WORDS)
    with pytest.raises(DataError, match="gone, which is not there any more. Give --data"):
        explain(run, "1.png")
    del facts["data_path"]  # of an earlier version
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="does not say where its photos are. Give --data"):
        zerolabel.name(run, vocabulary=WORDS)
    with pytest.raises(UsageError, match=r"'1\.png' is no file.*does not say where its photos are"):
        explain(run, "1.png")


def test_a_backbone_without_words(run):
    with pytest.raises(UsageError, match="dense is needed"):
        zerolabel.name(run, vocabulary=WORDS, backbone="random-vitt8")
    assert names(run) == ["category 0", "category 1", "category 2"]


# --- by hand -------------------------------------------------------------------------------------


def test_a_table_to_edit_and_back(run, clip, tmp_path):
    zerolabel.name(run, vocabulary=WORDS)
    before, right = listed(run), true_names(run)[0]
    path = tmp_path / "names.csv"
    assert zerolabel.name(run, write_csv=path).files == (path,)
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    assert head == "id,name,share,images"
    assert [line.split(",")[:2] for line in lines] == [[str(k), right[k]] for k in range(3)]
    assert lines[0].endswith(f",{before[0]['pixel_share']:.4f},{before[0]['image_count']}")
    with pytest.raises(UsageError, match="names in it would be lost"):
        zerolabel.name(run, write_csv=path)
    zerolabel.name(run, csv=path)
    assert listed(run) == before  # what was not changed is still from the vocabulary
    path.write_text(path.read_text().replace(f"1,{right[1]},", '1,"Zebra,  größer",'))
    zerolabel.name(run, csv=path)
    assert names(run) == names(run, "model.json") == [right[0], "Zebra, größer", right[2]]
    assert listed(run)[1]["naming"] == {
        **{"way": "csv", "was": "category 1", "score": None, "margin": None, "alternatives": []}
    }
    assert listed(run)[0] == before[0]
    assert "Zebra, größer" in (run / "report/index.html").read_text(encoding="utf-8")


def test_names_may_be_swapped_and_spreadsheets_write_semicolons(run):
    zerolabel.name(run, csv=table(run, "0,category 1", "1,category 0"))
    assert names(run) == ["category 1", "category 0", "category 2"]
    path = table(run, "1; a  tall tree ;x", "", ";;", "0;category 0;", head="\ufeffID;Name;share")
    zerolabel.name(run, csv=path)
    assert names(run) == ["category 0", "a tall tree", "category 2"]
    assert "naming" not in listed(run)[0]  # its number again


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["0,tree", "7,x"], r"line 3: expected the id of a category, 0 to 2, found '7'"),
        (["-1,tree"], "line 2: expected the id of a category, 0 to 2, found '-1'"),
        (["0,"], "line 2: category 0 has an empty name"),
        (["0"], "line 2: category 0 has an empty name"),
        (["0,tree", "0,bush"], "line 3: category 0 has a name already, in line 2"),
        (["0,tree", "", "2,tree"], "line 4: the name 'tree' is that which line 2 gives"),
        (["2,category 1"], "line 2: the name 'category 1' is that which category 1 has"),
    ],
)
def test_lines_that_cannot_be(run, lines, said):
    before = files(run)
    with pytest.raises(UsageError, match=said):
        zerolabel.name(run, csv=table(run, *lines))
    assert files(run) == before


def test_tables_that_cannot_be(run):
    with pytest.raises(UsageError, match="line 1: expected the columns id and name, found a, name"):
        zerolabel.name(run, csv=table(run, "0,x", head="a,name"))
    with pytest.raises(UsageError, match="found nothing"):
        zerolabel.name(run, csv=table(run, head=""))
    (run / "typed.csv").write_bytes(b"id,name\n0,gr\xfcn\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        zerolabel.name(run, csv=run / "typed.csv")
    with pytest.raises(StoreError, match="cannot be read"):
        zerolabel.name(run, csv=run / "nothing.csv")


# --- by ground truth -----------------------------------------------------------------------------


def test_truth_names_by_the_pixels(run, place):
    found = zerolabel.name(run, truth=True)
    right, shares = true_names(run)
    assert names(run) == right
    assert [c.naming.score for c in found.categories] == pytest.approx(shares, abs=1e-4)
    assert {c.naming.way for c in found.categories} == {"truth"}
    for category in found.categories:
        assert all(0 < share < 1 for _, share in category.naming.alternatives)
    same = listed(run)
    zerolabel.name(run, truth=True, data=place / "data", unique=True)
    assert names(run) == right
    zerolabel.name(run, truth=True, data=place / "data", split="all")
    assert listed(run) == same


def test_truth_on_masks_made_elsewhere(tmp_path):
    """Pixels by hand: categories 0, 1, 2 are dogs, background and cats; 3 has no labels."""
    data = write_data(tmp_path / "data")
    run = write_run(tmp_path / "run", PREDICTED, categories=4)
    found = zerolabel.name(run, truth=True, data=data)
    assert names(run) == ["dog", "background", "cat", "category 3"]
    assert found.notes == ("no name was found for category 3",)
    assert found.files == (run / "categories.json",)  # neither model nor report
    assert found.categories[0].naming.score == pytest.approx(5 / 6, abs=1e-4)
    assert found.categories[0].naming.alternatives == (("background", pytest.approx(0.1667)),)
    with pytest.raises(UsageError, match="does not say where its photos are"):
        zerolabel.name(run, truth=True)


def test_truth_with_more_categories_than_classes(tmp_path):
    data = write_data(tmp_path / "data")
    halves = {name: np.array(mask) for name, mask in PREDICTED.items()}
    halves["a"][0, :2] = 3  # a part of the background
    run = write_run(tmp_path / "run", halves, categories=4)
    zerolabel.name(run, truth=True, data=data)
    assert names(run) == ["dog", "background", "cat", "background 2"]
    zerolabel.name(run, truth=True, data=data, unique=True)
    assert names(run) == ["dog", "background", "cat", "category 3"]


def test_truth_through_a_geometry(place, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(place / "data", out, geometry="picie-320", report=False, **OPTIONS)
    zerolabel.name(out, truth=True)
    assert sorted(names(out)) == sorted(CLASSES)


# --- names stay ----------------------------------------------------------------------------------


def test_names_survive_the_run_being_made_again(run, place, clip):
    before = files(run)
    zerolabel.name(run, vocabulary=WORDS)
    zerolabel.name(run, csv=table(run, '0,<b> & "sky"'))
    named = files(run)
    again(place, run)
    assert files(run) == named  # the rewritten report is the one that is drawn with these names
    (run / "masks/1.png").unlink()
    shutil.rmtree(run / "report")
    again(place, run)
    assert names(run)[0] == '<b> & "sky"'
    assert listed(run) == json.loads(named["categories.json"])["categories"]
    zerolabel.name(run, reset=True)
    for name in FILES[:2]:
        assert (run / name).read_bytes() == before[name]
    again(place, run)
    assert names(run) == ["category 0", "category 1", "category 2"]


def test_reset_gives_the_very_files_back(run, clip):
    before = files(run)
    zerolabel.name(run, vocabulary=WORDS)
    zerolabel.name(run, truth=True)
    assert files(run) != before
    zerolabel.name(run, reset=True)
    assert files(run) == before


def test_names_go_with_predict_and_old_predictions_stay_valid(run, place, clip, tmp_path):
    new = tmp_path / "new"

    def predict():
        found = predict_job(run, place / "data", new, overlays=False, report=False)
        return found.images, names(new)

    assert predict() == (6, ["category 0", "category 1", "category 2"])
    zerolabel.name(run, vocabulary=WORDS)
    assert predict() == (6, true_names(run)[0])  # the same run, not refused
    assert listed(new)[0]["naming"] == listed(run)[0]["naming"]
    zerolabel.name(new, csv=table(new, "0,mine"))
    assert predict()[1][0] == "mine"
    assert names(run) == true_names(run)[0]
    zerolabel.name(new, reset=True)
    assert names(new) == ["category 0", "category 1", "category 2"]
    zerolabel.name(run, csv=table(run, "0,theirs"))
    assert predict()[1][0] == "theirs"


def test_interrupted_naming_is_mended_by_another(run, clip):
    before = files(run)
    zerolabel.name(run, vocabulary=WORDS)
    done = files(run)
    for name, content in before.items():
        (run / name).write_bytes(content)
    for writes in range(3):
        left = [writes]

        def replace(*paths, own=os.replace, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            own(*paths)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                zerolabel.name(run, vocabulary=WORDS)
        assert [files(run)[name] == done[name] for name in FILES] == [
            place < writes for place in range(3)
        ]
        zerolabel.load(run)  # the pair is one
    zerolabel.name(run, vocabulary=WORDS)
    assert files(run) == done


def test_runs_without_a_report_get_none(run, clip):
    shutil.rmtree(run / "report")
    assert zerolabel.name(run, vocabulary=WORDS).files == (
        run / "categories.json",
        run / "model.json",
    )
    assert not (run / "report").exists()


# --- other commands ------------------------------------------------------------------------------


def test_evaluate_and_compare_take_named_runs(run, place, clip, tmp_path):
    plain = zerolabel.evaluate(place / "run", place / "data")
    zerolabel.name(run, vocabulary=WORDS)
    named = zerolabel.evaluate(run, place / "data")
    assert named["miou"] == plain["miou"] > 0.8
    assert [entry["name"] for entry in named["matching"]] == true_names(run)[0]
    result = compare([place / "run", run], tmp_path / "out", data=[place / "data"])
    assert (tmp_path / "out/index.html").exists()
    assert {row.label for row in result.table.rows}


def test_runs_of_one_model_are_one_after_naming(tmp_path):
    """Clusters are matched on another run of the model, whatever either calls them."""
    plant("camvid", tmp_path / "data", images=2)
    runs = []
    for split in ("val", "train"):
        samples = open_dataset(tmp_path / "data", split=split).samples
        masks = {sample.id.rpartition(".")[0]: sample.load_label() for sample in samples}
        runs.append(write_run(tmp_path / split, masks, categories=11))
        (runs[-1] / "model.json").write_text(json.dumps({"tensors": "x", "categories": []}))
    zerolabel.name(runs[0], csv=table(runs[0], "0,dog"))
    asked = {"protocol": "full-train", "matching_run": runs[1]}
    assert zerolabel.evaluate(runs[0], tmp_path / "data", **asked)["pixel_accuracy"] == 1
    for run in runs:  # nothing but names says that they are of one model
        (run / "model.json").unlink()
    with pytest.raises(UsageError, match="is not of the same model"):
        zerolabel.evaluate(runs[0], tmp_path / "data", **asked)


def test_explain_finds_the_images_of_a_run_by_itself(run, place, tmp_path):
    found = explain(run, "1.png", tmp_path / "a")
    same = explain(run, place / "data/images/1.png", tmp_path / "b")
    assert found.facts == same.facts
    with pytest.raises(UsageError, match=r"neither a file nor an image of .*Did you mean '1\.png'"):
        explain(run, "1.pgn")


# --- what is refused -----------------------------------------------------------------------------


def test_exactly_one_way_with_its_own_options(run):
    for asked, said in (
        ({}, "Expected one of --vocabulary, --csv.*found none of them"),
        ({"truth": True, "vocabulary": "x"}, "found --vocabulary and --truth. Give exactly one"),
        ({"csv": "x", "reset": True}, "Give exactly one"),
        (
            {"csv": "x", "unique": True},
            "--unique goes with --vocabulary or --truth, not with --csv",
        ),
        ({"truth": True, "images": 3}, "--images goes with --vocabulary, not with --truth"),
        ({"reset": True, "data": "x"}, "--data goes with --vocabulary or --truth"),
        ({"vocabulary": "x", "images": -1}, "--images must be 1 or more"),
        ({"vocabulary": "x", "templates": "most"}, "set of templates 'most'"),
        ({"vocabulary": " , "}, "No class"),
    ):
        with pytest.raises(UsageError, match=said):
            zerolabel.name(run, **asked)


def test_what_is_no_finished_run(run, place, tmp_path):
    with pytest.raises(StoreError, match="is no finished run: expected masks and categories.json"):
        zerolabel.name(tmp_path, truth=True)
    assert not (tmp_path / ".lock").exists()
    shutil.copytree(run, tmp_path / "model")
    (tmp_path / "model/categories.json").unlink()
    with pytest.raises(StoreError, match="holds a model and no masks. Make a run of it"):
        zerolabel.name(tmp_path / "model", truth=True)
    levels = {"zerolabel": "1", "job": {"command": "granularity"}, "levels": [{"folder": "k3"}]}
    (tmp_path / "run.json").write_text(json.dumps(levels))
    with pytest.raises(StoreError, match=r"is a folder of granularity, not one run. Name .*k3\."):
        zerolabel.name(tmp_path, truth=True)
    with Store(run).lock(), pytest.raises(StoreError, match="Another job is working"):
        zerolabel.name(run, truth=True)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"status": "started"}))
    with pytest.raises(StoreError, match="is not finished. Run the command that began it again"):
        zerolabel.name(run, truth=True)
    (run / "run.json").write_text(json.dumps(facts))
    (run / "categories.json").write_text('{"categories": []}')
    with pytest.raises(StoreError, match="does not list the categories"):
        zerolabel.name(run, truth=True)
