from dataclasses import asdict

import numpy as np
import pytest
import torch
from planted import fitted, label_maps, miou, small_bank, tiny_vit

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.methods.attention import PRESETS
from zerolabel.store import Store
from zerolabel.types import Features, Sample

# What DINO's paper (section 4.2.2) and viewer say; None of it names a way to categories.
PAPER = {"discover": "attention", "mass": 0.6, "size": (480, 480), "refine": "nearest"}
SMALL = {"size": (48, 64), "crop_resize": 40, "crop_size": 32, "restarts": 2}
GROUND, RED, BLUE = (20, 140, 20), (220, 40, 40), (40, 60, 230)


def test_the_preset_is_the_published_choice():
    assert PAPER.items() <= asdict(PRESETS["paper"]).items()
    default, protocol = asdict(PRESETS["default"]), asdict(PRESETS["protocol"])
    assert default | {"refine": "bilinear"} == protocol


class Watcher:
    """Tokens and CLS are mean colours; the first head looks at objects, the second at the rest."""

    name, gives, stride, dim = "watcher", frozenset({"tokens", "keys", "cls", "attention"}), 8, 3
    learns = 0

    def __init__(self, see=True):
        self.see, self.digest, self.wanted = see, f"watcher {see}", []

    def encode(self, images, *, want):
        self.wanted.append(set(want))
        tokens = torch.nn.functional.avg_pool2d(images.float() / 255 - 0.3, 8).permute(0, 2, 3, 1)
        object_like = (tokens.amax(-1) > 0.3).float()  # (B, h, w)
        generator = torch.Generator().manual_seed(0)
        blind = torch.rand(object_like.shape, generator=generator)
        looks = torch.stack([object_like, 1 - object_like], 1) if self.see else blind[:, None]
        maps = (looks + 1e-3) / (looks + 1e-3).sum((2, 3), keepdim=True) * 0.9
        found = {"tokens": tokens, "keys": -tokens, "cls": tokens.mean((1, 2)), "attention": maps}
        return Features(**{name: found[name] for name in want})


def scene(i):
    """A red and a blue object on a ground; on odd images only one of them."""
    rng = np.random.default_rng(i)
    image, label = np.full((48, 64, 3), GROUND, np.uint8), np.zeros((48, 64), np.uint8)
    for kind, colour, left in ((1, RED, 0), (2, BLUE, 32)):
        if i % 2 and i % 3 == kind:
            continue
        top, across = 8 * rng.integers(0, 3), left + 8 * rng.integers(0, 2)
        image[top : top + 24, across : across + 16] = colour
        label[top : top + 24, across : across + 16] = kind
    noise = rng.integers(-9, 10, image.shape)
    return from_arrays(f"{i:02d}.png", (image + noise).astype(np.uint8), label)


SCENES = [scene(i) for i in range(12)]


@pytest.mark.parametrize("describe", ["pool", "crop-cls"])
@pytest.mark.parametrize("heads", [0, "all"])
def test_planted_objects_are_found(describe, heads):
    options = SMALL | {"k": 3, "describe": describe, "heads": heads, "mass": 0.99, "fill": "none"}
    options |= {"crop_fit": "stretch"}
    made, store = fitted("dino-attention", SCENES, backbone=Watcher(), **options)
    found = miou(SCENES, label_maps(made, SCENES, store, name="nearest"), 3)
    assert found > (0.95 if describe == "pool" else 0.85)


def test_the_floor_is_below_what_attention_finds():
    """Attention that looks anywhere finds nothing, though colours tell the objects apart."""
    options = SMALL | {"k": 3, "describe": "pool", "mass": 0.99, "heads": 0}
    scored = []
    for see in (True, False):
        made, store = fitted("dino-attention", SCENES, backbone=Watcher(see), **options)
        scored.append(miou(SCENES, label_maps(made, SCENES, store, name="nearest"), 3))
    floor = miou(SCENES, {s.id: np.zeros((48, 64), np.uint8) for s in SCENES}, 3)
    assert scored[0] > max(scored[1], floor) + 0.3


