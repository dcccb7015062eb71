"""Runs and protocols that look at images through a geometry, and what a run says of itself."""

import json

import numpy as np
import pytest
from PIL import Image
from scored_runs import save, says, write_run

import zerolabel
from zerolabel.data.geometry import GEOMETRIES, view_label
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import open_samples
from zerolabel.jobs.predict import predict
from zerolabel.outputs.masks import read_mask

SIZES = {"wide": (36, 60), "tall": (50, 40)}
SQUARE = (320, 320)


@pytest.fixture
def truth(tmp_path):
    """Labels of three classes in blocks, so that they survive being resized."""
    rng = np.random.default_rng(0)
    blocks = {k: rng.integers(0, 3, (H // 2, W // 2)) for k, (H, W) in SIZES.items()}
    return {k: block.repeat(2, axis=0).repeat(2, axis=1) for k, block in blocks.items()}


@pytest.fixture
def data(tmp_path, truth):
    root = tmp_path / "data"
    for name, ids in truth.items():
        save(root / "masks" / f"{name}.png", ids)
        (root / "images").mkdir(exist_ok=True)
        colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
        Image.fromarray(colours[ids]).save(root / "images" / f"{name}.png")
    return root


def viewed(truth, name):
    return {k: view_label(ids, GEOMETRIES[name]) for k, ids in truth.items()}


@pytest.mark.parametrize("name", ["picie-320", "stego-320", "transfgu"])
def test_masks_of_either_size_score_the_same(tmp_path, data, truth, name):
    wrong = {k: (ids + (np.arange(ids.shape[1]) < 30)) % 3 for k, ids in truth.items()}
    own = evaluate(write_run(tmp_path / "own", wrong), data, protocol=name)
    made = evaluate(write_run(tmp_path / "made", viewed(wrong, name)), data, protocol=name)
    assert (own["masks"], made["masks"]) == ("cropped afterwards", "as made")
    assert own["counts"] == made["counts"]
    assert sum(map(sum, own["counts"])) == 2 * 320 * 320
    assert own["miou"] != evaluate(tmp_path / "own", data)["miou"]


def test_maskcontrast_brings_masks_back_to_the_size_of_the_labels(tmp_path, data, truth):
    squashed = {
        k: np.asarray(Image.fromarray(ids.astype(np.uint8)).resize((512, 512), 0))
        for k, ids in truth.items()
    }
    result = evaluate(write_run(tmp_path / "run", squashed), data, protocol="maskcontrast")
    assert result["pixel_accuracy"] == 1
    assert sum(map(sum, result["counts"])) == sum(H * W for H, W in SIZES.values())
    own = evaluate(write_run(tmp_path / "own", truth), data, protocol="maskcontrast")
    assert own["counts"] == result["counts"]
    assert own["masks"] == "as made"


def test_masks_of_neither_size_are_named_with_both(tmp_path, data, truth):
    run = write_run(tmp_path / "run", truth | {"tall": np.zeros((64, 64))})
    with pytest.raises(
        DataError, match=r"tall\.png .*\(50, 40\) or \(320, 320\), .*picie-320, found \(64, 64\)"
    ):
        evaluate(run, data, protocol="picie-320")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run through picie-320 on a data set of its own, and what it was made from."""
    root = tmp_path_factory.mktemp("seen")
    rng = np.random.default_rng(1)
    for name in "abc":
        ids = rng.integers(0, 2, (6, 9)).repeat(6, axis=0).repeat(6, axis=1)
        save(root / "data" / "masks" / f"{name}.png", ids)
        (root / "data" / "images").mkdir(exist_ok=True)
        colours = np.array([[250, 20, 20], [20, 20, 250]], np.uint8)
        Image.fromarray(colours[ids]).save(root / "data" / "images" / f"{name}.png")
    options = {"method": "kmeans", "k": 2, "size": 64, "report": False, "overlays": False}
    run = zerolabel.segment(root / "data", root / "run", geometry="picie-320", **options)
    return root / "data", run


def test_a_run_through_a_geometry_has_masks_of_its_size_and_says_so(made):
    data, run = made
    assert read_mask(run.path / "masks/a.png").shape == SQUARE
    assert run.data == "data, split all, through picie-320"
    assert json.loads((run.path / "run.json").read_text())["job"]["geometry"] == "picie-320"
    result = evaluate(run.path, data, protocol="picie-320")
    assert result["masks"] == "as made"
    assert result["pixel_accuracy"] > 0.9
    config = {"method": "kmeans", "backbone": "filterbank", "seed": 0, "refine": "guided"}
    assert config.items() <= result["run"].items()
    assert result["run"]["geometry"] == "picie-320"
    assert result["run"]["config"]["k"] == 2


@pytest.mark.parametrize("protocol", ["full", "stego-320", "maskcontrast"])
def test_a_protocol_of_another_geometry_is_refused(made, protocol):
    data, run = made
    with pytest.raises(UsageError, match="this run was made through picie-320"):
        evaluate(run.path, data, protocol=protocol)


def test_predict_looks_through_a_geometry_too(made, tmp_path):
    data, run = made
    squashed = predict(
        run.path, data, tmp_path / "run", geometry="transfgu", overlays=False, report=False
    )
    assert evaluate(squashed.path, data, protocol="transfgu")["run"]["geometry"] == "transfgu"


def test_a_run_cannot_be_continued_through_another_geometry(made):
    data, run = made
    with pytest.raises(zerolabel.errors.StoreError, match="geometry picie-320 instead of unset"):
        zerolabel.segment(data, run.path, method="kmeans", k=2, size=64)


def test_a_plain_folder_is_looked_at_through_a_geometry(made):
    samples, words = open_samples(made[0] / "images", None, geometry="transfgu")
    assert words == "a folder, through transfgu"
    assert [sample.load().shape for sample in samples] == [(*SQUARE, 3)] * 3
    plain, _ = open_samples(made[0] / "images", None)
    assert {sample.digest() for sample in samples}.isdisjoint(sample.digest() for sample in plain)


def test_unknown_geometries_are_named(made, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'picie-320'"):
        zerolabel.segment(made[0], tmp_path, geometry="picie320")


@pytest.mark.parametrize(
    ("protocol", "refine", "message"),
    [
        ("stego-320", "crf", "without a dense CRF; this run was refined by crf.*--refine bilinear"),
        ("stego-320-crf", "guided", "refined by a dense CRF; this run .* guided.*--refine crf"),
    ],
)
def test_a_run_that_contradicts_the_protocol_is_refused(
    tmp_path, data, truth, protocol, refine, message
):
    run = says(write_run(tmp_path / "run", truth), refine=refine)
    with pytest.raises(UsageError, match=message):
        evaluate(run, data, protocol=protocol)


@pytest.mark.parametrize("refine", ["crf", "guided", None])
def test_a_run_that_does_not_contradict_is_scored(tmp_path, data, truth, refine):
    run = says(write_run(tmp_path / "run", truth), refine=refine)
    for name, rules in PROTOCOLS.items():
        if rules.matching == "nearest":
            continue  # needs a run with a model
        fits = rules.crf == "any" or refine is None or (refine == "crf") == (rules.crf == "on")
        if rules.judges == "masks" and fits and rules.match_on == "val" and name != "full-nobg":
            result = evaluate(run, data, protocol=name)
            assert result["pixel_accuracy"] == 1
            assert result["run"]["refine"] == refine
