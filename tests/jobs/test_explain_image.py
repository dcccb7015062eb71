"""`zerolabel explain` by its Python function: what is drawn and written, and that it is true."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from planted import small_bank

import zerolabel
from zerolabel.data.folder import find_images, from_arrays, read_image
from zerolabel.data.synthetic import world
from zerolabel.errors import ImageError, StoreError, UsageError
from zerolabel.jobs.explain import explain, in_words
from zerolabel.jobs.explaining.page import plot
from zerolabel.jobs.explaining.scene import look_into, plain
from zerolabel.jobs.run.model import Model
from zerolabel.methods import METHODS as ALL
from zerolabel.methods import SUPERVISED, WORDED
from zerolabel.methods.datus import Config, Datus
from zerolabel.outputs.colours import palette
from zerolabel.stages.discover import Encoded
from zerolabel.store import Store

METHODS = [name for name in ALL if name not in SUPERVISED | WORDED]  # no labels, no words

pytestmark = pytest.mark.usefixtures("small_worlds")
OWN = {  # where filterbank cannot do, or the default takes long
    "wnet": {"base": 4, "depth": 2, "iterations": 2, "batch": 2},
    "dino-attention": {"backbone": "random-vitt8", "describe": "pool"},
    "acseg": {"iterations": 2, "steps": 1},
    "transfgu": {
        **{"backbone": "random-vitt8", "crop_size": 32, "zoom": 1.0, "batch": 3},
        **{"epochs": 2, "repeat": 1},
    },
}
WITHOUT_REGIONS = ("kmeans", "transfgu", "wnet")
FAST = {"k": 3, "size": 64, "backbone": "filterbank"}
GRID = 8


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    for i, sample in enumerate(world(3, images=6, size=(96, 128), per_image=3)):
        Image.fromarray(sample.load()).save(folder / ("deep" if i == 0 else ".") / f"photo-{i}.png")
    return folder


@pytest.fixture(scope="module")
def fits(photos, tmp_path_factory):
    """A fitted run of a method, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("fits")

    def fit(method):
        if not (folder / method / "model.json").exists():
            options = FAST | {"method": method} | OWN.get(method, {})
            zerolabel.fit(photos, out=folder / method, **options)
        return folder / method

    return fit


def dots(svg):
    """Name of each group of dots -> how many it has."""
    groups = re.findall(r"<g><title>([^<]*)</title><path d=\"([^\"]*)\"", svg)
    return {name: path.count("M") for name, path in groups}


# --- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_looked_into(method, fits, photos, tmp_path):
    found = explain(fits(method), photos / "photo-1.png", tmp_path / "out")
    assert found.path == tmp_path / "out"
    files = {path.name for path in found.path.iterdir()}
    maps = {name for name in files if name.startswith("map-")}  # of responses
    assert bool(maps) == (method in ("transfgu", "wnet"))
    assert files - maps == {
        *("index.html", "embedding.svg", "explain.json", "run.json"),
        *("photo.jpg", "regions.jpg", "categories.jpg"),
    }
    facts = json.loads((found.path / "explain.json").read_text())
    assert facts == json.loads(json.dumps(found.facts))
    assert (facts["method"], facts["image"]) == (method, "photo-1.png")
    h, w = facts["grid"]
    assert sum(entry["patches"] for entry in facts["regions"]) == h * w
    assert sum(entry["share"] for entry in facts["regions"]) == pytest.approx(1)
    assert facts["count"] + facts["too_small"] == len(facts["regions"])
    assert facts["parts"] == ("categories" if method in WITHOUT_REGIONS else "regions")
    svg = (found.path / "embedding.svg").read_text()
    assert sum(dots(svg).values()) == h * w
    assert "nan" not in svg
    for name in ("photo", "regions", "categories"):
        assert read_image(found.path / f"{name}.jpg").shape == (96, 128, 3)


