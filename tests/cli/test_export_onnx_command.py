"""`zerolabel export --format onnx` and `predict FILE.onnx` as they are typed."""

import pytest
from exported_networks import light, write_model, write_photos

from zerolabel.jobs import export_network as job

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("small_worlds")


@pytest.fixture
def run(typed, tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", images=2)
    write_model(light(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    return typed


@pytest.mark.slow
def test_export_and_predict(run, tmp_path, monkeypatch):
    code, out, err = run("export", "model", "--format", "onnx", "--out", "a.onnx")
    assert code == 0, err
    assert out == "deeplab, 3 categories, photos at 40x32: a.onnx\n"
    assert err.startswith("export: 1 in ")  # and nothing of the libraries
    assert "Warning" not in err
    monkeypatch.setattr(job, "trace", lambda net, size: onnx.load(tmp_path / "a.onnx"))
    asked = ("--int8", "--data", "photos", "--out", "small.onnx")
    code, out, err = run("export", "model", "--format", "onnx", *asked)
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith("int8: decides as before on ")
    assert second.endswith(": small.onnx")
    for name in ("a", "small"):
        code, out, err = run("predict", f"{name}.onnx", "photos", "--out", name)
        assert code == 0, err
        assert "2 images (a folder) in 3 categories" in out
        assert len(list((tmp_path / name / "masks").iterdir())) == 2
    code, out, err = run("export", "model", "--format", "onnx", "--out", "a.onnx")
    assert code == 2
    assert "is there already" in err


def test_mistakes_are_explained(run, tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    export = ("export", "model", "--format")
    for words, said in (
        ((*export, "onnx", "--out", "a.onnx", "--parts"), "--parts is about masks"),
        ((*export, "onnx", "--out", "a.onnx", "--minimum", "2"), "--minimum is about masks"),
        ((*export, "onnx", "--out", "a.onnx", "--prefix", "x"), "--prefix is about masks"),
        ((*export, "onnx", "--out", "a"), "a.onnx"),
        ((*export, "onnx", "--out", "a.onnx", "--data", "photos"), "Only --int8"),
        ((*export, "png", "--out", "a", "--int8"), "--int8 goes with --format onnx"),
        (("predict", "text.onnx", "photos", "--out", "out"), "is no ONNX file"),
        (("predict", "none.onnx", "photos", "--out", "out"), "does not exist"),
    ):
        code, _, err = run(*words)
        assert code == 2, err
        assert said in err


def test_help_names_it(run):
    code, out, _ = run("export", "--help")
    assert code == 0
    for word in ("onnx", "--int8", "FILE.onnx"):
        assert word in out
