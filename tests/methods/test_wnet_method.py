"""W-Net as a method: planted parts, bands, tiles, merging, and what the report is given."""

import numpy as np
import pytest
import torch

from zerolabel.backbones import load
from zerolabel.data.folder import find_images, from_arrays
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.settings import build
from zerolabel.ops.ncut import Affinity, hard_ncut, weights
from zerolabel.stages import wnet
from zerolabel.stages.merging import levels, merged
from zerolabel.store import Store

NONE = load("none")
SMALL = {"k": 2, "size": (48, 48), "base": 4, "depth": 2, "batch": 4, "iterations": 4}


def discs(count, *, bands=3, size=48, seed=0):
    """Images of a disc on a ground, each of one value per band and some noise; and the discs."""
    images, masks = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        y, x = np.mgrid[:size, :size]
        centre, radius = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.2, 0.35) * size
        mask = np.hypot(y - centre[0], x - centre[1]) < radius
        low, high = rng.uniform(30, 90, bands), rng.uniform(150, 220, bands)
        values = np.where(mask[..., None], high, low) + rng.normal(0, 6, (size, size, bands))
        images.append(values.clip(0, 255))
        masks.append(mask)
    return images, masks


def photos(count, **changes):
    images, masks = discs(count, **changes)
    return [
        from_arrays(f"{i}.png", image.round().astype(np.uint8), mask.astype(np.uint8))
        for i, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]


def fitted(samples, *, store=None, **settings):
    method = build("wnet", NONE, preset="protocol", settings=SMALL | settings)
    method.fit(samples, store=store or Store())
    return method


def right(method, samples):
    """Share of pixels right, with the better of both ways to name two channels."""
    found, _ = method.evidence(samples, store=Store())
    model, shares = Model(method), []
    for sample, evidence in found:
        labels = model.label_map(evidence, sample.load())
        shares.append((labels == sample.load_label()).mean())
    mean = np.mean(shares)
    return max(mean, 1 - mean)


@pytest.mark.slow
def test_planted_parts_are_found_on_images_that_it_never_saw():
    learn = {"optimiser": "sgd", "lr": 0.05, "decoder_lr": 0.05, "reduction": "mean"}
    method = fitted(photos(16), iterations=60, dropout=0.5, base=8, **learn)
    held = photos(8, seed=1)
    assert right(method, held) > 0.95
    pairs = weights(
        torch.stack([torch.from_numpy(s.load()).permute(2, 0, 1) for s in held]).float(),
        Affinity(),
    )
    seen, _ = method.evidence(held, store=Store())
    labels = torch.stack([e.scores.argmax(0) for _, e in seen])
    assert hard_ncut(labels, pairs, K=2).mean() < 0.2
    losses = list(method.losses.values())
    assert losses[-1] < losses[0]


def test_float_images_of_twelve_bands_train_and_predict(tmp_path):
    images, masks = discs(6, bands=12)
    for i, image in enumerate(images):
        np.save(tmp_path / f"{i}.npy", (image / 1000 - 0.05).astype(np.float32))
    samples = find_images(tmp_path)
    method = fitted(samples)
    assert method.arrays["low"].shape == (12,)
    assert (method.arrays["high"] > method.arrays["low"]).all()
    found, failures = method.evidence(samples, store=Store())
    assert not failures
    assert all(evidence.scores.shape == (2, 48, 48) for _, evidence in found)
    assert {name for name in method.arrays if name.startswith("encoder.down.0.0.conv")}
    assert method.arrays["encoder.down.0.0.conv.weight"].shape[1] == 12


def test_a_network_of_bands_refuses_photos_and_says_why(tmp_path):
    for i, image in enumerate(discs(3, bands=5)[0]):
        np.save(tmp_path / f"{i}.npy", image.astype(np.float32))
    method = fitted(find_images(tmp_path))
    found, failures = method.evidence(photos(1), store=Store())
    assert not found
    assert "expected 5 bands" in failures["0.png"]
    assert "found 3" in failures["0.png"]


def test_mixed_numbers_of_bands_are_an_error(tmp_path):
    for i, bands in enumerate((5, 5, 4)):
        np.save(tmp_path / f"{i}.npy", discs(1, bands=bands)[0][0].astype(np.float32))
    with pytest.raises(DataError, match=r"0\.npy has 5, 2\.npy has 4"):
        fitted(find_images(tmp_path))


def test_values_that_are_no_numbers_fail_alone(tmp_path):
    for i, image in enumerate(discs(3, bands=4)[0]):
        values = image.astype(np.float32)
        if i == 1:
            values[3, 4, 2] = np.nan
        np.save(tmp_path / f"{i}.npy", values)
    samples = find_images(tmp_path)
    method = fitted(samples)
    found, failures = method.evidence(samples, store=Store())
    assert len(found) == 2
    assert "NaN" in failures["1.npy"]


def test_constant_and_tiny_images():
    flat = [from_arrays(f"{i}.png", np.full((5, 7, 3), 40 * i, np.uint8)) for i in range(4)]
    method = fitted(flat)
    found, failures = method.evidence(flat, store=Store())
    assert not failures
    assert all(evidence.scores.isfinite().all() for _, evidence in found)


