"""`zerolabel name` as it is typed."""

import json
import shutil
from functools import partial

import pytest
from speaking import Speaking, write_colours

import zerolabel
from zerolabel import backbones

pytestmark = pytest.mark.usefixtures("small_worlds")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A labelled data set, and a run on it."""
    folder = tmp_path_factory.mktemp("place")
    write_colours(folder / "data", images=4)
    options = {"method": "kmeans", "k": 3, "size": 64, "backbone": "filterbank"}
    zerolabel.segment(folder / "data", folder / "run", overlays=False, **options)
    return folder


@pytest.fixture
def run(typed, place, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda *_, **__: Speaking())
    shutil.copytree(place / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)

    return partial(typed, "name", "run")


def names(folder):
    content = json.loads((folder / "run/categories.json").read_text())
    return [entry["name"] for entry in content["categories"]]


def test_a_vocabulary(run, tmp_path):
    code, out, err = run("--vocabulary", "red, green, blue, pink", "--templates", "imagenet")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split() == ["id", "share", "name", "score", "margin", "next"]
    assert [line.split()[2] for line in lines[:3]] == ["red", *sorted_by_share(tmp_path)[1:]]
    assert sorted(names(tmp_path)) == ["blue", "green", "red"]
    assert "pink 0." in lines[0]
    assert lines[3] == "written: run/categories.json"
    assert lines[5] == "written: run/report/index.html"
    assert "look: " in err
    assert "words: 4 in" in err


def sorted_by_share(folder):
    content = json.loads((folder / "run/categories.json").read_text())
    return [e["name"] for e in sorted(content["categories"], key=lambda e: -e["pixel_share"])]


def test_words_in_a_file(run, tmp_path):
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")
    code, _, _ = run("--vocabulary", "words.txt", "--unique", "--images", "2", "--size", "32x48")
    assert code == 0
    assert sorted(names(tmp_path)) == ["blue", "green", "red"]


def test_by_hand_and_back(run, tmp_path):
    assert run("--write-csv", "names.csv") == (0, "written: names.csv\n", "")
    text = (tmp_path / "names.csv").read_text().replace("0,category 0", "0,sky")
    (tmp_path / "names.csv").write_text(text)
    code, out, _ = run("--csv", "names.csv")
    assert code == 0
    assert names(tmp_path) == ["sky", "category 1", "category 2"]
    assert "sky" in out
    assert run("--reset")[0] == 0
    assert names(tmp_path) == ["category 0", "category 1", "category 2"]


def test_truth(run, place, tmp_path):
    code, out, _ = run("--truth", "--data", place / "data", "--unique")
    assert code == 0
    assert sorted(names(tmp_path)) == ["blue", "green", "red"]
    assert "note" not in out


def test_mistakes_are_explained(run, tmp_path):
    (tmp_path / "bad.csv").write_text("id,name\n9,x\n")
    for words, code, said in (
        ((), 2, "Expected one of --vocabulary, --csv, --truth, --write-csv, --reset"),
        (("--truth", "--reset"), 2, "Give exactly one"),
        (("--csv", "bad.csv"), 2, "bad.csv, line 2: expected the id"),
        (("--csv", "none.csv"), 2, "does not exist"),
        (("--reset", "--backbone", "clip-vitb16"), 2, "--backbone goes with --vocabulary"),
        (("--vocabulary", "a", "--images", "0"), 2, "--images"),
        (("--vocabulary", "none.txt"), 2, "none.txt is not a file"),
        (("--truth", "--space", "voc99"), 2, "voc99"),
    ):
        found, _, err = run(*words)
        assert found == code, err
        assert said in err


def test_help_names_every_option(run):
    code, out, _ = run("--help")
    assert code == 0
    for word in ("--vocabulary", "--csv", "--truth", "--write-csv", "--reset", "--unique"):
        assert word in out
    for word in ("--data", "--split", "--space", "--backbone", "--templates", "--images"):
        assert word in out
