import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from planted import fitted, label_maps, miou, small_bank, tiny_vit

from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import load_batch
from zerolabel.methods import kmeans as method
from zerolabel.methods.kmeans import PRESETS
from zerolabel.ops.cluster import kmeans
from zerolabel.stages.refine import refine

SMALL = {"size": (48, 64), "restarts": 2}


def test_the_protocol_is_the_default_without_help_from_the_photo():
    assert asdict(PRESETS["default"]) | {"refine": "bilinear"} == asdict(PRESETS["protocol"])
    assert PRESETS["default"].refine == "guided"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("categories", "images"), [(6, 8), (10, 12)])
def test_planted_categories_are_found(categories, images, seed):
    samples = world(categories, images=images, seed=seed)
    made, store = fitted("kmeans", samples, backbone=small_bank(), k=categories, seed=seed)
    assert miou(samples, label_maps(made, samples, store), categories) > 0.95
    assert made.notes == []


def test_scores_are_a_softmax_over_squared_distances():
    samples = world(4, images=3, size=(60, 84))
    made, store = fitted("kmeans", samples, backbone=tiny_vit(), k=4, sharpness=7, **SMALL)
    found, _ = made.evidence(samples, store=store)
    images, _, _ = load_batch(samples, SMALL["size"])
    tokens = tiny_vit().encode(images, want={"tokens"}).tokens
    centroids = made.arrays["centroids"]
    for (_, evidence), image in zip(found, tokens, strict=True):
        assert evidence.covered is None
        own = {}
        for row in range(6):
            for col in range(8):
                cosine = torch.stack(
                    [F.cosine_similarity(image[row, col], c, 0) for c in centroids]
                )
                x = F.normalize(image[row, col], dim=0)
                distance = torch.stack([(x - c).square().sum() for c in centroids])
                likely = (-7 * distance / 2).exp()
                expected = likely / likely.sum()
                torch.testing.assert_close(
                    evidence.scores[:, row, col], expected, atol=1e-3, rtol=0
                )
                best = int(evidence.scores[:, row, col].argmax())
                own[best] = max(own.get(best, -1), float(cosine[best]))
        for k in range(4):
            assert float(evidence.typical[k]) == pytest.approx(own.get(k, -1), abs=1e-3)


def test_sharpness_changes_scores_but_no_winner():
    samples = world(4, images=3, size=(60, 84))
    winners, peaks = [], []
    for sharpness in (1, 50):
        made, store = fitted(
            "kmeans", samples, backbone=small_bank(), k=4, sharpness=sharpness, **SMALL
        )
        scores = torch.stack([e.scores for _, e in made.evidence(samples, store=store)[0]])
        winners.append(scores.argmax(1))
        peaks.append(float(scores.amax(1).mean()))
    assert torch.equal(*winners)
    assert peaks[1] > peaks[0] + 0.2


def test_many_patches_are_sampled_per_image(monkeypatch):
    seen, categorise = [], method.categorise
    monkeypatch.setattr(method, "categorise", lambda x, c: (seen.append(x), categorise(x, c))[1])
    monkeypatch.setattr(method, "ENOUGH", 100)
    samples = world(4, images=7, size=(60, 84))
    made, store = fitted("kmeans", samples, backbone=small_bank(), k=4, **SMALL)
    assert seen[0].shape == (7 * 14, 56)
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(98))
    assert miou(samples, label_maps(made, samples, store), 4) > 0.8


def colour_and_position(samples, k, *, seed, size=224, cells=28):
    """Categories of cells by mean colour and place alone, all five numbers equally important."""
    images, _, _ = load_batch(samples, (size, size))
    colour = F.avg_pool2d(images.float(), size // cells).permute(0, 2, 3, 1)
    place = torch.cartesian_prod(*[torch.arange(float(cells))] * 2).reshape(cells, cells, 2)
    x = torch.cat([colour, place.expand(len(images), -1, -1, -1)], -1).flatten(0, 2)
    labels = kmeans((x - x.mean(0)) / x.std(0), k, seed=seed, restarts=3).labels
    scores = F.one_hot(labels.reshape(-1, cells, cells), k).permute(0, 3, 1, 2).float()
    pairs = zip(samples, scores, strict=True)
    return {s.id: refine(score, s.load(), name="guided") for s, score in pairs}


@pytest.mark.slow
@pytest.mark.skipif("ZEROLABEL_DATA" not in os.environ, reason="needs ZEROLABEL_DATA")
def test_real_streets_are_told_apart_better_than_by_colour_and_position():
    found = open_dataset(Path(os.environ["ZEROLABEL_DATA"]) / "camvid", split="val")
    samples = found.samples[::3]  # neighbours in the list are frames of one drive
    k = len(found.classes)
    plain = miou(samples, colour_and_position(samples, k, seed=0), k)
    made, store = fitted("kmeans", samples, backbone=FilterBank(), k=k)
    scored = miou(samples, label_maps(made, samples, store), k)
    assert scored > plain + 0.02
    assert scored > 0.28
