"""Categories that are classes have their names: in the model, in what is saved, after a resume."""

import json

import numpy as np
import pytest
from PIL import Image

import zerolabel
from zerolabel.data.synthetic import world
from zerolabel.methods.acseg import Acseg

pytestmark = pytest.mark.usefixtures("small_worlds")
NAMES = ["ground", "square", "disc"]
OPTIONS = {
    "method": "acseg",
    "size": 32,
    "backbone": "filterbank",
    "iterations": 2,
    "steps": 1,
    "classify": "retrieve",
    "skip_background": False,
}


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    root = tmp_path_factory.mktemp("street")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for sample in world(3, images=5, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(root / "images" / sample.id)
        label = Image.fromarray(sample.load_label().astype(np.uint8))
        label.save((root / "masks" / sample.id).with_suffix(".png"))
    (root / "classes.txt").write_text("\n".join([*NAMES, "never seen"]))
    return root


def names(folder):
    content = json.loads((folder / "categories.json").read_text())
    return [entry["name"] for entry in content["categories"]]


def refuse(*args, **kwargs):
    raise AssertionError("fitted again")


def test_names_are_those_of_the_list_and_outlive_the_job(street, tmp_path, monkeypatch):
    run = tmp_path / "run"
    fitted = zerolabel.fit(street, out=run, **OPTIONS)
    assert [category.name for category in fitted.categories] == NAMES
    monkeypatch.setattr(Acseg, "fit", refuse)
    again = zerolabel.fit(street, out=run, **OPTIONS)  # takes up what is done
    assert [category.name for category in again.categories] == NAMES
    assert again.method.class_names == (*NAMES, "never seen")
    loaded = zerolabel.load(run)
    assert [category.name for category in loaded.categories] == NAMES
    assert loaded.method.class_names == (*NAMES, "never seen")
    loaded.save(tmp_path / "copy")
    assert (tmp_path / "copy/model.json").read_bytes() == (run / "model.json").read_bytes()


def test_a_run_killed_after_the_fit_ends_with_the_same_names(street, tmp_path, monkeypatch):
    run = tmp_path / "run"
    zerolabel.segment(street, run, report=False, **OPTIONS)
    assert names(run) == NAMES
    model = (run / "model.json").read_bytes()
    for name in ("categories.json", "model.json", "model.safetensors"):
        (run / name).unlink()
    monkeypatch.setattr(Acseg, "fit", refuse)
    zerolabel.segment(street, run, report=False, **OPTIONS)
    assert names(run) == NAMES
    assert (run / "model.json").read_bytes() == model


def test_models_from_before_names_were_kept_are_read(street, tmp_path):
    zerolabel.fit(street, out=tmp_path, **OPTIONS)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts.pop("class_names") == [*NAMES, "never seen"]
    (tmp_path / "model.json").write_text(json.dumps(facts))
    loaded = zerolabel.load(tmp_path)
    assert loaded.method.class_names == ()
    assert [category.name for category in loaded.categories] == NAMES


def test_clusters_have_no_names(street):
    fitted = zerolabel.fit(street, **OPTIONS | {"classify": "cluster", "k": 2})
    assert fitted.method.class_names == ()
    assert [category.name for category in fitted.categories] == ["category 0", "category 1"]