@pytest.mark.parametrize("method", ["kmeans", "datus"])
def test_categories_are_those_of_predict(method, fits, photos, tmp_path):
    facts = explain(fits(method), photos / "photo-2.png", tmp_path).facts
    labels = zerolabel.load(fits(method)).predict(photos / "photo-2.png").label_map
    ids, counts = np.unique(labels, return_counts=True)
    shares = {entry["id"]: entry["share"] for entry in facts["categories"]}
    assert shares == pytest.approx(dict(zip(ids.tolist(), counts / labels.size, strict=True)))
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert facts["categories"][0]["name"].startswith("category ")


def test_the_page_stands_alone_with_plot_pictures_and_table(fits, photos, tmp_path):
    found = explain(fits("datus"), photos / "photo-3.png", tmp_path)
    page = found.page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count('src="data:image/jpeg') == 3
    assert re.findall(r"<span>(photo|regions|categories)</span>", page) == [
        "photo",
        "regions",
        "categories",
    ]
    assert page.count("<svg ") == 1
    assert "photo-3.png</h1>" in page
    shown = [entry for entry in found.facts["regions"] if not entry["too_small"]]
    assert page.count("<td>region ") == len(shown)
    assert f'<td>region 0</td><td class="n">{shown[0]["patches"]}</td>' in page
    assert f"{found.facts['count']} region" in page


