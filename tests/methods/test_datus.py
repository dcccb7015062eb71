from dataclasses import asdict

import numpy as np
import pytest
import torch
from planted import broken, fitted, label_maps, miou, small_bank, tiny_vit

from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import load_batch
from zerolabel.errors import UsageError
from zerolabel.methods import datus, regions
from zerolabel.methods.configs import configure
from zerolabel.methods.datus import PRESETS, Datus
from zerolabel.stages import segments
from zerolabel.stages.discover import DISCOVER
from zerolabel.store import Store
from zerolabel.types import Features, Sample

# What the paper, its published reviews and code say; None where they say nothing.
PAPER = {
    "size": (224, 224),
    "channel_order": "rgb",
    "features": "keys",
    "centre": "none",
    "discover": "louvain",
    "weighted": False,
    "self_loops": True,
    "resolution": 1.0,
    "starts": 1,
    "connectivity": 8,
    "minimum": 6,  # more than tau = 5 patches
    "describe": "crop-cls",
    "fill": "black",
    "crop_fit": "centercrop",
    "crop_resize": 256,
    "crop_size": 224,
    "categorise": "kmeans",
    "init": "k-means++",
    "noise": "ignore",
    "refine": "nearest",
}
CODE = PAPER | {
    "channel_order": "bgr",
    "init": "random",
    "categorise": "minibatch",
    "restarts": 1,
}
SMALL = {"size": (48, 64), "crop_resize": 40, "crop_size": 32, "restarts": 2}


@pytest.mark.parametrize(("preset", "table"), [("paper", PAPER), ("paper-code", CODE)])
def test_the_presets_are_the_published_choices(preset, table):
    assert table.items() <= asdict(PRESETS[preset]).items()


def test_the_default_labels_every_pixel_and_the_protocol_does_without_the_photo():
    default, protocol = asdict(PRESETS["default"]), asdict(PRESETS["protocol"])
    assert (default["noise"], default["refine"]) == ("nearest", "guided")
    assert default | {"refine": "bilinear"} == protocol
    differs = {name for name, value in PAPER.items() if default[name] != value}
    assert differs <= {"weighted", "resolution", "starts", "noise", "refine"}


@pytest.mark.parametrize("seed", range(3))
def test_planted_categories_are_found(seed):
    samples = world(6, images=12, seed=seed)
    made, store = fitted("datus", samples, backbone=small_bank(), k=6, seed=seed)
    assert miou(samples, label_maps(made, samples, store), 6) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_more_planted_categories_than_an_image_shows(seed):
    samples = world(8, images=16, seed=seed)
    made, store = fitted("datus", samples, backbone=FilterBank(), k=8, seed=seed)
    assert miou(samples, label_maps(made, samples, store), 8) > 0.88


class Squares:
    """A backbone that sees the mean colour of each cell; keys are twice, CLS thrice as long."""

    name, gives, stride, dim = "squares", frozenset({"tokens", "keys", "cls"}), 8, 3
    digest, learns = "squares", 0

    def __init__(self):
        self.wanted, self.shown = [], []

    def encode(self, images, *, want):
        self.wanted.append(set(want))
        self.shown.append(images)
        x = images.float() / 255 - 0.3
        tokens = torch.nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1)
        found = {"tokens": tokens, "keys": 2 * tokens, "cls": 3 * tokens.mean((1, 2))}
        return Features(**{name: found[name] for name in want})


RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)


def painted(*boxes, size=(48, 64), ground=GREEN, name="a.png"):
    image = np.empty((*size, 3), np.uint8)
    image[:] = ground
    for top, left, bottom, right, colour in boxes:
        image[8 * top : 8 * bottom, 8 * left : 8 * right] = colour
    return from_arrays(name, image)


def watch_discovery(monkeypatch):
    """A list that fills with the patch features of every image that is looked at."""
    seen, discover = [], segments.discover
    monkeypatch.setattr(
        segments, "discover", lambda x, c: (seen.append(x.features), discover(x, c))[1]
    )
    return seen


