import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from probe_world import KINDS, Colours, arrays, miou, tokens_of, write_voc
from reference import patches as reference

from zerolabel import backbones
from zerolabel.cli.evaluate import evaluate
from zerolabel.data.planted import plant
from zerolabel.errors import DataError, UsageError
from zerolabel.jobs.probing.dense_knn import evaluate_dense_knn
from zerolabel.jobs.probing.retrieval import evaluate_pooled_kmeans, evaluate_retrieval

SMALL = {"backbone": "colours", "size": (48, 48)}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    load, colours = backbones.load, Colours()
    monkeypatch.setattr(
        backbones,
        "load",
        lambda name, **others: colours if name == "colours" else load(name, **others),
    )
    return colours


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "VOC2012")


def test_patches_find_planted_classes(voc, tmp_path):
    result = evaluate_dense_knn(voc, **SMALL, seeds=2, patches=30, k=5, out=tmp_path / "out")
    found = {entry["name"]: entry["iou"] for entry in result["per_class"]}
    assert min(found[name]["mean"] for name in ("background", "aeroplane", "cat", "dog")) > 0.7
    assert found["sheep"] is None, "neither true nor predicted"
    assert result["patches"] == 12 * 30
    assert result["settings"] == {"patches": 30, "k": 5, "temperature": 0.07}
    saved = (tmp_path / "out" / "evaluation-dense-knn.json").read_text()
    assert json.loads(saved) == result


def test_dense_neighbours_are_those_of_a_loop(voc):
    """All patches in the bank; votes upsampled to pixels."""
    for split in ("train", "val"):
        listing = voc / "ImageSets/Segmentation" / f"{split}.txt"
        listing.write_text("".join(f"{split}_{i:02}\n" for i in range(4)))
    result = evaluate_dense_knn(voc, **SMALL, patches=999, k=7)
    images, labels = arrays(voc, "train")
    rows, ids = [], []
    for image, label in zip(tokens_of(images), labels, strict=True):
        own = reference.patch_labels(label, (6, 6), 21)
        rows += [image[place].numpy() for place in np.ndindex(6, 6)]
        ids += [own[place] for place in np.ndindex(6, 6)]
    images, labels = arrays(voc, "val")
    found = []
    for image in tokens_of(images):
        votes = reference.dense_knn(np.stack(rows), ids, image.numpy(), 21, k=7, temperature=0.07)
        large = torch.nn.functional.interpolate(
            torch.from_numpy(votes)[None], (48, 48), mode="bilinear"
        )
        found.append(large[0].argmax(0).numpy())
    assert result["miou"]["mean"] == pytest.approx(miou(labels, found), abs=2e-3)


def test_salient_parts_are_retrieved_by_attention(voc, tmp_path, planted):
    settings = {**SMALL, "mass": 0.9, "out": tmp_path / "out"}
    result = evaluate_retrieval(voc, **settings)
    found = {entry["name"]: entry["iou"] for entry in result["per_class"]}
    assert min(found[name] for name in ("background", "aeroplane", "cat", "dog")) > 0.7
    assert found["sheep"] == 0, "absent classes count 0"
    assert result["bank_images"] == 12
    assert (result["saliency"], result["mass"]) == ("attention", 0.9)
    assert np.array(result["counts"]).shape == (21, 22)
    seven = {entry["name"]: entry["iou"] for entry in result["seven"]["per_class"]}
    assert list(seven) == ["aeroplane", "bottle", "bus", "car", "cat", "cow", "person"]
    assert result["seven"]["miou"] == pytest.approx(sum(seven.values()) / 7)
    assert min(seven["aeroplane"], seven["cat"]) > 0.3
    saved = (tmp_path / "out" / "evaluation-retrieval.json").read_text()
    assert json.loads(saved) == result
    seen = planted.seen
    assert evaluate_retrieval(voc, **settings) == result
    assert planted.seen == seen


def masks_of(voc, folder, *, value=255):
    """Saliency masks: the squares, one pixel short at the bottom."""
    folder.mkdir()
    for path in (voc / "SegmentationClass").iterdir():
        label = np.array(Image.open(path))
        salient = np.isin(label, list(KINDS))
        salient[1:] &= salient[:-1]
        Image.fromarray((salient * value).astype(np.uint8)).save(folder / path.name)
    return folder


