import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from probe_world import Colours, arrays, miou, tokens_of, write_voc
from reference import published_probes as reference

from zerolabel import backbones
from zerolabel.cli.evaluate import evaluate
from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.published_probes import (
    MaskContrastLinear,
    MaskContrastProbe,
    StegoProbe,
    StegoProbes,
)
from zerolabel.jobs.probing.dense_knn import evaluate_dense_knn
from zerolabel.jobs.probing.maskcontrast import evaluate_maskcontrast
from zerolabel.jobs.probing.stego import evaluate_stego_cluster, evaluate_stego_linear
from zerolabel.store import read_stage

SMALL = {"backbone": "colours", "size": (48, 48), "epochs": 4, "batch": 4}
CROP = {"backbone": "colours", "size": 48, "train_size": 48, "steps": 120, "batch": 5}
STILL = {"flip": 0.0, "angle": 0.0, "scale": (1.0, 1.0)}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    colours = Colours()
    monkeypatch.setattr(backbones, "load", lambda name, **_: colours)
    return colours


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "VOC2012")


def ious(result):
    return {entry["name"]: entry["iou"] and entry["iou"]["mean"] for entry in result["per_class"]}


def test_the_layer_of_maskcontrast_finds_planted_classes(voc, tmp_path):
    result = evaluate_maskcontrast(voc, **SMALL | {"epochs": 12}, out=tmp_path / "out")
    found = ious(result)
    assert min(found[name] for name in ("background", "aeroplane", "cat", "dog")) > 0.5
    assert found["sheep"] == 0, "absent classes count 0"
    assert result["classes"] == 21
    assert (result["train_images"], result["images"]) == (12, 6)
    assert result["settings"]["epochs"] == 12
    assert result["settings"]["lr"] == 0.1
    assert json.loads((tmp_path / "out/evaluation-maskcontrast-linear.json").read_text()) == (
        json.loads(json.dumps(result))
    )


def test_an_epoch_without_augmentation_is_that_of_a_convolution(voc):
    result = evaluate_maskcontrast(voc, **SMALL | {"epochs": 1}, **STILL)
    images, labels = arrays(voc, "train")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    start = MaskContrastProbe(MaskContrastLinear(), 24, 21, seed=0).state()["weight"]
    x, y = tokens_of(images), torch.from_numpy(np.stack(labels)).long()
    rows = [order[i : i + 4] for i in (0, 4, 8)]
    conv = reference.maskcontrast([(x[r], y[r]) for r in rows], weight=start, rates=[0.1] * 3)
    images, labels = arrays(voc, "val")
    with torch.no_grad():
        logits = conv(reference.grid(tokens_of(images)))
    found = torch.nn.functional.interpolate(logits, (48, 48), mode="bilinear").argmax(1).numpy()
    assert result["miou"]["mean"] == pytest.approx(miou(labels, found, zero=True), abs=2e-3)


def test_the_best_epoch_on_the_scored_split_counts(voc, tmp_path):
    """Also where its pixels are not those of the label."""
    wide = write_voc(tmp_path / "wide", size=(56, 72))
    result = evaluate_maskcontrast(wide, **SMALL, lr=3.0, out=tmp_path / "out")
    stages = (tmp_path / "out/cache/maskcontrast-linear").glob("*/*.safetensors")
    curve = {int(path.stem): read_stage(path).info["miou"] for path in stages}
    assert sorted(curve) == [0, 1, 2, 3]
    assert result["epochs"] == [max(curve, key=lambda epoch: (curve[epoch], -epoch))]


def test_an_interrupted_training_goes_on(voc, tmp_path, planted):
    whole = evaluate_maskcontrast(voc, **SMALL, seeds=2)

    def stop(work, done, total):
        if work == "epoch 2" and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_maskcontrast(voc, **SMALL, seeds=2, out=tmp_path / "out", progress=stop)
    planted.seen = 0
    assert evaluate_maskcontrast(voc, **SMALL, seeds=2, out=tmp_path / "out") == whole
    assert planted.seen == 2 * 12 + 4 * 12, "two epochs of the first seed were done"


