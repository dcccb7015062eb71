"""What a student learned, as a backbone: loaded from the model of its run, and probed."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import zerolabel
from zerolabel import backbones
from zerolabel.backbones.student import StudentBackbone, load_student
from zerolabel.cli import main
from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError, WeightsError
from zerolabel.jobs.probing.linear import evaluate_linear

pytestmark = pytest.mark.usefixtures("small_worlds")
TINY = {"backbone": "random-clipt16", "classes": "sky, sand, brick", "short": 32, "crop": 32}
TINY |= {"templates": "plain", "batch": 4, "views": 1}
UNTAUGHT = {name: TINY[name] for name in ("backbone", "classes", "short", "templates")}
TAUGHT = {"student": "small", "student_steps": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """CamVid's layout: 12 images to train on, 4 to score."""
    root = tmp_path_factory.mktemp("scenes")
    for split, count, seed in (("train", 12, 0), ("val", 4, 0)):
        for i, sample in enumerate(world(3, images=count, size=(48, 48), seed=seed)):
            for folder, array in (
                (split, sample.load()),
                (f"{split}annot", sample.load_label().astype(np.uint8)),
            ):
                (root / folder).mkdir(exist_ok=True)
                Image.fromarray(array).save(root / folder / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    zerolabel.fit(scenes / "train", out=out, method="maskclip+", **TINY, **TAUGHT)
    return out


def test_the_probe_reads_what_the_student_sees(scenes, run, tmp_path):
    weights, out = run / "model.safetensors", tmp_path / "out"
    options = {"backbone": "student", "weights": weights, "size": (50, 55), "seeds": 2}
    found = evaluate_linear(scenes, **options, out=out)
    backbone = load_student(weights)
    assert (found["backbone"], found["weights"]) == ("student", backbone.digest)
    assert (found["size"], found["images"], found["train_images"]) == ([48, 48], 4, 12)
    assert found["miou"]["mean"] > found["floor"] + 0.1

    kept = {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*.safetensors")}
    assert kept
    assert evaluate_linear(scenes, **options, out=out) == found
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing is encoded again


def test_the_command_takes_the_model_of_a_run(scenes, run, tmp_path):
    line = ["evaluate", scenes, "--protocol", "linear-probe", "--backbone", "student"]
    line += ["--weights", run / "model.safetensors", "--size", "48", "--seeds", "1"]
    found = CliRunner().invoke(main.cli, [*map(str, line), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "student" in found.output


def test_a_student_is_loaded_by_its_name(run):
    backbone = backbones.load("student", weights=run / "model.safetensors", device="cpu")
    assert isinstance(backbone, StudentBackbone)
    assert (backbone.name, backbone.device, backbone.gives) == (
        "student",
        torch.device("cpu"),
        {"tokens"},
    )
    assert backbone.dim == 64
    with pytest.raises(UsageError, match="Unknown device 'gpu'"):
        backbones.load("student", weights=run / "model.safetensors", device="gpu")


def test_what_is_no_student_is_refused(scenes, run, tmp_path):
    with pytest.raises(WeightsError, match="lies in the model of the run that taught it"):
        backbones.load("student")
    with pytest.raises(WeightsError, match="is not a file"):
        backbones.load("student", weights=tmp_path / "model.safetensors")
    zerolabel.fit(scenes / "train", out=tmp_path, method="maskclip", **UNTAUGHT)
    with pytest.raises(WeightsError, match=r"holds no student.*of maskclip\+"):
        evaluate_linear(scenes, backbone="student", weights=tmp_path / "model.safetensors")


def test_another_method_may_build_on_what_a_student_sees(scenes, run, tmp_path):
    """A model of it names the student by its hash, and asks for the file again."""
    weights = str(run / "model.safetensors")
    made = zerolabel.fit(
        scenes / "train",
        out=tmp_path,
        method="kmeans",
        k=2,
        size=48,
        backbone="student",
        weights=weights,
    )
    photo = scenes / "val" / "00.png"
    again = zerolabel.load(tmp_path, weights=weights)
    np.testing.assert_array_equal(again.predict(photo).label_map, made.predict(photo).label_map)
    with pytest.raises(WeightsError, match=r"--weights RUN/model\.safetensors"):
        zerolabel.load(tmp_path)
