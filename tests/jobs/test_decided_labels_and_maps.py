"""A method that decides pixels by itself, and one that has maps to show."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from planted import fitted, small_bank

import zerolabel
from zerolabel.data.folder import read_image
from zerolabel.data.synthetic import world
from zerolabel.jobs.explain import explain
from zerolabel.jobs.explaining.maps import MOST, draw_maps, maps_exhibit
from zerolabel.jobs.predict import predict
from zerolabel.jobs.run.model import Model
from zerolabel.methods.base import Evidence
from zerolabel.methods.kmeans import KMeans
from zerolabel.outputs.heat import heat, shades
from zerolabel.store import Store

pytestmark = pytest.mark.usefixtures("small_worlds")
K, SIZE = 3, (40, 56)


class Decided:
    """What the tests let a method say of every image; as numpy's chessboard in big squares."""

    labels = torch.from_numpy((np.indices(SIZE) // 16).sum(0) % 2 + 1)
    ramp = torch.arange(12.0).reshape(3, 4)
    maps = {"ramp": ramp, "<b> & flat": torch.full((2, 2), 0.5), "spot": torch.eye(2) - 3}


@pytest.fixture
def decides(monkeypatch):
    """K-means whose evidence has labels and whose anatomy has maps."""
    evidence, look_into = KMeans.evidence, KMeans.look_into

    def with_labels(self, samples, *, store):
        found, failures = evidence(self, samples, store=store)
        return [(sample, replace(e, labels=Decided.labels)) for sample, e in found], failures

    def with_maps(self, sample, *, store):
        return replace(look_into(self, sample, store=store), maps=Decided.maps)

    monkeypatch.setattr(KMeans, "evidence", with_labels)
    monkeypatch.setattr(KMeans, "look_into", with_maps)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for sample in world(K, images=3, size=SIZE):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    zerolabel.fit(photos, out=folder, method="kmeans", k=K, size=64, backbone="filterbank")
    return folder


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decides")
def test_labels_are_taken_as_they_are(run, photos, tmp_path):
    expected = Decided.labels.numpy()
    first = min(photos.iterdir())
    found = zerolabel.load(run).predict(first).label_map
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    predict(run, photos, tmp_path / "masks")
    for path in (tmp_path / "masks" / "masks").iterdir():
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    facts = explain(run, first, tmp_path / "explained").facts
    shares = {entry["id"]: entry["share"] for entry in facts["categories"]}
    assert shares == {i: (expected == i).mean() for i in (1, 2)}


@pytest.fixture(scope="module")
def model():
    return Model(fitted("kmeans", world(K, images=2), backbone=small_bank(), k=K, size=64)[0])


def decided(labels, k=K):
    return Evidence(torch.zeros(k, 2, 2), torch.zeros(k), labels=labels)


def test_more_than_a_byte_of_categories_become_16_bits(model):
    image = np.zeros((1, 2, 3), np.uint8)
    labels = torch.tensor([[0, 299]])
    found = model.label_map(decided(labels, 300), image)
    assert found.dtype == np.uint16
    assert found.tolist() == labels.tolist()
    assert model.label_map(decided(torch.tensor([[0, 254]]), 255), image).dtype == np.uint8


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(2, 1, dtype=torch.long), r"have the size \(2, 1\), the photo has \(1, 2\)"),
        (torch.tensor([[0, 3]]), r"labels are 0\.\.3, the categories are 0\.\.2"),
        (torch.tensor([[-1, 2]]), r"labels are -1\.\.2, the categories are 0\.\.2"),
    ],
)
def test_labels_that_do_not_fit_the_photo_are_a_mistake_of_the_method(model, labels, words):
    with pytest.raises(ValueError, match=words):
        model.label_map(decided(labels), np.zeros((1, 2, 3), np.uint8))


def test_without_labels_evidence_is_refined(model):
    sample = world(K, images=2)[0]
    [(_, e)], _ = model.method.evidence([sample], store=Store())
    assert e.labels is None
    assert model.label_map(e, sample.load()).shape == sample.load().shape[:2]


# --- maps ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decides")
def test_maps_are_drawn_with_their_names_and_scales(run, photos, tmp_path):
    (tmp_path / "map-07.png").write_bytes(b"of an earlier image")
    (tmp_path / "other.png").write_bytes(b"of the user")
    found = explain(run, min(photos.iterdir()), tmp_path)
    page = found.page.read_text()
    assert "<h3>Maps</h3>" in page
    assert "Every map has a scale of its own" in page
    labels = re.findall(r"<span>([^<]*: [^<]*)</span>", page)
    assert labels == [
        "ramp: 0 to 11",
        "&lt;b&gt; &amp; flat: 0.5 everywhere",
        "spot: -3 to -2",
    ]
    assert page.count('src="data:image/png') == 3
    facts = json.loads((tmp_path / "explain.json").read_text())["maps"]
    files = ["map-00.png", "map-01.png", "map-02.png"]
    assert [fact["file"] for fact in facts] == files
    assert [(fact["low"], fact["high"]) for fact in facts] == [(0, 11), (0.5, 0.5), (-3, -2)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [*files, "other.png"]
    ramp = read_image(tmp_path / "map-00.png")
    assert ramp.shape == (*SIZE, 3)
    rows, cols = (
        ((np.arange(n) + 0.5) * c / n).astype(int) for n, c in zip(SIZE, (3, 4), strict=True)
    )
    cells = (rows[:, None] * 4 + cols) / 11
    np.testing.assert_array_equal(ramp, heat(cells))
    assert (read_image(tmp_path / "map-01.png") == shades()[0]).all()  # no contrast


def test_a_method_without_maps_shows_none(run, photos, tmp_path):
    found = explain(run, min(photos.iterdir()), tmp_path)
    assert found.facts["maps"] == []
    assert ">Maps<" not in found.page.read_text()
    assert not list(tmp_path.glob("map-*"))


def test_there_are_at_most_twelve_maps_on_a_page():
    maps = {f"map {i}": torch.rand(2, 3) for i in range(20)}
    drawn = draw_maps(maps, (4, 6))
    assert [one.name for one in drawn] == [f"map {i}" for i in range(MOST)]
    [exhibit] = maps_exhibit(drawn, name="a", total=len(maps))
    assert len(exhibit.data["rows"][0]["views"]) == MOST
    assert exhibit.caption.endswith("These are the first 12 of 20.")
    [exhibit] = maps_exhibit(drawn, name="a", total=MOST)
    assert "first" not in exhibit.caption
    assert maps_exhibit([], name="a", total=0) == []