@pytest.mark.parametrize("value", [1, 255])
def test_masks_say_what_is_salient(voc, tmp_path, value):
    """The whole job with plain arrays: sums of tokens, nearest image, whole masks labelled."""
    folder = masks_of(voc, tmp_path / "salient", value=value)
    result = evaluate_retrieval(voc, **SMALL, saliency=folder)
    splits = {}
    for split in ("train", "val"):
        images, labels = arrays(voc, split)
        masks = [
            np.asarray(Image.open(folder / f"{split}_{i:02}.png")) > 0 for i in range(len(images))
        ]
        vectors = [
            reference.prototype(tokens.numpy(), mask)
            for tokens, mask in zip(tokens_of(images), masks, strict=True)
        ]
        splits[split] = list(zip(vectors, labels, masks, strict=True))
    expected = reference.retrieve(splits["train"], splits["val"], 21, range(1, 21))
    np.testing.assert_array_equal(result["counts"], expected)
    assert (result["saliency"], result["mass"]) == (str(folder), None)


def test_a_backbone_without_attention_needs_masks(voc, tmp_path):
    with pytest.raises(UsageError, match="filterbank gives no attention.*--saliency"):
        evaluate_retrieval(voc, backbone="filterbank", size=(48, 48))
    folder = masks_of(voc, tmp_path / "salient")
    result = evaluate_retrieval(voc, backbone="filterbank", size=(48, 48), saliency=folder)
    assert result["miou"] > 0.1


def test_salient_parts_are_clustered(voc, tmp_path):
    settings = {**SMALL, "mass": 0.9, "k": 3, "components": 3, "seeds": 3}
    result = evaluate_pooled_kmeans(voc, **settings, split="train", out=tmp_path / "out")
    found = {entry["name"]: entry["iou"]["mean"] for entry in result["per_class"]}
    assert min(found[name] for name in ("background", "aeroplane", "cat", "dog")) > 0.3
    assert result["seeds"] == [1234, 1235, 1236]
    assert len(result["miou"]["per_seed"]) == 3
    assert result["protocol"]["matching"] == "hungarian-iou"
    assert (tmp_path / "out" / "evaluation-maskcontrast-kmeans.json").is_file()


def test_errors_of_salient_parts(voc, tmp_path):
    with pytest.raises(DataError, match="Expected 20 images with a salient part or more, found 6"):
        evaluate_pooled_kmeans(voc, **SMALL)
    with pytest.raises(UsageError, match="up to 1, found 0"):
        evaluate_retrieval(voc, **SMALL, mass=0)
    streets = plant("camvid", tmp_path, images=2, size=(32, 32))
    for job in (evaluate_retrieval, evaluate_pooled_kmeans):
        with pytest.raises(DataError, match="whose class 0 is background, found '.*' in camvid"):
            job(streets, **SMALL)
    folder = masks_of(voc, tmp_path / "salient")
    path = folder / "val_02.png"
    Image.new("L", (9, 9), 255).save(path)
    with pytest.raises(DataError, match=r"val_02.*expected \(height, width\) \(48, 48\), found"):
        evaluate_retrieval(voc, **SMALL, saliency=folder)
    path.unlink()
    with pytest.raises(DataError, match=r"val_02\.png cannot be read"):
        evaluate_retrieval(voc, **SMALL, saliency=folder)


def invoke(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def test_the_commands(voc, tmp_path):
    words = ("--backbone", "colours", "--size", 48)
    result = invoke(voc, "--protocol", "dense-knn", *words, "--set", "patches=9", "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("protocol dense-knn, voc, colours at 48x48, neighbours in 12")
    folder = masks_of(voc, tmp_path / "salient")
    result = invoke(voc, "--protocol", "retrieval", *words, "--saliency", folder)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].endswith("scored on 6 of val, 12 to retrieve from")
    assert lines[-2].startswith("mIoU ")
    assert lines[-1].endswith("bottle, bus, car, cat, cow, person   (percent, C = 7)")
    result = invoke(voc, "--protocol", "maskcontrast-kmeans", *words, "--set", "k=3")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        "protocol maskcontrast-kmeans, voc, colours at 48x48, scored on 6 of val, 5 seeds"
    )
