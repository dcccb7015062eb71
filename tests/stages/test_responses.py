"""Responses as they are kept, against those that are not, and what keeping them costs."""

from dataclasses import replace

import pytest
import torch
from coloured import Coloured, coloured_world
from lively import DINO, lively
from planted import broken, tiny_vit
from reference import gradcam as slow

from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError
from zerolabel.ops import gradcam
from zerolabel.ops.crops import foreground
from zerolabel.stages import encode
from zerolabel.stages.responses import WANTS, Responding, check, respond
from zerolabel.store import Store

SIZE, K = (48, 64), 5
PLAIN = Responding()
CHANGES = [
    {},
    {"veto": False},
    {"mass": 0.3},
    {"mass": 1.0},
    {"attention": "plain", "grad_scale": 1 / 8},
    {"attention": "none"},
    {"attention": "none", "veto": False},
    {"loss": "dot"},
]


@pytest.fixture(scope="module")
def backbone():
    return VitBackbone("lively", lively(DINO))


@pytest.fixture(scope="module")
def samples():
    return world(3, images=5, size=(60, 84))


@pytest.fixture(scope="module")
def centres():
    return torch.randn(K, DINO.dim, generator=torch.Generator().manual_seed(1))


def find(backbone, samples, centres, options=PLAIN, *, store=None, size=SIZE):
    return respond(backbone, samples, centres, options, size=size, store=store or Store())


def features(backbone, samples):
    return encode.features(backbone, samples, want=WANTS, size=SIZE, store=Store())[0]


def exact(seen, centres, options):
    """Responses of the same features that nobody packed, and gains alone: both (B, K, h, w)."""
    upstream = gradcam.cls_gradients(seen.cls, centres, loss=options.loss)
    slopes = torch.einsum("bkd,bhwd->bkhw", upstream, seen.slopes)
    gains = gradcam.gains(slopes, mass=options.mass, scale=options.grad_scale)
    attention = seen.attention.mean(1)
    if options.attention == "none":
        return torch.where(slopes > 0, 0, gains) if options.veto else gains, gains
    relative = options.attention == "relative"
    maps = gradcam.responses(
        attention,
        slopes,
        mass=options.mass,
        veto=options.veto,
        relative=relative,
        scale=options.grad_scale,
    )
    return maps, gains


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_responses_are_those_of_the_formula(backbone, samples, centres, changes):
    options = replace(PLAIN, **changes)
    found = find(backbone, samples, centres, options)
    seen = features(backbone, samples)
    expected, gains = exact(seen, centres, options)
    assert found.maps.shape == expected.shape == (5, K, 6, 8)
    assert found.maps.dtype == torch.float32
    assert found.maps.min() >= 0
    # half a unit of half precision each, of the gain, of the attention and of its maximum
    most = gains.amax((1, 2, 3), keepdim=True)
    allowed = 2.0**-11 * (gains + 2 * expected) + 2.0**-24 * (1 + most)
    assert ((found.maps - expected).abs() <= 1.01 * allowed).all()
    assert ((found.maps == 0) >= (expected == 0)).all()  # no veto is lost
    assert torch.equal(found.foreground, foreground(seen.attention.mean(1)))
    if options.veto or options.attention == "none":
        assert (expected == 0).any()


@pytest.mark.parametrize("attention", ["relative", "none"])
def test_the_strongest_category_of_a_patch_is_nearly_always_the_same(backbone, samples, attention):
    centres = torch.randn(27, DINO.dim, generator=torch.Generator().manual_seed(2))
    for veto in (True, False):
        options = replace(PLAIN, attention=attention, veto=veto, grad_scale=1 / 8)
        found = find(backbone, samples, centres, options).maps.argmax(1)
        expected, _ = exact(features(backbone, samples), centres, options)
        assert (found == expected.argmax(1)).float().mean() > 0.99


def test_responses_equal_backward_passes(backbone, samples, centres):
    found = find(backbone, samples[:2], centres, replace(PLAIN, mass=1.0)).maps
    images = encode.read(samples[:2], SIZE).images
    contexts = backbone.encode(images, want={"context"}).context
    state = {name: value.double() for name, value in backbone.net.state_dict().items()}
    for context, own in zip(contexts, found, strict=True):
        slopes, _, row = slow.gradients(
            context.double(), state, centres.double(), depth=2, heads=2, grid=(6, 8), loss="cosine"
        )
        expected = slow.responses(row, slopes, mass=1.0, veto=True, relative=True, scale=1.0)
        near = slopes.abs() < 2e-3 * slopes.abs().max()  # features are kept as halves, too
        torch.testing.assert_close(own[~near].double(), expected[~near], rtol=3e-3, atol=2e-3)


def test_one_image_at_a_time_gives_the_same(backbone, centres):
    samples = world(3, images=8, size=(60, 84))
    together = find(backbone, samples, centres).maps
    alone = torch.cat([find(backbone, [sample], centres).maps for sample in samples])
    differ = ((together - alone).abs() > 2e-3 * (1 + alone)).float().mean()
    assert differ < 0.01  # a rounding may turn a veto or pass a gate
    assert (together.argmax(1) == alone.argmax(1)).float().mean() > 0.98