def noisy_samples():
    """Red beside green; in the green a lonely reddish patch and a dark green one."""
    boxes = [(0, 0, 6, 4, RED), (2, 6, 3, 7, (200, 60, 40)), (5, 7, 6, 8, (60, 140, 40))]
    return [painted(*boxes), painted(boxes[0], name="b.png")]


def test_noise_gets_the_nearest_category_or_none(monkeypatch):
    ids = np.zeros((6, 8), int)
    ids[:, 4:] = 1
    apart = ids.copy()
    apart[2, 6], apart[5, 7] = 2, 3
    answers = iter([apart, ids] * 9)
    monkeypatch.setitem(DISCOVER, "planted", lambda *_: next(answers))
    samples = noisy_samples()
    options = SMALL | {"discover": "planted", "describe": "pool", "k": 2, "refine": "nearest"}
    found = {}
    for noise in ("nearest", "ignore"):
        made, store = fitted("datus", samples, backbone=Squares(), noise=noise, **options)
        found[noise] = label_maps(made, samples, store)
    red, green = found["nearest"]["b.png"][0, 0], found["nearest"]["b.png"][0, -1]
    assert {red, green} == {0, 1}
    expected = np.array([red, green])[ids]
    np.testing.assert_array_equal(found["nearest"]["b.png"][4::8, 4::8], expected)
    np.testing.assert_array_equal(found["ignore"]["b.png"], found["nearest"]["b.png"])
    expected[2, 6] = red  # the patch is green's neighbour, but looks red
    np.testing.assert_array_equal(found["nearest"]["a.png"][4::8, 4::8], expected)
    expected[2, 6] = expected[5, 7] = 255
    np.testing.assert_array_equal(found["ignore"]["a.png"][4::8, 4::8], expected)


def test_small_regions_are_noise_and_only_the_paper_leaves_them_out():
    samples = world(4, images=6, size=(60, 84))
    options = SMALL | {"k": 4, "minimum": 9}
    maps = {}
    for noise in ("nearest", "ignore"):
        made, store = fitted("datus", samples, backbone=small_bank(), noise=noise, **options)
        maps[noise] = label_maps(made, samples, store, name="nearest")
    left_out = np.concatenate([maps["ignore"][s.id].ravel() == 255 for s in samples])
    assert 0.01 < left_out.mean() < 0.3
    every = np.concatenate([maps["nearest"][s.id].ravel() for s in samples])
    assert every.max() == 3
    some = np.concatenate([maps["ignore"][s.id].ravel() for s in samples])
    np.testing.assert_array_equal(every[~left_out], some[~left_out])


def test_typical_is_the_similarity_of_the_best_region():
    samples = [painted((0, 0, 6, 4, RED)), painted((0, 0, 6, 4, BLUE), name="b.png")]
    made, store = fitted("datus", samples, backbone=Squares(), k=3, describe="pool", **SMALL)
    found, _ = made.evidence(samples, store=store)
    names = ["red", "green", "blue"]
    directions = torch.nn.functional.normalize(torch.tensor([RED, GREEN, BLUE]) / 255 - 0.3, dim=1)
    nearest = (directions @ made.arrays["centroids"].T).argmax(1)
    category = dict(zip(names, nearest.tolist(), strict=True))
    first, second = (e.typical for _, e in found)
    assert first[category["blue"]] == second[category["red"]] == -1
    for name in ("red", "green"):
        assert float(first[category[name]]) == pytest.approx(1, abs=1e-3)
    assert float(second[category["blue"]]) == pytest.approx(1, abs=1e-3)


def test_notes_say_what_was_adapted():
    def notes(backbone, **settings):
        made = Datus(configure(PRESETS, "default", settings), backbone)
        return made.notes, made.config

    adapted, config = notes(FilterBank())
    assert [note.split(":")[-1].strip() for note in adapted] == [
        "filterbank gives no keys",
        "filterbank gives no CLS token",
    ]
    assert (config.features, config.describe, config.centre) == ("tokens", "pool", "dataset")
    assert notes(FilterBank(), features="tokens", describe="pool")[0] == []
    assert notes(tiny_vit()) == ([], PRESETS["default"])
    assert notes(FilterBank(), centre="image")[1].centre == "image"


