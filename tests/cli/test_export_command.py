"""`zerolabel export` as it is typed."""

import json
from functools import partial

import pytest
from exported import categories, noise, ring, write_exportable

from zerolabel.jobs.export import FORMATS

pytestmark = pytest.mark.usefixtures("small_worlds")


@pytest.fixture
def run(typed, tmp_path, monkeypatch):
    write_exportable(tmp_path, {"a.jpg": ring(), "b/c.jpg": noise(0, 4)}, categories())
    monkeypatch.chdir(tmp_path)

    return partial(typed, "export")


@pytest.mark.parametrize("way", FORMATS)
def test_every_format(run, tmp_path, way):
    code, out, err = run("run", "--format", way, "--out", "out")
    assert code == 0, err
    annotations = "" if way == "png" else ", 7 annotations"
    assert out == f"2 images{annotations}: out\n"
    assert err.startswith("export: 2 in ")
    assert (tmp_path / "out" / "labels.csv").exists()


def test_options(run, tmp_path):
    code, out, _ = run(
        "run", "--format", "coco", "--out", "out", "--parts", "--minimum", "3", "--data", "photos"
    )
    assert code == 0
    content = json.loads((tmp_path / "out" / "stuff.json").read_text("utf-8"))
    assert min(entry["area"] for entry in content["annotations"]) == 3
    assert f"{len(content['annotations'])} annotations" in out
    code, _, _ = run("run", "--format", "label-studio", "--out", "studio", "--prefix", "x/")
    assert code == 0
    tasks = json.loads((tmp_path / "studio" / "tasks.json").read_text("utf-8"))
    assert [task["data"]["image"] for task in tasks] == ["x/a.jpg", "x/b/c.jpg"]


def test_mistakes_are_explained(run):
    assert run("run", "--format", "png", "--out", "full")[0] == 0
    for words, code, said in (
        (("run", "--out", "out"), 2, "--format"),
        (("run", "--format", "coco"), 2, "--out"),
        (("run", "--format", "voc", "--out", "out"), 2, "Known: coco, cvat"),
        (("run", "--format", "png", "--out", "out", "--parts"), 2, "Leave --parts out"),
        (("run", "--format", "coco", "--out", "out", "--minimum", "0"), 2, "--minimum"),
        (("run", "--format", "coco", "--out", "full"), 2, "holds files already"),
        (("photos", "--format", "coco", "--out", "out"), 1, "is no finished run"),
        (("none", "--format", "coco", "--out", "out"), 2, "does not exist"),
        (("run", "--format", "coco", "--out", "out", "--data", "none"), 2, "does not exist"),
    ):
        found, _, err = run(*words)
        assert found == code, err
        assert said in err


def test_help_names_every_format_and_option(run):
    code, out, _ = run("--help")
    assert code == 0
    for word in (*FORMATS, "--parts", "--minimum", "--data", "--split", "--prefix", "--out"):
        assert word in out
