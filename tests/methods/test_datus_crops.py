"""DatUS2 with crops described by a residual network, and the count of its segments."""

import json

import numpy as np
import pytest
import torch
from planted import fitted, label_maps, small_bank, tiny_vit
from reference.resnet import moco_v2, weights_of

from zerolabel.backbones.crop_encoder import load_crop_encoder
from zerolabel.data.planted import plant
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import load_batch
from zerolabel.errors import UsageError, WeightsError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import Options
from zerolabel.jobs.run.model import load
from zerolabel.jobs.segment import segment
from zerolabel.methods.datus import PRESETS
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.stages.describe import cut_out
from zerolabel.store import Store
from zerolabel.types import RegionMap

pytestmark = pytest.mark.usefixtures("small_worlds")
BODY = ResNetConfig("bottleneck", (1, 1, 1, 1), width=8)
SMALL = {"size": (48, 64), "crop_resize": 40, "crop_size": 32, "restarts": 2, "k": 3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        torch.save(moco_v2(weights_of(BODY, seed)), folder / f"{seed}.pth")
    return folder


def cnn(weights, seed=0, **more):
    return {"crop_encoder": "resnet", "crop_weights": str(weights / f"{seed}.pth")} | SMALL | more


@pytest.mark.parametrize("backbone", [tiny_vit, small_bank])  # the second has no CLS token
def test_segments_are_described_by_what_the_network_says_of_their_crops(weights, backbone):
    samples = world(3, images=3)
    made, store = fitted("datus", samples, backbone=backbone(), **cnn(weights))
    assert made.arrays["centroids"].shape == (3, 32 * 8)
    assert not [note for note in made.notes if "masked pooling" in note]
    encoder = load_crop_encoder(str(weights / "0.pth"), norm="imagenet")
    loaded = load_batch(samples[:1], (48, 64))[0]
    [(_, found), *_] = made.find(samples, store)[0]
    regions = RegionMap(
        found.ids.numpy().astype(np.int32), found.valid.numpy(), np.arange(len(found.valid))
    )
    expected = encoder(torch.stack(cut_out(loaded[0], regions, made.config)))
    expected = torch.nn.functional.normalize(expected, dim=1)
    torch.testing.assert_close(found.vectors, expected, atol=1e-4, rtol=0)
    assert label_maps(made, samples, store).keys() == {sample.id for sample in samples}


def test_other_weights_are_not_taken_from_the_cache(weights, tmp_path):
    samples, store = world(3, images=3), Store(tmp_path)
    first, second = (
        fitted("datus", samples, backbone=tiny_vit(), store=store, **cnn(weights, seed))[0]
        for seed in (0, 1)
    )
    assert first.others() != second.others()
    assert not torch.equal(first.arrays["centroids"], second.arrays["centroids"])
    suim = fitted(
        "datus", samples, backbone=tiny_vit(), store=store, **cnn(weights, crop_norm="suim")
    )
    assert not torch.equal(first.arrays["centroids"], suim[0].arrays["centroids"])


def test_a_run_knows_the_weights_and_its_segments(weights, tmp_path):
    root = plant("camvid", tmp_path / "data", images=3, size=(48, 64), splits=["val"])
    options = Options(
        method="datus", backbone="random-vitt16", split="val", settings=cnn(weights, minimum=2)
    )
    segment(root, tmp_path / "run", options=options, overlays=False, report=False)
    run = json.loads((tmp_path / "run/run.json").read_text())
    encoder = load_crop_encoder(str(weights / "0.pth"), norm="imagenet")
    assert run["job"]["weights of crop encoder"] == encoder.digest
    counted = run["segments"]
    assert counted["images"] == 3 <= counted["valid"] <= counted["segments"]
    assert counted["valid_share"] == counted["valid"] / counted["segments"]
    assert evaluate(tmp_path / "run", root, split="val")["segments"] == counted
    assert load(tmp_path / "run").method.others() == {"crop encoder": encoder.digest}
    other = (weights / "1.pth").read_bytes()
    before = (weights / "0.pth").read_bytes()
    try:
        (weights / "0.pth").write_bytes(other)
        with pytest.raises(WeightsError, match="other weights of crop encoder"):
            load(tmp_path / "run")
    finally:
        (weights / "0.pth").write_bytes(before)


def test_the_share_of_valid_segments_is_that_of_the_regions_found():
    samples = world(4, images=4)
    made, store = fitted("datus", samples, backbone=small_bank(), size=(64, 64), k=3, minimum=6)
    found = [segments for _, segments in made.find(samples, store)[0]]
    sizes = [(s.ids == r).sum() for s in found for r in range(len(s.valid))]
    counted = made.counted()
    assert counted["segments"] == len(sizes)
    assert counted["valid"] == sum(int(s.valid.sum()) for s in found)
    assert 0 < counted["valid_share"] <= 1
    del made.arrays["counted"]  # a model of an older version
    assert made.counted() == {}


def test_settings_that_make_no_sense_are_refused_before_work(weights):
    samples = world(2, images=2)
    with pytest.raises(UsageError, match="describe=pool makes none"):
        fitted("datus", samples, backbone=tiny_vit(), **cnn(weights, describe="pool"))
    with pytest.raises(UsageError, match="expected --set crop_weights=FILE"):
        fitted("datus", samples, backbone=tiny_vit(), **cnn(weights, crop_weights=""))
    made = {"crop_weights": "nowhere.pth"}
    with pytest.raises(WeightsError, match="nowhere.pth is not a file"):
        fitted("datus", samples, backbone=tiny_vit(), **cnn(weights, **made))


@pytest.mark.parametrize(("name", "k"), [("suim8", 8), ("suim6", 6), ("suim5", 5), ("coco27", 27)])
def test_presets_of_data_sets_are_the_papers_settings_and_k(name, k):
    expected = vars(PRESETS["paper"]) | {"k": k}
    assert vars(PRESETS[name]) == expected