@pytest.mark.parametrize("features", ["keys", "tokens"])
def test_the_graph_is_built_on_the_features_asked_for(features, monkeypatch):
    seen = watch_discovery(monkeypatch)
    backbone, samples = Squares(), noisy_samples()
    made, _ = fitted("datus", samples, backbone=backbone, k=2, features=features, **SMALL)
    assert made.notes == []
    assert {features} in backbone.wanted
    assert {"keys": "tokens", "tokens": "keys"}[features] not in set.union(*backbone.wanted)
    images, _, _ = load_batch(samples, SMALL["size"])
    expected = getattr(Squares().encode(images, want={features}), features)
    torch.testing.assert_close(torch.stack(seen), expected)


def slow_mean(features):
    """Mean over patches, one by one."""
    total, count = torch.zeros(features.shape[-1], dtype=torch.float64), 0
    for patch in features.reshape(-1, features.shape[-1]):
        total += patch.double()
        count += 1
    return (total / count).float()


@pytest.mark.parametrize("centre", ["none", "image", "dataset"])
def test_what_is_subtracted_before_the_graph_is_built(centre, monkeypatch):
    seen = watch_discovery(monkeypatch)
    for module in (datus, regions):
        monkeypatch.setattr(module, "BATCH", 2)
    samples = world(3, images=5, size=(24, 32))
    options = SMALL | {"size": (24, 32), "k": 2, "centre": centre}
    made, store = fitted("datus", [*samples, broken("z")], backbone=tiny_vit(), **options)
    images, _, _ = load_batch(samples, (24, 32))
    keys = tiny_vit().encode(images, want={"keys"}).keys
    mean = {
        "none": lambda image: torch.zeros(64),
        "image": slow_mean,
        "dataset": lambda image: slow_mean(keys),
    }[centre]
    expected = torch.stack([image - mean(image) for image in keys])
    torch.testing.assert_close(torch.stack(seen), expected, atol=1e-5, rtol=0)
    seen.clear()
    photo = world(2, images=1, size=(24, 32), seed=9)  # the mean is that of the fitted images
    made.evidence(photo, store=store)
    new = tiny_vit().encode(load_batch(photo, (24, 32))[0], want={"keys"}).keys[0]
    torch.testing.assert_close(seen[0], new - mean(new), atol=1e-5, rtol=0)


def test_fitting_again_forgets_the_mean():
    options = SMALL | {"size": (24, 32), "k": 2, "centre": "dataset"}
    made, _ = fitted("datus", world(3, images=3, seed=1), backbone=tiny_vit(), **options)
    samples = world(3, images=3, size=(24, 32))
    made.fit(samples, store=Store())
    fresh, _ = fitted("datus", samples, backbone=tiny_vit(), **options)
    assert all(torch.equal(made.arrays[name], fresh.arrays[name]) for name in fresh.arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"channel_order": "bgr"},
        {"features": "tokens"},
        {"size": (32, 40)},
        {"centre": "image"},
        {"minimum": 2},
        {"resolution": 3.0, "describe": "pool"},
        {"fill": "mean"},
    ],
)
def test_runs_of_other_settings_or_data_can_share_a_store(changes, monkeypatch):
    for module in (datus, regions):
        monkeypatch.setattr(module, "BATCH", 2)
    samples, store = world(3, images=4, size=(24, 32)), Store()
    options = SMALL | {"size": (24, 32), "k": 2, "centre": "dataset"}
    fitted("datus", samples[:2], backbone=tiny_vit(), store=store, **options)
    fitted("datus", samples, backbone=tiny_vit(seed=1), store=store, **options)
    for settings in (options, options | changes):
        shared, _ = fitted("datus", samples, backbone=tiny_vit(), store=store, **settings)
        fresh, _ = fitted("datus", samples, backbone=tiny_vit(), **settings)
        assert all(torch.equal(shared.arrays[name], fresh.arrays[name]) for name in fresh.arrays)


