"""Students as ONNX files: the same scores and masks as in torch, what is told, what is refused."""

import json

import numpy as np
import pytest
import torch
from exported_networks import NAMES, K, deep, light, unet, write_model, write_photos

import zerolabel
from zerolabel.errors import StoreError, UsageError
from zerolabel.jobs import export_network as job
from zerolabel.jobs.explain import explain
from zerolabel.jobs.export import export
from zerolabel.jobs.export_network import export_network
from zerolabel.jobs.exporting.network import portable
from zerolabel.jobs.predict import predict
from zerolabel.jobs.run.model import Model, load
from zerolabel.methods.onnx_student import Network
from zerolabel.outputs.masks import read_mask

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.usefixtures("small_worlds"), pytest.mark.slow]
PLAIN = {"report": False, "overlays": False}
SIZES = [(1, 44, 32), (3, 40, 32), (2, 37, 61), (1, 8, 8), (2, 64, 96), (5, 16, 33)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a light student, photos, and the files `a.onnx` and `small.onnx`."""
    root = tmp_path_factory.mktemp("onnx")
    write_photos(root / "photos")
    predict(write_model(light(), root / "model"), root / "photos", root / "run", **PLAIN)
    export_network(root / "run", root / "a.onnx")
    with pytest.MonkeyPatch.context() as patch:  # the graph is there: a trace takes long
        patch.setattr(job, "trace", lambda net, size: onnx.load(root / "a.onnx"))
        export_network(root / "run", root / "small.onnx", int8=True)
    return root


def network(path):
    return Network(path.read_bytes(), name=str(path))


def images(B, H, W):
    return np.random.default_rng(B * H * W).integers(0, 256, (B, 3, H, W)).astype(np.float32)


def masks(run):
    return {path.name: read_mask(path) for path in sorted((run / "masks").iterdir())}


def alike(one, other):
    assert one.keys() == other.keys()
    return float(np.mean([np.mean(one[name] == other[name]) for name in one]))


def compare(model, file, sizes):
    """Scores of torch and of the file, for several sizes and batches."""
    net, _ = portable(model)
    same = []
    for size in sizes:
        shown = images(*size)
        with torch.no_grad():
            expected = net(torch.from_numpy(shown)).numpy()
        found = file.scores(shown)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        many = expected[0, 0].size > 1
        assert not many or expected.std(axis=(2, 3)).max() > 0.01  # it is no constant
        same.append((found.argmax(1) == expected.argmax(1)).ravel())
    assert np.concatenate(same).mean() > 0.999


def test_scores_are_those_of_torch_at_every_size_and_batch(place):
    compare(load(place / "run"), network(place / "a.onnx"), SIZES)


def test_the_module_is_what_predict_uses(place):
    model = load(place / "run")
    net, config = portable(model)
    assert config.size == (40, 32)  # whole patches of 44 x 32
    shown = images(1, *config.size)
    from zerolabel.stages import denoise

    expected = denoise.look(model.method.student(), torch.from_numpy(shown).byte())
    with torch.no_grad():
        assert torch.allclose(net(torch.from_numpy(shown)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "sizes"),
    [(unet, [(1, 30, 41), (2, 7, 64), (1, 4, 4), (3, 32, 32)]), (deep, SIZES)],
    ids=["unet", "deeplabv3"],
)
def test_other_networks(make, sizes, tmp_path, monkeypatch):
    photos = write_photos(tmp_path / "photos", images=2)
    run = write_model(make(), tmp_path / "model")
    export_network(run, tmp_path / "a.onnx")
    compare(load(run), network(tmp_path / "a.onnx"), sizes)
    predict(run, photos, tmp_path / "torch", **PLAIN)
    predict(tmp_path / "a.onnx", photos, tmp_path / "onnx", **PLAIN)
    assert alike(masks(tmp_path / "torch"), masks(tmp_path / "onnx")) > 0.999
    monkeypatch.setattr(job, "trace", lambda net, size: onnx.load(tmp_path / "a.onnx"))
    small = export_network(run, tmp_path / "b.onnx", int8=True, data=photos)
    assert small.agreement > 0.8


def test_what_a_file_says_of_itself(place):
    model = onnx.load(place / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert axes == {"image": ["B", 3, "H", "W"], "scores": ["B", K, "h", "w"]}
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["zerolabel"] == zerolabel.__version__ == model.producer_version
    settings = json.loads(told["zerolabel.settings"])
    assert settings == {"precision": "float32", "refine": "guided", "seed": 0, "size": [40, 32]}
    categories = json.loads(told["zerolabel.categories"])
    assert [entry["name"] for entry in categories] == list(NAMES)
    expected = load(place / "run").categories
    assert [tuple(entry["colour"]) for entry in categories] == [c.colour for c in expected]
    assert not any(entry["exemplars"] or entry["pixel_share"] for entry in categories)
    assert len(json.loads(told["zerolabel.digest"])) == 32
    content = (place / "a.onnx").read_bytes()
    assert b".py" not in content  # the exporter notes source files of this machine
    small = {e.key: e.value for e in onnx.load(place / "small.onnx").metadata_props}
    assert json.loads(small["zerolabel.settings"])["precision"] == "int8"
    assert small["zerolabel.digest"] != told["zerolabel.digest"]


def test_predict_makes_an_ordinary_run(place, tmp_path):
    predict(place / "run", place / "photos", tmp_path / "torch")
    found = predict(place / "a.onnx", place / "photos", tmp_path / "onnx")
    assert found.images == 4
    assert [c.name for c in found.categories] == list(NAMES)
    for name in ("categories.json", "failures.json", "run.json", "report/index.html", "model.onnx"):
        assert (tmp_path / "onnx" / name).exists()
    assert len(list((tmp_path / "onnx" / "overlays").iterdir())) == 4
    assert alike(masks(tmp_path / "torch"), masks(tmp_path / "onnx")) > 0.999
    one, other = (
        json.loads((tmp_path / name / "categories.json").read_text("utf-8"))["categories"]
        for name in ("torch", "onnx")
    )
    for a, b in zip(one, other, strict=True):
        assert a["pixel_share"] == pytest.approx(b.pop("pixel_share"), abs=1e-3)
        assert {k: a[k] for k in ("id", "name", "colour", "naming")} == {
            k: b[k] for k in ("id", "name", "colour", "naming")
        }
    assert json.loads((tmp_path / "onnx" / "run.json").read_text())["job"]["method"] == "onnx"


def test_a_run_of_a_file_is_a_model_itself(place, tmp_path):
    predict(place / "a.onnx", place / "photos", tmp_path / "one", **PLAIN)
    predict(tmp_path / "one", place / "photos", tmp_path / "two", **PLAIN)
    assert alike(masks(tmp_path / "one"), masks(tmp_path / "two")) == 1
    (tmp_path / "names.csv").write_text("id,name\n0,x\n1,y\n2,z\n", "utf-8")
    zerolabel.name(tmp_path / "one", csv=tmp_path / "names.csv")
    assert [c.name for c in load(tmp_path / "one").categories] == ["x", "y", "z"]
    assert [c.name for c in load(place / "a.onnx").categories] == list(NAMES)
    photo = sorted((place / "photos").iterdir())[0]
    assert explain(tmp_path / "one", photo).page.exists()
    image = np.asarray(read_mask(tmp_path / "one" / "masks" / photo.name))
    assert zerolabel.load(tmp_path / "one").predict(photo).label_map.shape == image.shape
    assert export(tmp_path / "one", tmp_path / "png", format="png").images == 4


def test_whole_numbers_decide_alike_and_a_photo_as_if_alone(place, tmp_path):
    floats, small = network(place / "a.onnx"), network(place / "small.onnx")
    kinds = {node.op_type for node in onnx.load(place / "small.onnx").graph.node}
    assert {"MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear"} <= kinds
    shown = images(4, 40, 32)
    one, other = (np.concatenate([f.scores(x[None]) for x in shown]) for f in (floats, small))
    assert 0 < abs(one - other).max() < 0.5
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.8
    run = predict(place / "small.onnx", place / "photos", tmp_path / "all", **PLAIN)
    together = masks(run.path)
    for photo in sorted((place / "photos").iterdir()):
        alone = zerolabel.load(place / "small.onnx").predict(photo).label_map
        assert np.array_equal(alone, together[photo.name])


def test_a_run_goes_on_with_its_own_file_only(place, tmp_path):
    predict(place / "a.onnx", place / "photos", tmp_path / "out", **PLAIN)
    predict(place / "a.onnx", place / "photos", tmp_path / "out", **PLAIN)
    with pytest.raises(StoreError, match="instead of"):
        predict(place / "small.onnx", place / "photos", tmp_path / "out", **PLAIN)


def test_wrong_scores_are_noticed(place, tmp_path, monkeypatch):
    net, config = portable(load(place / "run"))
    net.net.decoder.head.bias.data[0] += 1
    with pytest.raises(RuntimeError, match="differ"):
        job._check_scores(net, network(place / "a.onnx"), config.size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "a"}, "like a.onnx"),
        ({"out": "there.onnx"}, "is there already"),
        ({"data": "photos"}, "Only --int8"),
        ({"split": "val"}, "Only --int8"),
        ({"int8": True, "data": "broken"}, "None of the photos"),
    ],
)
def test_what_cannot_be_asked_for(place, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no photo")
    write_photos(tmp_path / "photos", images=1)
    with pytest.raises(UsageError, match=words):
        export_network(place / "run", **{"out": "b.onnx"} | options)
    assert not (tmp_path / "b.onnx").exists()


def test_runs_without_one_network_are_told_to_refine(place, tmp_path):
    made = zerolabel.segment(
        place / "photos", tmp_path / "run", method="kmeans", k=2, size=48, backbone="filterbank",
        **PLAIN,
    )  # fmt: skip
    with pytest.raises(UsageError, match="made by kmeans.*deeplab, unet.*zerolabel refine"):
        export_network(made.path, tmp_path / "a.onnx")
    (made.path / "model.json").unlink()
    with pytest.raises(StoreError, match="no model.*zerolabel refine"):
        export_network(made.path, tmp_path / "a.onnx")
    predict(place / "a.onnx", place / "photos", tmp_path / "onnx", **PLAIN)
    with pytest.raises(UsageError, match="Copy that"):
        export_network(tmp_path / "onnx", tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="FILE.onnx"):
        export(place / "run", tmp_path / "out", format="onnx")


def test_a_unet_of_tiles_or_bands_is_refused():
    for changes in ({"native": True}, {"tile": 20}):
        with pytest.raises(UsageError, match="tiles"):
            portable(Model(unet(**changes)))
    method = unet()
    method.arrays["high"] = torch.ones(3)
    with pytest.raises(UsageError, match="scale of their own"):
        portable(Model(method))


def test_files_that_are_not_ours(place, tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    foreign = onnx.load(place / "a.onnx")
    kept = {entry.key: entry.value for entry in foreign.metadata_props}
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for key, value in (kept | {"zerolabel.format": "99", "zerolabel": "7"}).items():
        foreign.metadata_props.add(key=key, value=value)
    onnx.save(foreign, tmp_path / "newer.onnx")
    for name, words in (
        ("text.onnx", "no ONNX file"),
        ("foreign.onnx", "what its scores mean"),
        ("newer.onnx", "written by zerolabel 7"),
    ):
        with pytest.raises(UsageError, match=words):
            predict(tmp_path / name, place / "photos", tmp_path / "out")
    for asked, words in (({"weights": "x"}, "Leave --weights"), ({"device": "cuda"}, "--device")):
        with pytest.raises(UsageError, match=words):
            predict(place / "a.onnx", place / "photos", tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_missing_libraries_are_named(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "onnxscript", None)
        with pytest.raises(UsageError, match=r"zerolabel\[onnx\]"):
            export_network(place / "run", tmp_path / "a.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"zerolabel\[onnx\]"):
        export_network(place / "run", tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=r"zerolabel\[onnx\]"):
        load(place / "a.onnx")


def test_a_file_cannot_learn(place):
    with pytest.raises(UsageError, match="cannot learn"):
        load(place / "a.onnx").method.fit([], store=None)