def test_images_in_memory_are_not_read_again(backbone, samples, centres):
    loaded = encode.read([broken(), *samples], SIZE)
    store = Store()
    found = find(backbone, loaded, centres, store=store)
    assert torch.equal(found.maps, find(backbone, samples, centres).maps)
    assert found.failures == {"broken.png": "cannot be read: torn"}
    assert found.samples == samples
    again = find(backbone, [broken(), *samples], centres, store=store)
    assert torch.equal(found.maps, again.maps)
    assert len(store.computed) == 1


def test_what_is_done_is_read_from_disk(backbone, samples, centres, tmp_path):
    expected = find(backbone, samples, centres)
    for _ in range(2):
        found = find(backbone, samples, centres, store=Store(tmp_path))
        assert torch.equal(found.maps, expected.maps)
        assert torch.equal(found.foreground, expected.foreground)
    store = Store(tmp_path)
    find(backbone, samples, centres, store=store)
    assert store.computed == []
    for other, options in ((centres + 1, PLAIN), (centres, replace(PLAIN, mass=0.5))):
        store = Store(tmp_path)
        find(backbone, samples, other, options, store=store)
        assert len(store.computed) == 1


def folders(root):
    return {path.parent.name for path in root.rglob("*.safetensors")}


def test_slopes_are_kept_only_where_runs_share_them(samples, centres, tmp_path):
    backbone = VitBackbone("lively", lively(DINO))
    find(backbone, samples, centres, store=Store(tmp_path / "run"))
    assert folders(tmp_path) == {"responses"}
    shared = tmp_path / "shared"
    first = find(backbone, samples, centres, store=Store(tmp_path / "a", shared=shared))
    assert folders(shared) == {"attention-cls-slopes", "responses"}
    assert torch.equal(first.maps, find(backbone, samples, centres).maps)
    backbone.encode = None  # other centres cost a product only
    other = find(backbone, samples, -centres, store=Store(tmp_path / "b", shared=shared))
    assert not torch.equal(first.maps, other.maps)


def test_images_that_cannot_be_read(backbone, samples, centres, tmp_path):
    mixed = [broken("a.png"), samples[0], broken("b.png", "is empty"), samples[1]]
    for _ in range(2):
        found = find(backbone, mixed, centres, store=Store(tmp_path))
        assert found.failures == {"a.png": "cannot be read: torn", "b.png": "is empty"}
        assert found.samples == samples[:2]
        assert torch.equal(found.maps, find(backbone, samples[:2], centres).maps)
        none = find(backbone, [broken()], centres, store=Store(tmp_path))
        assert (none.samples, len(none.maps), len(none.foreground)) == ([], 0, 0)
        assert none.failures == {"broken.png": "cannot be read: torn"}


def test_planted_responses():
    samples, backbone = coloured_world(4), Coloured()
    every = replace(PLAIN, mass=1.0)  # patches below the gate respond to what is absent alike
    found = find(backbone, samples, backbone.codes, every, size=(64, 64))
    for sample, maps, front in zip(samples, found.maps, found.foreground, strict=True):
        truth = torch.from_numpy(sample.load_label()[4::8, 4::8].astype(int))
        assert torch.equal(maps.argmax(0), truth)
        assert torch.equal(front, truth > 1)
        assert maps[truth.max()][~front].max() == 0  # vetoed


def test_images_take_few_bytes(centres, tmp_path):
    samples = world(3, images=2, size=(60, 84))
    centres = torch.randn(27, 64, generator=torch.Generator().manual_seed(0))
    found = find(tiny_vit(), samples, centres, size=(320, 320), store=Store(tmp_path))
    assert found.maps.shape == (2, 27, 40, 40)
    [file] = tmp_path.rglob("*.safetensors")
    size = (file.stat().st_size - 1000) / len(samples)  # less a header
    assert 20_000 < size <= 60_000  # 0.6 GB per 10,000 images; 173 kB as float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"attention": "relativ"},
            "Unknown choice of attention 'relativ'. Did you mean 'relative'",
        ),
        ({"loss": "l2"}, "Unknown loss 'l2'"),
        ({"mass": 1.2}, "mass to keep is a share"),
        ({"grad_scale": 0.0}, "scaled by a number above 0"),
    ],
)
def test_options_that_cannot_be(samples, centres, changes, words):
    options = replace(PLAIN, **changes)
    with pytest.raises(UsageError, match=words):
        check(options)
    with pytest.raises(UsageError, match=words):
        find(None, samples, centres, options)  # before the backbone is asked
    check(PLAIN)


def test_backbones_that_lack_slopes(samples, centres):
    with pytest.raises(UsageError, match="slopes is needed"):
        find(Coloured(gives=("cls", "attention")), samples, centres)