def test_a_region_belongs_to_the_nearest_centroid():
    samples = [painted((0, 0, 6, 4, RED))]
    made, store = fitted("datus", samples, backbone=Squares(), k=2, describe="pool", **SMALL)
    red, green = torch.nn.functional.normalize(torch.tensor([RED, GREEN]) / 255 - 0.3, dim=1)
    made.arrays["centroids"] = torch.stack([red, 5 * (red + green), green])  # longer, not nearer
    made.arrays["patches"] = made.arrays["centroids"]
    found = label_maps(made, samples, store, name="nearest")["a.png"]
    assert (found[0, 0], found[0, -1]) == (0, 2)


def test_the_published_code_sees_blue_for_red():
    sample = painted((0, 0, 6, 4, RED), ground=BLUE)
    shown = {}
    for order in ("rgb", "bgr"):
        backbone = Squares()
        fitted("datus", [sample], backbone=backbone, k=2, channel_order=order, **SMALL)
        shown[order] = backbone.shown[0][0]
    assert tuple(shown["rgb"][:, 0, 0].tolist()) == RED
    assert torch.equal(shown["bgr"], shown["rgb"].flip(0))


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_batch_of_crops_does_not_matter(batch):
    samples = world(4, images=6, size=(60, 84))
    options = SMALL | {"k": 4, "centre": "image"}
    one, first = fitted("datus", samples, backbone=tiny_vit(), **options)
    other, second = fitted("datus", samples, backbone=tiny_vit(), crop_batch=batch, **options)
    for name in one.arrays:
        torch.testing.assert_close(one.arrays[name], other.arrays[name], atol=1e-5, rtol=0)
    found = [label_maps(made, samples, store) for made, store in ((one, first), (other, second))]
    assert all(np.array_equal(found[0][s.id], found[1][s.id]) for s in samples)


@pytest.mark.parametrize("root", [False, True])
def test_segments_are_found_once(root, tmp_path):
    loads = []

    def watched(sample):
        return Sample(sample.id, lambda: (loads.append(sample.id), sample.load())[1], sample.digest)

    store = Store(tmp_path if root else None)
    samples = [watched(sample) for sample in world(3, images=18, size=(24, 32))]
    options = SMALL | {"size": (24, 32), "k": 3}
    made, store = fitted("datus", samples, backbone=tiny_vit(), store=store, **options)
    assert loads == [sample.id for sample in samples]
    made.evidence(samples[:16], store=store)
    made.evidence(samples[16:], store=store)
    assert len(loads) == 18
    other, _ = fitted("datus", samples, backbone=tiny_vit(), store=store, **options | {"k": 4})
    assert (other.k, len(loads)) == (4, 18)  # k comes after the segments
    fitted("datus", samples, backbone=tiny_vit(), store=store, **options | {"minimum": 2})
    assert len(loads) == 36


def test_many_segments_are_sampled_per_image(monkeypatch):
    seen, categorise = [], regions.categorise
    monkeypatch.setattr(
        regions, "categorise", lambda x, c: (seen.append(len(x)), categorise(x, c))[1]
    )
    samples = world(4, images=6, size=(60, 84))
    options = SMALL | {"k": 3, "discover": "kmeans", "describe": "pool"}
    fitted("datus", samples, backbone=small_bank(), **options)
    assert seen[0] >= 15
    monkeypatch.setattr(regions, "ENOUGH", 12)
    fitted("datus", samples, backbone=small_bank(), **options)
    assert 10 <= seen[1] <= 12


@pytest.mark.parametrize("field", ["channel_order", "features", "centre", "noise"])
def test_wrong_choices_are_explained(field):
    with pytest.raises(UsageError, match=f"{field} must be one of .*got 'purple'"):
        Datus(configure(PRESETS, "default", {field: "purple"}), tiny_vit())
