"""Class words as they are typed."""

import json
from functools import partial

import pytest
from PIL import Image
from planted_clip import planted_clip, planted_photos

from zerolabel import backbones

TINY = ("--method", "reclip++", "--set", "short=64", "--set", "crop=64", "--set", "crop_size=32")


@pytest.fixture
def run(typed, tmp_path, monkeypatch):
    for sample in planted_photos(4, size=(64, 96)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(sample.load()).save(tmp_path / "photos" / sample.id)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backbones, "load", lambda *_, **__: planted_clip())

    return partial(typed, "segment", "photos", "--out", "run", "--no-report")


def names(tmp_path):
    entries = json.loads((tmp_path / "run/categories.json").read_text())["categories"]
    return [entry["name"] for entry in entries]


def test_words_in_masks_out(run, tmp_path):
    words = ("--classes", "sky, grass, earth: sand | brick", "--background", "snow, rust")
    code, out, _ = run(*TINY, *words, "--set", "steps=4")
    assert code == 0
    assert "4 images (a folder) in 4 categories" in out
    assert names(tmp_path) == ["background", "sky", "grass", "earth"]
    assert len(list((tmp_path / "run/masks").iterdir())) == 4


def test_words_out_of_a_file(run, tmp_path):
    (tmp_path / "words.txt").write_text("# what there is\nsky\ngrass\n\nsand\n", encoding="utf-8")
    code, *_ = run("--method", "maskclip", "--classes", "words.txt", "--set", "short=64")
    assert code == 0
    assert names(tmp_path) == ["sky", "grass", "sand"]
    (tmp_path / "words.txt").write_text("sky\nrust\n", encoding="utf-8")
    code, _, err = run("--method", "maskclip", "--classes", "words.txt", "--set", "short=64")
    assert code == 1  # the same name, but other words: not the same run
    assert "classes" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "kmeans", "--classes", "sky"], "zerolabel name"),
        (["--method", "maskclip", "--classes", "sky, Sky"], "twice"),
        (["--method", "maskclip", "--classes", "sky", "--k", "3"], "no k"),
        (["--method", "reclip++", "--classes", "sky"], "two words"),
        (["--method", "maskclip", "--classes", "wrods.txt"], "wrods.txt is not a file"),
        (["--method", "maskclip"], "--classes"),
    ],
)
def test_wrong_words_are_wrong_usage(run, tmp_path, arguments, words):
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
    assert not (tmp_path / "run/masks").exists()


def test_an_interrupted_run_of_another_method_leaves_no_backbone_behind(run, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    job = {"method": "kmeans", "backbone": "filterbank"}
    (tmp_path / "run/run.json").write_text(json.dumps({"status": "started", "job": job}))
    asked = []
    monkeypatch.setattr(backbones, "load", lambda name, **_: asked.append(name) or planted_clip())
    code, *_ = run("--method", "maskclip", "--classes", "sky, grass", "--set", "short=64")
    assert code == 0
    assert asked == ["clip-vitb16"]
