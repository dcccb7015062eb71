"""Segmenter as a method: fitted on labels, or read from a file; what it says of photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import broken, fitted, small_bank, tiny_vit
from safetensors.torch import save_file

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.jobs.run.model import Model
from zerolabel.methods import SUPERVISED, find
from zerolabel.methods.configs import configure
from zerolabel.methods.segmenter import PRESETS
from zerolabel.networks.mask_transformer import LinearConfig, decoder
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.stages import slide
from zerolabel.stages.refine import REFINE
from zerolabel.store import Store

K = 3
SMALL = {"short": 48, "window": 48, "stride": 32, "crop": 40, "batch": 4, "iterations": 2}
NAMES = ("sky", "road", "tree")


@pytest.fixture(scope="module")
def samples():
    """An image that cannot be read, one without a label, and five with labels."""
    found = [replace(s, classes=NAMES) for s in world(K, images=6, size=(60, 84))]
    return [broken("a.png"), replace(found[0], load_label=None), *found[1:]]


def fit(samples, *, store=None, preset="default", backbone=None, **changes):
    return fitted(
        "segmenter",
        samples,
        backbone=backbone or tiny_vit(),
        store=store,
        preset=preset,
        **SMALL | changes,
    )


def label_maps(made, samples, store):
    model = Model(made)
    found, _ = made.evidence(samples, store=store)
    return {s.id: model.label_map(e, s.load()) for s, e in found}


# --- settings ------------------------------------------------------------------------------------


# What is published: crop, base of the resizing, batch, steps, learning rate, longest side.
PUBLISHED = {
    "official-ade20k": (512, 512, 8, 160_000, 1e-3, 4),
    "official-context": (480, 520, 16, 80_000, 1e-3, 8),
    "official-cityscapes": (768, 1024, 8, 80_000, 1e-2, 2),
}
WINDOWS = {
    "official-ade20k": (512, 512),
    "official-context": (480, 320),
    "official-cityscapes": (768, 512),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_presets_are_the_published_recipes(name):
    c = PRESETS[name]
    assert (c.crop, c.short, c.batch, c.iterations, c.lr, c.longest) == PUBLISHED[name]
    assert (c.window, c.stride) == WINDOWS[name]
    assert (c.optimiser, c.decay, c.schedule, c.warmup) == ("sgd", 0, "poly", 0)
    assert (c.drop_path, c.dropout, c.ratio, c.distort) == (0.1, 0, (0.5, 2), True)
    assert (c.decoder, c.decoder_preset, c.encoder, c.fit) == ("mask", "official", "tuned", "keep")
    assert (c.scales, c.flip, c.refine, c.held) == ((1.0,), False, "bilinear", 0)


def test_the_preset_of_the_comparison():
    c = PRESETS["seed"]
    assert (c.fit, c.short, c.crop, c.window, c.stride) == ("squash", 384, 384, 384, 384)
    assert (c.decoder_preset, c.drop_path, c.dropout) == ("seed", 0.2, 0.2)
    assert (c.optimiser, c.lr, c.schedule, c.batch, c.decay) == ("sgd", 1e-3, "plateau", 16, 0)
    assert c.iterations == 20_210 * 30 // 16 // 10 * 10  # 30 epochs of ADE20K
    assert (c.distort, c.held) == (False, 0.1)


def test_protocol_decides_pixels_by_itself():
    assert PRESETS["protocol"] == replace(PRESETS["default"], refine="bilinear")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": "masks"}, "Unknown choice of decoder 'masks'"),
        ({"encoder": "thawed"}, "choice of encoder"),
        ({"decoder_preset": "x"}, "choice of decoder_preset"),
        ({"optimiser": "x"}, "Unknown optimiser"),
        ({"schedule": "x"}, "Unknown schedule"),
        ({"scales": "a"}, "scales must be of type"),
        ({"scales": "0"}, "Expected scales above 0"),
        ({"stride": 49}, "stride of 1..window"),
        ({"held": 1.0}, "held is a share"),
        ({"crop": 0}, "sides of 1 pixel"),
        ({"ratio": (2.0, 1.0)}, "ratios above 0"),
        ({"dropout": 1.0}, "a share from 0"),
        ({"amp": "maybe"}, "choice of amp"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(UsageError, match=words):
        find("segmenter")(configure(PRESETS, "default", SMALL | changes), tiny_vit())


def test_a_backbone_that_is_no_transformer_is_refused():
    with pytest.raises(UsageError, match="is needed. Use --backbone"):
        find("segmenter")(PRESETS["default"], small_bank())


# --- fitting -------------------------------------------------------------------------------------


def test_it_is_a_supervised_one():
    assert {"deeplab", "segmenter", "unet"} == SUPERVISED


@pytest.mark.parametrize("encoder", ["tuned", "frozen"])
@pytest.mark.parametrize("head", ["mask", "linear"])
def test_fit_evidence_and_refine(encoder, head, samples, tmp_path):
    changes = {"encoder": encoder, "decoder": head, "iterations": 3}
    made, store = fit(samples, **changes)
    assert made.k == K
    assert made.names() == dict(enumerate(NAMES))
    assert list(made.losses) == [1, 2, 3]
    assert made.curve == {}
    assert all(value.isfinite().all() for value in made.arrays.values())
    parts = {name.split(".")[0] for name in made.arrays}
    assert parts == ({"encoder", "decoder"} if encoder == "tuned" else {"decoder"})
    evidence, failures = made.evidence(samples, store=store)
    assert failures == {"a.png": "cannot be read: torn"}
    assert [sample for sample, _ in evidence] == samples[1:]
    for _, e in evidence:
        assert e.scores.shape == (K, 6, 9)  # 48 x 67 pixels
        torch.testing.assert_close(e.scores.sum(0), torch.ones(6, 9))
        assert e.labels is None
        won = set(e.scores.argmax(0).flatten().tolist())
        assert won == {k for k in range(K) if e.typical[k] > -1}
        assert float(e.typical.max()) == float(e.scores.max())
    for name in REFINE:
        made.config = replace(made.config, refine=name)
        for label_map in label_maps(made, samples, store).values():
            assert label_map.shape == (60, 84)
            assert label_map.max() < K
    again, _ = fit(samples, store=Store(tmp_path), **changes)
    assert again.arrays.keys() == made.arrays.keys()
    assert all(torch.equal(made.arrays[name], again.arrays[name]) for name in made.arrays)


def test_the_backbone_is_not_changed(samples):
    backbone = tiny_vit()
    before = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    made, _ = fit(samples, backbone=backbone)
    assert all(torch.equal(value, before[k]) for k, value in backbone.net.state_dict().items())
    assert not torch.equal(made.arrays["encoder.norm.weight"], before["norm.weight"])
    assert not any(p.requires_grad for p in backbone.net.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_predicts_new_photos(preset, samples):
    made, store = fit(samples, preset=preset, batch=2)
    photo = world(2, images=1, size=(31, 200), seed=7)[0]
    dot = from_arrays("dot.png", np.full((1, 1, 3), 9, np.uint8))
    found = label_maps(made, [photo, broken(), dot], store)
    assert {name: m.shape for name, m in found.items()} == {photo.id: (31, 200), dot.id: (1, 1)}
    assert made.evidence([broken()], store=store) == ([], {"broken.png": "cannot be read: torn"})


def test_fitting_again_gives_the_same(samples):
    made, store = fit(samples)
    first, notes = dict(made.arrays), list(made.notes)
    made.fit(world(2, images=2), store=store)
    assert made.k == 2
    made.fit(samples, store=store)
    assert all(torch.equal(first[name], made.arrays[name]) for name in first)
    assert made.notes == notes


def test_what_was_fitted_is_enough_to_predict(samples):
    made, store = fit(samples, refine="bilinear")
    other = type(made)(made.config, tiny_vit())
    other.arrays = {name: value.clone() for name, value in made.arrays.items()}
    first, second = (label_maps(m, samples, store) for m in (made, other))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_an_image_does_not_depend_on_its_batch(samples):
    made, store = fit(samples)
    together = label_maps(made, samples, store)
    for sample in samples[1:]:
        assert np.array_equal(label_maps(made, [sample], store)[sample.id], together[sample.id])


def test_planted_categories_are_learned():
    made, store = fit(
        world(K, images=8, size=(48, 64)),
        iterations=80,
        lr=3e-3,
        crop=32,
        refine="bilinear",
        decoder="linear",
    )
    fresh = world(K, images=8, size=(48, 64))[:4]
    found = label_maps(made, fresh, store)
    right = np.mean([(found[s.id] == s.load_label()).mean() for s in fresh])
    assert right > 0.8


# --- labels --------------------------------------------------------------------------------------


def test_without_labels_there_is_nothing_to_learn():
    with pytest.raises(UsageError, match="none of these images has one.* need no labels"):
        fit([from_arrays("a.png", np.zeros((9, 9, 3), np.uint8))])


def test_only_unreadable_images_are_an_error():
    label = np.zeros((9, 9), np.uint8)
    with pytest.raises(DataError, match="None of the images could be read"):
        fit([replace(broken(), load_label=lambda: label)])


def test_k_is_the_number_of_classes(samples):
    plain = [replace(s, classes=()) for s in samples]
    made, _ = fit(plain)
    assert (made.k, made.names()) == (K, {})
    made, _ = fit(plain, k=7)
    assert made.k == 7
    more = [replace(s, classes=(*NAMES, "boat")) for s in samples]
    made, _ = fit(more)
    assert made.k == 4
    assert any("boat" in note for note in made.notes)  # which never occurs
    with pytest.raises(UsageError, match="found 2, e.g. in"):
        fit(samples, k=2)


def test_problems_of_the_labels_are_told(samples):
    made, _ = fit([*samples, replace(samples[2], id="z.png", load_label=lambda: _void())])
    assert any(note.startswith("labels: ") and "z.png" in note for note in made.notes)


def _void():
    return np.full((60, 84), 255, np.uint8)


def test_images_held_out_are_told(samples):
    made, _ = fit(samples, held=0.3)
    assert any("those held out" in note for note in made.notes)


# --- pixels --------------------------------------------------------------------------------------


def test_bilinear_is_the_merged_map_itself(samples):
    made, store = fit(samples, refine="bilinear", scales="1,1.5", flip=True)
    [(_, e)], _ = made.evidence([samples[1]], store=store)
    assert (e.labels.shape, e.labels.dtype) == ((60, 84), torch.int64)
    encoder, head = made._networks()
    image = torch.from_numpy(samples[1].load()).permute(2, 0, 1)
    said = slide.look(encoder, head, image, made._slide, prepare=made.backbone.prepare)
    assert len(said) == 4
    assert torch.equal(slide.decide(said, (60, 84)), e.labels)


@pytest.mark.parametrize("head", ["mask", "linear"])
def test_looking_into_an_image(head, samples):
    made, store = fit(samples, decoder=head)
    seen = made.look_into(samples[1], store=store)
    assert seen.tokens.shape == (6, 9, 64)
    assert seen.parts.shape == (6, 9)
    names = list(seen.maps)
    assert names[0] == "encoder, CLS, head mean"
    occurring = {f"decoder, head mean, {NAMES[i]}" for i in seen.parts.unique().tolist()}
    assert set(names[1:]) == (occurring if head == "mask" else set())
    with pytest.raises(ImageError):
        made.look_into(broken(), store=store)


# --- a checkpoint --------------------------------------------------------------------------------


def write(path):
    config = VitConfig(patch=8, dim=64, depth=1, heads=1, grid=4, eps=1e-5, pos_interp="bilinear")
    net, head = random_vit(config, seed=3), decoder(LinearConfig(encoder_dim=64, classes=5), seed=3)
    state = {f"encoder.{k}": v for k, v in net.state_dict().items()}
    save_file(state | {f"decoder.{k}": v for k, v in head.state_dict().items()}, path)
    return net.eval(), head.eval()


def test_a_checkpoint_needs_no_labels_and_is_kept_in_the_model(samples, tmp_path):
    file = tmp_path / "x.safetensors"
    net, head = write(file)
    bare = [replace(s, load_label=None, classes=()) for s in samples]
    made, store = fit(bare, checkpoint=str(file), refine="bilinear")
    assert (made.k, made.losses, made.names()) == (5, {}, {})
    file.unlink()
    [(_, e)], _ = made.evidence([samples[1]], store=store)
    image = torch.from_numpy(samples[1].load()).permute(2, 0, 1)
    said = slide.look(net, head, image, made._slide, prepare=lambda x: x.float() / 127.5 - 1)
    agree = (slide.decide(said, (60, 84)) == e.labels).float().mean()
    assert agree > 0.999
    other = type(made)(made.config, tiny_vit())
    other.arrays = dict(made.arrays)
    [(_, again)], _ = other.evidence([samples[1]], store=store)
    assert torch.equal(again.labels, e.labels)


def test_a_checkpoint_knows_its_classes(samples, tmp_path):
    write(tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="knows 5 classes, and 3 were asked for"):
        fit(samples, checkpoint=str(tmp_path / "x.safetensors"), k=3)