def test_the_same_command_writes_the_same_bytes(fits, photos, tmp_path):
    for name in ("a", "b"):
        explain(fits("datus"), photos / "photo-1.png", tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_tsne_has_no_axes(fits, photos, tmp_path):
    found = explain(fits("kmeans"), photos / "photo-1.png", tmp_path, embedding="tsne", seed=3)
    assert found.facts["variance"] is None
    svg = (tmp_path / "embedding.svg").read_text()
    assert "component" not in svg
    assert sum(dots(svg).values()) == GRID**2
    assert "t-SNE keeps neighbours together" in found.page.read_text()


# --- what is drawn is true -----------------------------------------------------------------------


def scene_of(fits, photos, method, name="photo-1.png"):
    model = zerolabel.load(fits(method))
    return look_into(model, name, read_image(photos / name), embedding="pca", seed=0), model


def test_regions_have_one_colour_in_plot_and_picture_and_no_category_has_it(fits, photos):
    scene, _ = scene_of(fits, photos, "datus")
    shown = [part for part in scene.parts if part.valid]
    assert [part.name for part in shown] == [f"region {i}" for i in range(len(shown))]
    assert [part.patches for part in shown] == sorted((p.patches for p in shown), reverse=True)
    taken = {scene.categories[i].colour for i in scene.shares}
    assert len({*scene.colours.values(), *taken}) == len(shown) + len(taken)
    svg, picture = plot(scene, title="t"), scene.regions_picture()
    for part in shown:
        assert svg.count('stroke="#{:02x}{:02x}{:02x}"'.format(*scene.colours[part.id])) == 2
        row, col = np.argwhere(scene.ids == part.id)[0]
        y, x = int(row * 96 / GRID) + 4, int(col * 128 / GRID) + 4
        mixed = (scene.photo[y, x].astype(int) + scene.colours[part.id]) / 2
        assert np.abs(picture[y, x] - mixed).max() <= 1
    for row, col in np.argwhere(np.isin(scene.ids, [p.id for p in scene.parts if not p.valid])):
        y, x = int(row * 96 / GRID) + 4, int(col * 128 / GRID) + 4
        assert (picture[y, x] == scene.photo[y, x]).all()


def test_without_regions_dots_have_the_colours_of_their_categories(fits, photos):
    scene, model = scene_of(fits, photos, "kmeans")
    assert {p.id: p.name for p in scene.parts} == {i: f"category {i}" for i in scene.colours}
    assert all(scene.colours[i] == tuple(palette(3)[i].tolist()) for i in scene.colours)
    sample = from_arrays("a", read_image(photos / "photo-1.png"))
    [(_, evidence)], _ = model.method.evidence([sample], store=Store())
    np.testing.assert_array_equal(scene.ids, evidence.scores.argmax(0).numpy())


def test_patches_lie_in_the_order_of_their_regions(fits, photos):
    """A group's dots in the plot are those of its own patches."""
    scene, _ = scene_of(fits, photos, "kmeans")
    groups = re.findall(r"<g><title>([^<]*)</title><path d=\"([^\"]*)\"", plot(scene, title="t"))
    assert len(groups) == len(scene.parts) > 1
    drawn = [np.array(re.findall(r"M(\S+) (\S+)h0", path), float) for _, path in groups]
    placed = [scene.plane.points[scene.ids.ravel() == part.id] for part in scene.parts]
    assert [len(own) for own in drawn] == [len(own) for own in placed]
    for axis in (0, 1):
        x, y = (np.concatenate(points)[:, axis] for points in (placed, drawn))
        slope, offset = np.polyfit(x, y, 1)
        assert (slope > 0) == (axis == 0)
        np.testing.assert_allclose(y, slope * x + offset, atol=0.06)  # one decimal


class Conceptual(Datus):
    """Patches of two halves, and three concepts: one of each half, and one that is like nothing."""

    learns = frozenset({"concepts"})
    mine = torch.tensor([[0.0, 2, 0, 0], [0, 0, -1, -1], [3, 0, 0, 0]])

    def look(self, batch, store):
        features = torch.zeros(8, 8, 4)
        features[:, :4, 0], features[:, 4:, 1] = 1, 1
        features += 0.01 * torch.rand(8, 8, 4, generator=torch.Generator().manual_seed(0))
        return [Encoded(features, concepts=self.mine) for _ in batch.kept]


def conceptual(samples, **settings):
    config = Config(discover="concepts", split=False, k=2, size=(64, 64), **settings)
    method = Conceptual(config, small_bank())
    method.fit(samples, store=Store())
    return Model(method)


def test_concepts_are_marks_in_the_colour_of_their_region():
    samples = world(3, images=3, size=(64, 64))
    scene = look_into(conceptual(samples), "a", samples[0].load(), embedding="pca", seed=0)
    left, right = scene.ids[0, 0], scene.ids[0, -1]
    assert scene.homes == [right, -1, left]
    svg = plot(scene, title="t")
    for home in (left, right):
        colour = "#{:02x}{:02x}{:02x}".format(*scene.colours[home])
        assert svg.count(f'fill="{colour}"') == 1  # its mark
    assert svg.count("stroke-dasharray") == 1  # the hollow one
    assert re.findall(r">(0|1|2|unused)</text>", svg) == ["0", "unused", "2"]
    facts = plain(scene)
    assert facts["concepts"] == {"count": 3, "used": [0, 2]}
    owners = {tuple(entry["concepts"]) for entry in facts["regions"]}
    assert owners == {(0,), (2,)}
    assert in_words(facts) == "64 patches in 2 regions, 2 of 3 concepts used"
    # marks are laid out with the dots: the first concept lies among the patches of its half
    points = scene.plane.points
    near = np.linalg.norm(points[:64] - points[64], axis=1).argmin()
    assert scene.ids.ravel()[near] == right


def test_a_region_that_is_a_piece_of_a_concept_is_found_too():
    """Where groups are split into pieces, a concept belongs to the largest."""
    samples = world(3, images=3, size=(64, 64))
    model = conceptual(samples)
    anatomy = model.method.look_into(samples[0], store=Store())
    assert anatomy.homes.tolist() == [int(anatomy.parts[0, -1]), -1, int(anatomy.parts[0, 0])]
    assert anatomy.tokens.shape == (8, 8, 4)
    assert anatomy.concepts.shape == (3, 4)


# --- odd images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kmeans", "datus"])
@pytest.mark.parametrize("embedding", ["pca", "tsne"])
def test_a_constant_image_and_one_pixel(method, embedding, fits, tmp_path):
    for name, shape in (("grey", (40, 60, 3)), ("dot", (1, 1, 3)), ("strip", (3, 900, 3))):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(tmp_path / f"{name}.png")
        found = explain(
            fits(method), tmp_path / f"{name}.png", tmp_path / name, embedding=embedding
        )
        svg = (found.path / "embedding.svg").read_text()
        assert "nan" not in svg
        assert sum(dots(svg).values()) == GRID**2
        assert max(read_image(found.path / "regions.jpg").shape) <= 800


@pytest.mark.parametrize("embedding", ["pca", "tsne"])
def test_one_patch(photos, tmp_path, embedding):
    fitted = zerolabel.fit(photos, method="datus", k=2, size=16, backbone="random-vitt16")
    fitted.save(tmp_path / "model")
    found = explain(
        tmp_path / "model", photos / "photo-1.png", tmp_path / "out", embedding=embedding
    )
    assert in_words(found.facts) == "1 patch in 1 region"
    assert dots((found.path / "embedding.svg").read_text()) == {"region 0, 100 %": 1}


def test_what_a_preset_leaves_out_has_no_category(photos, tmp_path):
    zerolabel.fit(photos, out=tmp_path / "run", preset="paper", **FAST, minimum=40, resolution=3.0)
    facts = explain(tmp_path / "run", photos / "photo-1.png").facts
    small = [entry for entry in facts["regions"] if entry["too_small"]]
    assert small
    assert all(entry["category"] is None for entry in small)
    assert sum(entry["share"] for entry in facts["categories"]) < 1
    words = (
        f"{facts['count']} region{'s' * (facts['count'] > 1)} and {facts['too_small']} too small"
    )
    assert words in in_words(facts)
    page = (tmp_path / "run/explain/photo-1.png/index.html").read_text()
    assert f"and not listed: {facts['too_small']}." in page


# --- finding the image ---------------------------------------------------------------------------


def test_an_id_is_found_in_its_data_and_has_its_own_folder(fits, photos):
    run = fits("kmeans")
    found = explain(run, "deep/photo-0.png", data=photos)
    assert found.path == run / "explain" / "deep" / "photo-0.png"
    same = explain(run, photos / "deep" / "photo-0.png", run / "explain" / "other")
    assert found.facts["regions"] == same.facts["regions"]
    assert explain(run, "deep/photo-0.png").facts == found.facts  # the run knows where it was made


@pytest.mark.parametrize(
    ("image", "data", "words"),
    [
        ("photo-l.png", False, "Did you mean 'photo-"),
        ("deep/photo-1.png", True, "Did you mean 'deep/photo-0.png'"),
        ("zzz", True, "has no image 'zzz'.$"),
        ("zzz", False, "neither a file nor an image"),
        ("", False, "neither a file nor an image"),
    ],
)
def test_unknown_images_name_the_nearest(fits, photos, image, data, words):
    with pytest.raises(UsageError, match=words):
        explain(fits("kmeans"), image, data=photos if data else None)


def test_a_folder_is_no_photo(fits, photos):
    with pytest.raises(UsageError, match="is a folder. Give one photo"):
        explain(fits("kmeans"), photos)


def test_an_image_is_looked_at_as_in_its_run(photos, tmp_path):
    zerolabel.fit(photos, out=tmp_path / "run", method="kmeans", geometry="picie-320", **FAST)
    found = explain(tmp_path / "run", photos / "photo-1.png")
    assert read_image(found.path / "photo.jpg").shape == (320, 320, 3)


def test_damaged_images_and_runs_without_a_model(fits, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"bad\.png: not an image"):
        explain(fits("kmeans"), tmp_path / "bad.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match=r"model\.json is not there"):
        explain(tmp_path, photos / "photo-1.png")
    with pytest.raises(UsageError, match="Did you mean 'tsne'"):
        explain(fits("kmeans"), photos / "photo-1.png", embedding="t-sne")


def test_other_runs_are_not_touched_and_pictures_are_no_data(fits, photos, tmp_path):
    run = fits("kmeans")
    before = (run / "run.json").read_bytes()
    with pytest.raises(StoreError, match="holds a run of another kind"):
        explain(run, photos / "photo-1.png", run)
    assert (run / "run.json").read_bytes() == before
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    for _ in range(2):  # a second time is no other run
        explain(run, tmp_path / "a.png", tmp_path / "shown")
    assert [sample.id for sample in find_images(tmp_path)] == ["a.png"]