@pytest.mark.parametrize(
    ("job", "settings"),
    [
        (evaluate_maskcontrast, SMALL | {"epochs": 1, "batch": 1, "lr": 0.5}),
        (evaluate_stego_linear, CROP | {"lr": 0.05}),
        (evaluate_stego_cluster, CROP | {"steps": 20}),
        (evaluate_dense_knn, {"backbone": "colours", "size": (48, 48)}),
    ],
)
def test_labels_of_the_scored_split_only_score(voc, monkeypatch, job, settings):
    predictions = []
    add = Confusion.add

    def note(self, truth, prediction):
        predictions.append(prediction.copy())
        add(self, truth, prediction)

    monkeypatch.setattr(Confusion, "add", note)
    first = job(voc, **settings)
    before, predictions[:] = list(predictions), []
    masks = sorted((voc / "SegmentationClass").glob("val_*.png"))
    contents = [path.read_bytes() for path in masks]
    for path, content in zip(masks, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    second = job(voc, **settings)
    assert first["miou"] != second["miou"]
    for one, other in zip(before, predictions, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stego_probes_are_those_of_torch(voc):
    """Six images, batches of five: they run from one epoch into the next."""
    few = voc / "ImageSets/Segmentation/train.txt"
    few.write_text("".join(f"train_{i:02}\n" for i in range(6)))
    settings = CROP | {"steps": 4}
    results = [job(voc, **settings) for job in (evaluate_stego_linear, evaluate_stego_cluster)]
    images, labels = arrays(voc, "train")
    orders = [
        torch.randperm(6, generator=torch.Generator().manual_seed(epoch)).tolist()
        for epoch in range(4)
    ]
    rows = sum(orders, [])
    x, y = tokens_of(images), torch.from_numpy(np.stack(labels)).long()
    batches = [(x[rows[i : i + 5]], y[rows[i : i + 5]]) for i in (0, 5, 10, 15)]
    start = StegoProbe(StegoProbes(), 24, 21, seed=0).state()
    conv, prototypes = reference.stego(batches, **start, lr=5e-3)
    images, labels = arrays(voc, "val")
    mirrored = tokens_of([image[:, ::-1] for image in images]).flip(2)
    tokens = (tokens_of(images) + mirrored) / 2
    with torch.no_grad():
        logits = conv(reference.grid(tokens))
    linear = torch.nn.functional.interpolate(logits, (48, 48), mode="bilinear").argmax(1).numpy()
    assert results[0]["miou"]["mean"] == pytest.approx(miou(labels, linear), abs=2e-3)
    clusters = np.stack([reference.assign(x, prototypes, (48, 48)).numpy() for x in tokens])
    counts = Confusion(21, 21)
    counts.add(np.stack(labels), clusters)
    # The best permutation by pixels; its score by sets.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts.counts[:, :-1], maximize=True)
    names = dict(zip(columns.tolist(), rows.tolist(), strict=True))
    agree = np.mean(
        [
            names[k] == c
            for k, c in zip(
                clusters[np.stack(labels) != 255],
                np.stack(labels)[np.stack(labels) != 255],
                strict=True,
            )
        ]
    )
    assert results[1]["pixel_accuracy"]["mean"] == pytest.approx(agree, abs=2e-3)


def test_stego_probes_find_planted_classes(voc, tmp_path, planted):
    linear = evaluate_stego_linear(voc, **CROP, lr=0.05, out=tmp_path / "out")
    found = ious(linear)
    assert min(found[name] for name in ("background", "aeroplane", "cat", "dog")) > 0.6
    assert found["sheep"] is None or found["sheep"] == 0
    assert linear["size"] == [48, 48]
    assert (linear["settings"]["steps"], linear["settings"]["batch"]) == (120, 5)
    seen = planted.seen
    cluster = evaluate_stego_cluster(voc, **CROP, lr=0.05, out=tmp_path / "out")
    assert planted.seen == seen, "the other protocol trains and encodes nothing again"
    assert cluster["protocol"]["matching"] == "hungarian"
    assert cluster["pixel_accuracy"]["mean"] > 0.5
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {
        "evaluation-stego-linear.json",
        "evaluation-stego-cluster.json",
    }


def test_other_labels_train_again(voc, tmp_path):
    """The cache is of images; labels that were corrected must not meet probes of the old ones."""
    first = evaluate_stego_linear(voc, **CROP, out=tmp_path / "out")
    for path in (voc / "SegmentationClass").glob("*.png"):
        label = np.array(Image.open(path))
        label[label == 1] = 3
        Image.fromarray(label).save(path)
    again = evaluate_stego_linear(voc, **CROP, out=tmp_path / "out")
    assert ious(again)["bird"] == pytest.approx(ious(first)["aeroplane"], abs=0.2)


def test_a_label_space_names_the_file(voc, tmp_path):
    result = evaluate_stego_linear(voc, **CROP | {"steps": 2}, space="voc20", out=tmp_path / "o")
    assert (result["space"], len(result["per_class"])) == ("voc20", 20)
    assert (tmp_path / "o" / "evaluation-stego-linear-voc20.json").is_file()


def test_errors_of_published_probes(voc):
    with pytest.raises(UsageError, match="Unknown setting 'epoch'. Did you mean 'epochs'"):
        evaluate_maskcontrast(voc, backbone="colours", epoch=3)
    with pytest.raises(UsageError, match="epochs and batch must be 1 or more"):
        evaluate_maskcontrast(voc, backbone="colours", epochs=0)
    with pytest.raises(UsageError, match="steps and batch must be 1 or more"):
        evaluate_stego_linear(voc, backbone="colours", steps=0)
    with pytest.raises(UsageError, match="at least 1; found 0"):
        evaluate_stego_linear(voc, backbone="colours", seeds=0)
    with pytest.raises(UsageError, match="needs at least 8 pixels a side"):
        evaluate_maskcontrast(voc, backbone="colours", size=(4, 4))
    (voc / "JPEGImages" / "train_03.png").write_bytes(b"torn")
    for job, settings in ((evaluate_maskcontrast, SMALL), (evaluate_stego_linear, CROP)):
        with pytest.raises(DataError, match=r"train_03\.png: not an image.*must be readable"):
            job(voc, **settings)


def invoke(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def test_the_commands(voc, tmp_path):
    small = ("--set", "epochs=1", "--set", "batch=4", "--size", 48, "--backbone", "colours")
    result = invoke(voc, "--protocol", "maskcontrast-linear", *small)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        "protocol maskcontrast-linear, voc, colours at 48x48, trained on 12 images of train, "
        "scored on 6 of val, 1 seed"
    )
    small = ("--set", "steps=2", "--set", "size=48", "--set", "train-size=48", "--seeds", 2)
    for name in ("stego-linear", "stego-cluster"):
        result = invoke(voc, "--protocol", name, *small, "--backbone", "colours")
        assert result.exit_code == 0, result.output
        assert "scored on 6 of val, 2 seeds" in result.stdout
        assert " +- " in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stego-linear", "--size", "48"), "--size: for --protocol"),
        (("dense-knn", "--set", "split=val"), "split is none of them"),
        (("knn", "--set", "k=3"), "--set: for --protocol maskcontrast-linear or"),
        (("dense-knn", "--saliency", "."), "--saliency: for --protocol retrieval or"),
    ],
)
def test_words_that_do_not_belong_to_a_probe(voc, words, message):
    result = invoke(voc, "--protocol", *words)
    assert result.exit_code == 2
    assert message in result.output
