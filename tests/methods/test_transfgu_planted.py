"""TransFGU where what responds is known: categories are found, split, permuted and learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured import Coloured, coloured_world
from planted import broken, fitted, label_maps, miou

from zerolabel.data.folder import from_arrays
from zerolabel.stages.responses import respond
from zerolabel.store import Store

SMALL = {
    "background": "none",
    "apart": False,
    "prior": True,
    "zoom": 2.0,
    "betas": (0.5, 0.4, 0.3, 0.2),
    "windows": "paper",
    "objects": 0.5,
    "attention": "relative",
    "veto": True,
    "grad_scale": 1.0,
    "k": 4,
    "stuff": 2,
    "size": (64, 64),
    "crop_size": 32,
    "stuff_share": 0.99,  # a fifth of an object would outshine the rest
    "mass": 1.0,
    "restarts": 2,
    "train": "initial",
    "distort": False,  # the backbone knows categories by their colours
    "amp": "off",
    "batch": 8,
    "refine": "bilinear",
}
SHORT = {"epochs": 1, "repeat": 2, "start": 9}
TRAINED = {"lr": 3e-3, "epochs": 4, "repeat": 8, "start": 2, "intervals": (1,)}


def fit(samples, *, backbone=None, store=None, **changes):
    backbone = backbone or Coloured()
    return fitted("transfgu", samples, backbone=backbone, store=store, **SMALL | changes)


def patches(made, samples, store):
    """The category of every patch, id -> (h, w)."""
    return {sample.id: e.scores.argmax(0) for sample, e in made.evidence(samples, store=store)[0]}


def truth(sample):
    return torch.from_numpy(sample.load_label()[4::8, 4::8].astype(int))


@pytest.mark.parametrize("train", ["initial", "trained", "bootstrapped"])
def test_planted_categories_are_found(train):
    samples = coloured_world(8)
    made, store = fit(samples, train=train, **TRAINED)
    found = label_maps(made, samples, store)
    assert all(found[s.id].shape == (64, 64) and found[s.id].max() < 4 for s in samples)
    assert miou(samples, found, 4) > (0.9 if train == "initial" else 0.8)
    assert list(made.losses)[-1:] == ([] if train == "initial" else [32])
    # objects come first
    codes = made.arrays["centroids"] @ Coloured().codes.T
    assert set(codes[:2].argmax(1).tolist()) == {2, 3}
    assert set(codes[2:].argmax(1).tolist()) == {0, 1}
    again, store = fit(samples, train=train, **TRAINED)
    assert made.arrays.keys() == again.arrays.keys()
    assert all(torch.equal(value, again.arrays[name]) for name, value in made.arrays.items())


@pytest.mark.parametrize("train", ["initial", "trained"])
def test_what_responds_to_nothing_is_background(train):
    """Attention to the rest is faint, below a twentieth of the most."""
    samples = [
        from_arrays(s.id, s.load(), np.maximum(s.load_label(), 1) - 1) for s in coloured_world(8)
    ]
    options = {"k": 3, "stuff": 0, "background": "quiet", "train": train, **TRAINED}
    made, store = fit(samples, **options)
    assert (made.k, made.names()) == (3, {0: "background"})
    found = label_maps(made, samples, store)
    assert miou(samples, found, 3) > 0.8
    seen = np.concatenate([found[s.id][s.load_label() == 0] for s in samples])
    assert (seen == 0).mean() > 0.9


class Silent(Coloured):
    """Nothing speaks for anything."""

    def encode(self, images, *, want):
        seen = super().encode(images, want=want)
        return replace(seen, slopes=0 * seen.slopes) if "slopes" in want else seen


def test_where_all_responses_are_small_there_is_background_only():
    samples = coloured_world(8)
    made, _ = fit(samples, k=3, stuff=0, background="quiet", attention="none")
    made.backbone = Silent()
    found, _ = made.evidence(samples, store=Store())
    assert len(found) == 8
    for _, e in found:
        assert (e.scores.argmax(0) == 0).all()
        assert e.scores.isfinite().all()
        assert e.typical[1:].tolist() == [-1, -1]


def test_objects_and_stuff_respond_apart():
    samples = coloured_world(8)
    for mass in (0.5, 1.0):
        made, store = fit(samples, apart=True, mass=mass)
        plain, other = fit(samples, mass=mass)
        front = respond(
            made.backbone, samples, made.arrays["centroids"], made.config, size=(64, 64),
            store=Store(),
        ).foreground  # fmt: skip
        for sample, mask in zip(samples, front, strict=True):
            assert torch.equal(mask, truth(sample) >= 2)
            [(_, e)], _ = made.evidence([sample], store=store)
            [(_, free)], _ = plain.evidence([sample], store=other)
            assert (e.scores[:2, ~mask] == 0).all()
            assert (e.scores[2:, mask] == 0).all()
            assert torch.equal(e.scores[:2, mask], free.scores[:2, mask])
            assert torch.equal(e.scores[2:, ~mask], free.scores[2:, ~mask])
            assert torch.equal(e.scores.argmax(0) < 2, mask)


@pytest.mark.parametrize("options", [{}, {"background": "quiet", "k": 5}])
def test_permuting_clusters_permutes_responses(options):
    samples, order = coloured_world(4), torch.tensor([2, 0, 3, 1])
    made, store = fit(samples, **options)
    first, _ = made.evidence(samples, store=store)
    made.arrays = {"centroids": made.arrays["centroids"][order]}
    second, _ = made.evidence(samples, store=store)
    if options:
        order = torch.cat([torch.zeros(1).long(), order + 1])  # the background stays
    for (_, a), (_, b) in zip(first, second, strict=True):
        torch.testing.assert_close(a.scores[order], b.scores)
        torch.testing.assert_close(a.typical[order], b.typical)


def test_rounds_find_more_than_responses_that_are_often_wrong():
    """Two categories; a third of the patches of every image speak for any of the four."""
    samples, scores = coloured_world(16), {}
    backbone = Coloured(noise=0.35)
    for train in ("initial", "trained", "bootstrapped"):
        made, store = fit(samples, backbone=backbone, train=train, **TRAINED)
        scores[train] = miou(samples, label_maps(made, samples, store), 4)
    assert scores["initial"] < 0.8
    assert scores["trained"] > scores["initial"] + 0.05
    assert scores["bootstrapped"] > scores["initial"] + 0.05


def test_the_surest_patch_of_every_category_is_told():
    samples = coloured_world(2)
    made, store = fit(samples)
    pairs, _ = made.evidence(samples, store=store)
    for _, e in pairs:
        there = set(e.scores.argmax(0).flatten().tolist())
        assert {k for k in range(4) if e.typical[k] > -1} == there
        assert 0 < e.typical.max() <= 1


@pytest.mark.parametrize("train", ["initial", "trained"])
def test_looking_into_an_image(train):
    samples = coloured_world(4)
    quiet = {"background": "quiet", "k": 5} if train == "trained" else {}
    made, store = fit(samples, train=train, **SHORT | quiet)
    shift = int(bool(quiet))
    responses = respond(
        made.backbone, samples[:1], made.arrays["centroids"], made.config, size=(64, 64),
        store=Store(),
    ).maps[0]  # fmt: skip
    looked = made.look_into(samples[0], store=store)
    assert looked.tokens.shape == (8, 8, 16)
    assert torch.equal(looked.parts, patches(made, samples[:1], store)[samples[0].id])
    counts = looked.parts.flatten().bincount(minlength=made.k)
    shown = [int(name.removeprefix("response to category ")) for name in looked.maps]
    assert set(shown) == {k for k in range(shift, made.k) if counts[k]}
    assert [counts[k] for k in shown] == sorted((counts[k] for k in shown), reverse=True)
    for k, found in zip(shown, looked.maps.values(), strict=True):
        assert torch.equal(found, responses[k - shift])


def test_an_image_says_the_same_alone_and_among_eight():
    samples = coloured_world(8)
    made, store = fit(samples, train="trained", **SHORT)
    together = {s.id: e for s, e in made.evidence(samples, store=store)[0]}
    for sample in samples:
        [(_, alone)], _ = made.evidence([sample], store=Store())
        torch.testing.assert_close(alone.scores, together[sample.id].scores, atol=2e-3, rtol=2e-3)


def test_images_that_cannot_be_read():
    samples = coloured_world(4)
    mixed = [broken("a.png"), *samples, broken("z.png", "is empty")]
    for train in ("initial", "trained"):
        made, store = fit(mixed, train=train, **SHORT)
        found, failures = made.evidence(mixed, store=store)
        assert [sample for sample, _ in found] == samples
        assert failures == {"a.png": "cannot be read: torn", "z.png": "is empty"}
        assert made.evidence(mixed[:1], store=store) == ([], {"a.png": "cannot be read: torn"})
        expected, _ = fit(samples, train=train, **SHORT)
        assert torch.equal(made.arrays["centroids"], expected.arrays["centroids"])