def test_the_background_is_described_and_gets_a_category():
    options = SMALL | {"k": 3, "describe": "pool", "mass": 0.99, "heads": 0, "noise": "ignore"}
    made, store = fitted("dino-attention", SCENES, backbone=Watcher(), **options)
    for sample, evidence in made.evidence(SCENES, store=store)[0]:
        ground = torch.from_numpy(sample.load_label()[4::8, 4::8] == 0)
        assert evidence.covered[ground].all()
        assert len(set(evidence.scores.argmax(0)[ground].tolist())) == 1


def test_only_what_is_needed_is_computed():
    samples, backbone = SCENES[:3], Watcher()
    fitted("dino-attention", samples, backbone=backbone, k=2, describe="pool", **SMALL)
    assert backbone.wanted == [{"tokens", "attention"}]
    backbone = Watcher()
    options = SMALL | {"discover": "louvain", "features": "keys", "describe": "pool"}
    fitted("dino-attention", samples, backbone=backbone, k=2, **options)
    assert backbone.wanted == [{"keys"}]


def test_datus_can_discover_by_attention_too():
    options = SMALL | {"discover": "attention", "heads": 0, "mass": 0.99, "describe": "pool"}
    made, store = fitted("datus", SCENES, backbone=Watcher(), k=3, **options)
    assert miou(SCENES, label_maps(made, SCENES, store, name="nearest"), 3) > 0.95


def test_an_interrupted_run_ends_with_the_same(tmp_path):
    """The first batch was done when the job died: the second run computes only the others."""
    samples = world(3, images=18, size=(24, 32))
    options = SMALL | {"size": (24, 32), "k": 3}
    whole, first = fitted("dino-attention", samples, backbone=tiny_vit(), **options)

    def torn():
        raise KeyboardInterrupt

    killed = [*samples[:17], Sample(samples[17].id, torn, samples[17].digest)]
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fitted("dino-attention", killed, backbone=tiny_vit(), store=store, **options)
    assert len(store.computed) == 1
    store = Store(tmp_path)
    again, second = fitted("dino-attention", samples, backbone=tiny_vit(), store=store, **options)
    assert len(store.computed) == 1
    assert all(torch.equal(whole.arrays[name], again.arrays[name]) for name in whole.arrays)
    maps = [label_maps(made, samples, at) for made, at in ((whole, first), (again, second))]
    assert all(np.array_equal(maps[0][s.id], maps[1][s.id]) for s in samples)


@pytest.mark.parametrize(
    "changes", [{"mass": 0.3}, {"heads": "union"}, {"features": "keys"}, {"minimum": 1}]
)
def test_runs_of_other_settings_can_share_a_store(changes):
    samples, store = world(3, images=4, size=(24, 32)), Store()
    options = SMALL | {"size": (24, 32), "k": 2, "describe": "pool"}
    for settings in (options, options | changes):
        shared, _ = fitted("dino-attention", samples, backbone=tiny_vit(), store=store, **settings)
        fresh, _ = fitted("dino-attention", samples, backbone=tiny_vit(), **settings)
        assert all(torch.equal(shared.arrays[name], fresh.arrays[name]) for name in fresh.arrays)


@pytest.mark.parametrize("method", ["dino-attention", "datus"])
def test_a_backbone_without_attention_is_explained(method):
    with pytest.raises(UsageError, match=r"gives tokens, but attention is needed\. Use --backbone"):
        fitted(method, SCENES, backbone=small_bank(), discover="attention")


@pytest.mark.parametrize("field", ["features", "noise"])
def test_wrong_choices_of_attention_are_explained(field):
    with pytest.raises(UsageError, match=f"{field} must be one of .*got 'purple'"):
        fitted("dino-attention", SCENES, backbone=tiny_vit(), **{field: "purple"})
