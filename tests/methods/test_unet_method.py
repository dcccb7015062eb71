"""U-Net as a method: what labels bring."""

import numpy as np
import pytest
import torch

from zerolabel.backbones import load
from zerolabel.data.folder import from_arrays
from zerolabel.errors import UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.settings import build
from zerolabel.store import Store

SMALL = {"size": (48, 48), "base": 4, "depth": 2, "batch": 4, "iterations": 4}


def photos(count, *, seed=0):
    """Stripes of three colours; the label of a stripe is its colour, a border is not scored."""
    colours = np.array([[200, 60, 50], [60, 180, 70], [50, 80, 210]])
    samples = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        label = rng.permutation(3)[np.minimum(np.arange(48) // 16, 2)][:, None].repeat(48, 1)
        image = colours[label] + rng.normal(0, 12, (48, 48, 3))
        label = label.astype(np.uint8)
        label[:, :2] = 255
        samples.append(from_arrays(f"{i}.png", image.clip(0, 255).astype(np.uint8), label))
    return samples


def fitted(samples, *, store=None, **settings):
    method = build("unet", load("none"), preset="protocol", settings=SMALL | settings)
    method.fit(samples, store=store or Store())
    return method


def test_labels_are_learned():
    method = fitted(photos(12), iterations=60, dropout=0.0, base=8)
    held = photos(6, seed=1)
    found, failures = method.evidence(held, store=Store())
    assert not failures
    model = Model(method)
    for sample, evidence in found:
        truth = sample.load_label()
        labels = model.label_map(evidence, sample.load())
        assert (labels == truth)[truth != 255].mean() > 0.95


def test_images_without_a_label_are_left_out():
    plain = [from_arrays("x.png", sample.load()) for sample in photos(1, seed=5)]
    with_both, only = fitted([*photos(4), *plain]), fitted(photos(4))
    assert all(torch.equal(v, with_both.arrays[k]) for k, v in only.arrays.items())
    with pytest.raises(UsageError, match="wnet"):
        fitted(plain)


def test_ids_beyond_the_classes_are_an_error():
    with pytest.raises(UsageError, match="Expected labels"):
        fitted(photos(3), k=2)


def test_an_interrupted_fit_ends_the_same(tmp_path):
    whole = fitted(photos(4), store=Store(tmp_path))
    again = fitted(photos(4), store=Store(tmp_path))
    assert all(torch.equal(v, again.arrays[k]) for k, v in whole.arrays.items())


def test_explain_draws_the_classes():
    method = fitted(photos(3))
    anatomy = method.look_into(photos(1)[0], store=Store())
    assert anatomy.tokens.shape == (28, 28, 3)
    assert list(anatomy.maps) == [f"class {k}" for k in map(int, _order(method))]


def _order(method):
    scores = method._look(photos(1)[0])
    return torch.bincount(scores.argmax(0).flatten(), minlength=3).argsort(descending=True)
