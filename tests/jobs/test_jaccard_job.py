import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from planted import tiny_vit

from zerolabel import backbones
from zerolabel.cli.evaluate import evaluate
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.jaccard import Jaccard
from zerolabel.jobs.evaluate import evaluate as evaluate_run
from zerolabel.jobs.probing.jaccard import evaluate_attention

SIZES = {"a": (48, 64), "b": (40, 40), "c": (64, 33)}


def truth(size, seed):
    ids = np.random.default_rng(seed).choice([0, 1, 2, 255], (2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    for i, (name, size) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3)).astype(np.uint8)
        save(root / "images" / f"{name}.png", pixels)
        save(root / "masks" / f"{name}.png", truth(size, i))
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The backbone "tiny" is a random one; the others are as ever."""
    load = backbones.load

    def found(name, **others):
        return tiny_vit() if name == "tiny" else load(name, **others)

    monkeypatch.setattr(backbones, "load", found)


def expected(size, mass=0.6, background=0):
    """One image at a time, straight from the network."""
    total = Jaccard(mass=mass)
    for i, shape in enumerate(SIZES.values()):
        pixels = np.random.default_rng(i).integers(0, 256, (*shape, 3)).astype(np.uint8)
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        x = torch.nn.functional.interpolate(x, size, mode="bicubic", antialias=True)
        attention = tiny_vit().encode(x, want={"attention"}).attention[0]
        total.add(attention, truth(shape, i), background=background)
    return total.score()


def test_scores_are_those_of_the_network(data, tmp_path):
    out = tmp_path / "out"
    result = evaluate_attention(data, backbone="tiny", size=(48, 56), mass=0.7, out=out)
    score = expected((48, 56), 0.7)
    assert result["scores"]["jaccard"] == pytest.approx(score.jaccard)
    assert result["scores"]["per_head"] == pytest.approx(score.per_head)
    assert result["scores"]["objects"] == score.objects
    assert (result["objects_are"], result["images"], result["missing"]) == ("classes", 3, [])
    assert result["protocol"]["id"] == "jaccard"
    assert json.loads((out / "evaluation-jaccard.json").read_text()) == json.loads(
        json.dumps(result)
    )


def test_where_no_class_is_background_all_are_objects(data):
    (data / "classes.txt").write_text("sky\ncat\ndog\n")
    result = evaluate_attention(data, backbone="tiny", size=(48, 48))
    assert result["scores"]["jaccard"] == pytest.approx(expected((48, 48), background=None).jaccard)


def test_a_grid_that_does_not_divide_the_size(data):
    """50 pixels are six patches of 8 and a rest that continues the last one."""
    result = evaluate_attention(data, backbone="tiny", size=(50, 50))
    assert 0 < result["scores"]["jaccard"] < 1


def test_objects_of_voc_are_told_apart(data, tmp_path):
    """Of two objects of one class each is scored, where they are outlined."""
    root = tmp_path / "VOC2012"
    label, objects = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
    label[:, :20] = label[:, 40:] = 8
    objects[:, :20], objects[:, 40:] = 1, 2
    save(root / "JPEGImages" / "x.png", np.zeros((48, 64, 3), np.uint8))
    save(root / "SegmentationClass" / "x.png", label)
    listing = root / "ImageSets" / "Segmentation" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("x\n")
    first = evaluate_attention(root, backbone="tiny", size=(48, 64))
    assert (first["objects_are"], first["scores"]["objects"]) == ("classes", 1)
    save(root / "SegmentationObject" / "x.png", objects)
    second = evaluate_attention(root, backbone="tiny", size=(48, 64))
    assert (second["objects_are"], second["scores"]["objects"]) == ("objects", 2)


def test_wrong_options_are_explained(data):
    with pytest.raises(UsageError, match="gives tokens, but attention is needed"):
        evaluate_attention(data, backbone="filterbank")
    with pytest.raises(UsageError, match="above 0 and up to 1, found 1.5"):
        evaluate_attention(data, backbone="tiny", mass=1.5)
    with pytest.raises(UsageError, match="size is 4x99, but tiny-test needs at least 8"):
        evaluate_attention(data, backbone="tiny", size=(4, 99))
    with pytest.raises(DataError, match="not a labelled data set"):
        evaluate_attention(data / "images", backbone="tiny")
    with pytest.raises(UsageError, match="judges the attention of a backbone"):
        evaluate_run(data, data, protocol="jaccard")
    (data / "images" / "b.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"b\.png: not an image.*must be readable"):
        evaluate_attention(data, backbone="tiny", size=(48, 48))


def invoke(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def test_the_command(data, tmp_path):
    words = ("--protocol", "jaccard", "--backbone", "tiny", "--size", "48x56", "--out", tmp_path)
    result = invoke(data, *words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "protocol jaccard, data all, tiny-test at 48x56, 60.0 % of the mass" in lines[0]
    assert lines[2].split() == ["head", "Jaccard", "best", "for"]
    assert f"best head of each object {100 * expected((48, 56)).jaccard:.1f}" in lines[-1]
    assert (tmp_path / "evaluation-jaccard.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing option '--data'"),
        (
            ("--data", ".", "--mass", "0.5"),
            "--mass: for --protocol jaccard or",
        ),
        (("--data", ".", "--protocol", "jaccard"), "takes the data set in the place of RUN"),
    ],
)
def test_options_that_do_not_belong_together(data, words, message):
    result = invoke(data, *words)
    assert result.exit_code == 2
    assert message in result.output
