"""`zerolabel explain` as it is typed."""

import json
from functools import partial

import pytest
from PIL import Image

import zerolabel
from zerolabel.data.synthetic import world

pytestmark = pytest.mark.usefixtures("small_worlds")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos and a fitted run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "photos").mkdir()
    for sample in world(3, images=4, size=(48, 64), per_image=3):
        Image.fromarray(sample.load()).save(folder / "photos" / sample.id)
    options = {"method": "kmeans", "k": 3, "size": 64, "backbone": "filterbank"}
    zerolabel.fit(folder / "photos", out=folder / "run", **options)
    return folder


@pytest.fixture
def run(typed):
    return partial(typed, "explain")


def names(place):
    return sorted(path.name for path in (place / "photos").iterdir())


def test_a_photo(run, place):
    name = names(place)[0]
    code, out, err = run(place / "run", place / "photos" / name)
    assert (code, err) == (0, "")
    page = place / "run" / "explain" / name / "index.html"
    assert out.splitlines()[0].startswith("64 patches in ")
    assert out.splitlines()[1:] == [f"page: {page}"]
    assert page.is_file()


def test_an_id_of_the_run(run, place, tmp_path):
    name = names(place)[1]
    code, out, err = run(place / "run", name, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "out" / "explain.json").read_text())["image"] == name


def test_an_id_with_an_embedding_of_its_own(run, place, tmp_path):
    asked = ("--data", place / "photos", "--embedding", "tsne", "--seed", "2")
    code, out, _ = run(place / "run", names(place)[1], "--out", tmp_path / "out", *asked)
    assert code == 0
    facts = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert (facts["embedding"], facts["seed"], facts["image"]) == ("tsne", 2, names(place)[1])
    assert f"page: {tmp_path / 'out' / 'index.html'}" in out


def test_mistakes_are_explained(run, place, tmp_path):
    name = names(place)[0]
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    for words, code, said in (
        ((place / "run", name[:-1], "--data", place / "photos"), 2, f"Did you mean '{name}'"),
        ((place / "run", place / "photos" / name, "--split", "val"), 2, "--split val needs"),
        ((place / "run", place / "photos" / name, "--embedding", "umap"), 2, "Known: pca, tsne"),
        ((place / "run", tmp_path / "bad.jpg"), 1, "bad.jpg: not an image"),
        ((place / "photos", place / "photos" / name), 1, "model.json is not there"),
        ((place / "nothing", place / "photos" / name), 2, "does not exist"),
        ((place / "run",), 2, "Missing argument 'IMAGE'"),
    ):
        found, _, err = run(*words)
        assert found == code, err
        assert said in err


def test_help_names_every_option(run):
    code, out, _ = run("--help")
    assert code == 0
    for word in ("RUN", "IMAGE", "--out", "--data", "--embedding", "--seed", "--weights"):
        assert word in out