def test_tiles_agree_with_the_whole_away_from_their_borders():
    method = fitted(photos(4, size=96), native=True)
    image = torch.rand(3, 200, 160, generator=torch.Generator().manual_seed(0))
    whole = wnet.look(method.network().encoder, image, tile=1000)
    tiles = wnet.look(method.network().encoder, image, tile=100)
    assert (whole.argmax(0) == tiles.argmax(0)).float().mean() > 0.99
    torch.testing.assert_close(whole.sum(0), torch.ones(200, 160))


def test_native_images_keep_their_size():
    samples = photos(2, size=70)
    found, _ = fitted(samples, native=True).evidence(samples, store=Store())
    assert found[0][1].scores.shape == (2, 70, 70)


def test_merging_gives_a_piece_one_category_and_never_splits():
    images, _ = discs(1)
    image = torch.from_numpy(images[0]).permute(2, 0, 1).float()
    scores = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)).softmax(0)
    before = None
    for level in (0.05, 0.3, 0.6):
        means, parts = merged(scores, image, level=level)
        for part in parts.unique():
            inside = parts == part
            assert len(means[:, inside].argmax(0).unique()) == 1
            torch.testing.assert_close(means[:, inside][:, 0], scores[:, inside].mean(1))
        if before is not None:  # a coarser level joins whole pieces of the finer one
            assert all(len(parts[before == part].unique()) == 1 for part in before.unique())
        before = parts


def test_a_level_makes_fewer_pieces_and_they_are_counted():
    samples = photos(3)
    rough, plain = fitted(samples, level=0.5), fitted(samples)
    for (_, a), (_, b) in zip(
        rough.evidence(samples, store=Store())[0],
        plain.evidence(samples, store=Store())[0],
        strict=True,
    ):
        assert b.parts is None
        assert a.parts.shape == b.scores.shape[1:]
        assert a.parts.max() >= 0


def test_levels_to_show_halve_the_pieces():
    heights = np.linspace(0.1, 0.9, 99, dtype=np.float32)
    shown = levels(heights)
    assert [count for count, _ in shown] == [100, 50, 25, 12, 6, 3, 1]
    for count, level in shown:
        assert 100 - (heights <= level).sum() == count
    assert levels(np.empty(0, np.float32)) == [(1, 0.0)]


def test_the_report_is_given_reconstruction_and_levels():
    samples = photos(3)
    method = fitted(samples)
    again, merging = method.portray(samples[0])
    assert [again.title, merging.title] == ["Reconstruction", "Merging"]
    assert all(picture.shape == (48, 48, 3) for picture in again.pictures.values())
    assert merging.slider
    assert all(picture.shape == (48, 48) for picture in merging.pictures.values())
    counts = [int(picture.max()) + 1 for picture in merging.pictures.values()]
    assert counts == sorted(counts, reverse=True)

    def torn():
        raise ImageError("torn")

    samples[0] = from_arrays("x.png", samples[0].load())
    object.__setattr__(samples[0], "load", torn)
    with pytest.raises(ImageError):
        method.portray(samples[0])


def test_categories_of_pieces_hold_across_images():
    """Channels mean nothing after four steps; pieces of one colour are one category anyway."""
    colours = np.array([[210, 40, 40], [40, 40, 210]])
    samples = []
    for i in range(6):
        label = np.zeros((48, 48), np.uint8)
        label[:, 20 + 2 * i :] = 1
        image = colours[label if i % 2 else 1 - label]  # left and right change places
        samples.append(from_arrays(f"{i}.png", image.astype(np.uint8), label))
    method = fitted(samples, categorise="kmeans")
    assert method.k == 2
    found, _ = method.evidence(samples, store=Store())
    red = []
    for sample, evidence in found:
        winners, parts = evidence.scores.argmax(0), evidence.parts
        for part in parts.unique():
            assert len(winners[parts == part].unique()) == 1
        own = torch.from_numpy(sample.load()[..., 0] > 100)
        red.append(winners[own].float().mean())
    assert len({round(float(mean)) for mean in red}) == 1
    assert method.look_into(samples[0], store=Store()).parts.max() < 2


def test_the_crf_is_given_logarithms():
    samples = photos(2)
    plain = build("wnet", NONE, settings=SMALL | {"refine": "bilinear"})
    smooth = build("wnet", NONE, settings=SMALL | {"refine": "crf"})
    for method in (plain, smooth):
        method.fit(samples, store=Store())
    [(_, a), *_], [(_, b), *_] = (m.evidence(samples, store=Store())[0] for m in (plain, smooth))
    torch.testing.assert_close(a.scores.clamp_min(1e-4).log(), b.scores)


def test_it_says_how_many_channels_are_used():
    [note] = fitted(photos(4), k=6).notes
    assert note.startswith("channels: ")
    assert "of 6 have more than 1%" in note


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": 1.5}, "level"),
        ({"ncut": "pairs"}, "pairwise"),
        ({"update": "both"}, "alternate"),
        ({"radius": 0}, "radius"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_settings_that_cannot_be(change, words):
    with pytest.raises(UsageError, match=words):
        fitted(photos(2), **change)
