from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from reference import layouts
from reference.clip_layouts import LAYOUTS, open_clip, openai, towers_of, transformers
from safetensors.torch import save_file

from zerolabel import backbones
from zerolabel.backbones import clip, registry, weights
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.backbones.clip_layouts import as_clip
from zerolabel.backbones.tokenizer import Tokenizer
from zerolabel.backbones.vocabulary import find_vocabulary, here, vocabulary
from zerolabel.errors import DataError, UsageError, WeightsError
from zerolabel.networks.clip_image import Reading
from zerolabel.networks.clip_text import ClipTextConfig
from zerolabel.networks.vit import ARCHITECTURES, VitConfig

COMMIT = "f" * 40
MERGES = "#version: 0.2\na t</w>\nc at</w>\nd o\n"
VIT = as_clip(VitConfig(patch=16, dim=128, depth=2, heads=2, grid=3))
WORDS = ClipTextConfig(vocabulary=517, dim=64, depth=2, heads=1)
IMAGES = torch.randint(
    0, 256, (2, 3, 48, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
TEXTS = ["a cat", "a photo of the dog", "It's a CAT"]


@pytest.fixture(scope="module")
def tiny():
    return backbones.load("random-clipt16", device="cpu")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty Hugging Face home, with the hub switched off."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def file(tmp_path, home):
    """A weights file with its vocabulary beside it, and nothing in the cache."""
    folder = tmp_path / "clip"
    folder.mkdir()
    save_file(transformers(*towers_of(VIT, WORDS, 32)), folder / "model.safetensors")
    (folder / "merges.txt").write_text(MERGES)
    return folder / "model.safetensors"


def lay(home, name, filename, write):
    """Lay a file into a Hugging Face cache by hand."""
    folder = home / "hub" / f"models--{registry.entry(name).repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    path = folder / "snapshots" / COMMIT / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    return path


# Images and texts.


def test_it_gives_what_it_says(tiny):
    found = tiny.encode(IMAGES, want=tiny.gives)
    assert tiny.gives == registry.CLIP_GIVES
    assert found.dense.shape == (2, 3, 5, 64)
    assert found.joint.shape == (2, 64)
    assert found.keys.shape == (2, 3, 5, tiny.dim)
    assert all(getattr(found, name).dtype == torch.float32 for name in tiny.gives)
    only = tiny.encode(IMAGES, want=["joint"])
    torch.testing.assert_close(only.joint, found.joint)
    assert only.dense is None
    assert (tiny.stride, tiny.projection, tiny.learns) == (16, 64, 0)
    torch.testing.assert_close(found.joint, found.cls @ tiny.net.proj)


def test_images_are_normalised_as_clips(tiny):
    mean, std = torch.tensor(registry.CLIP_MEAN), torch.tensor(registry.CLIP_STD)
    x = (IMAGES.permute(0, 2, 3, 1) / 255 - mean) / std
    own = tiny.net(x.permute(0, 3, 1, 2), ("joint",)).joint
    torch.testing.assert_close(tiny.encode(IMAGES, want=["joint"]).joint, own)


def test_images_of_another_kind_are_refused(tiny):
    with pytest.raises(UsageError, match="uint8"):
        tiny.encode(IMAGES.float(), want=["joint"])
    with pytest.raises(DataError, match="at least 16x16"):
        tiny.encode(IMAGES[..., :8], want=["joint"])
    with pytest.raises(UsageError, match="Did you mean 'dense'"):
        tiny.encode(IMAGES, want=["dence"])


def test_texts_are_encoded_in_their_order_whatever_the_batch(tiny):
    whole = tiny.encode_texts(TEXTS)
    assert whole.shape == (3, 64)
    assert not whole.requires_grad
    for batch in (1, 2):
        torch.testing.assert_close(tiny.encode_texts(TEXTS, batch=batch), whole)
    for text, row in zip(TEXTS, whole, strict=True):
        torch.testing.assert_close(tiny.encode_texts([text])[0], row)
        torch.testing.assert_close(tiny.text(tiny.tokenise([text]))[0], row)
    assert torch.nn.functional.cosine_similarity(whole[0], whole[1], dim=0) < 0.95
    torch.testing.assert_close(tiny.encode_texts(["a  Cat "])[0], whole[0])
    assert tiny.encode_texts([]).shape == (0, 64)
    assert tiny.tokenise(TEXTS).shape == (3, 77)
    with pytest.raises(UsageError, match=r"76 tokens, .* at most 75"):
        tiny.encode_texts(["cat", "x" * 76])


def test_positions_are_those_that_are_added(tiny):
    trained = tiny.net.pos_embed[0, 1:].unflatten(0, (14, 14))
    assert torch.equal(tiny.positions((14, 14)), trained)
    assert tiny.positions((3, 5)).shape == (3, 5, tiny.dim)
    assert not tiny.positions((3, 5)).requires_grad


def test_random_clips_are_the_same_everywhere(tiny):
    torch.manual_seed(5)  # of which nothing depends
    assert backbones.load("random-clipt16", device="cpu").digest == tiny.digest
    assert backbones.load("random-clipt32", device="cpu").digest != tiny.digest
    assert tiny.tokenizer.size == 514


@pytest.mark.parametrize("name", ["random-clipx16", "random-clip", "random-clipt0", "random-clipt"])
def test_random_names_of_another_form_are_refused(name):
    with pytest.raises(UsageError, match=r"such as random-clipb16"):
        backbones.load(name, device="cpu")


def test_random_clips_take_no_weights(file):
    with pytest.raises(UsageError, match="takes no weights"):
        backbones.load("random-clipt16", weights=file, device="cpu")


@pytest.mark.parametrize("size", clip.SIZES)
def test_sizes_are_sound(size):
    arch, depth, (dim, _, heads), _ = clip.SIZES[size]
    assert dim == 64 * heads
    assert depth <= ARCHITECTURES[arch].depth


# Other readings of the same weights.


READINGS = [
    {"residual": residual, "mlp": mlp, "legacy": legacy}
    for residual in (True, False)
    for mlp in (True, False)
    for legacy in (True, False)
]


def test_every_reading_has_its_own_digest_and_features(tiny):
    read = [tiny.read_as(**reading) for reading in READINGS]
    assert len({backbone.digest for backbone in read}) == len(read)
    dense = [backbone.encode(IMAGES, want=["dense"]).dense for backbone in read]
    for i, one in enumerate(dense):
        for other in dense[:i]:
            assert (one - other).abs().max() > 1e-3
    joint = [backbone.encode(IMAGES, want=["joint"]).joint for backbone in read]
    for reading, found in zip(READINGS, joint, strict=True):  # residual and MLP are of `dense`
        assert torch.equal(found, joint[READINGS.index(dict(reading, residual=True, mlp=True))])
    again = [tiny.read_as(**reading).digest for reading in READINGS]
    assert again == [backbone.digest for backbone in read]


def test_to_read_as_published_is_to_read_as_before(tiny):
    other = tiny.read_as(residual=False, legacy=True)
    assert tiny.read_as() is tiny
    assert other.read_as() is tiny
    assert other.read_as(mlp=False).digest == tiny.read_as(mlp=False).digest
    assert tiny.reading == Reading()
    assert other.reading == Reading(residual=False)


def test_weights_are_shared_and_the_first_backbone_stays_as_it_was(tiny):
    before = tiny.encode(IMAGES, want=["dense", "cls"])
    legacy = tiny.read_as(legacy=True)
    for own, first in zip(legacy.net.parameters(), tiny.net.parameters(), strict=True):
        assert own.data_ptr() == first.data_ptr()
        assert not own.requires_grad
    assert legacy.text is tiny.text
    after = tiny.encode(IMAGES, want=["dense", "cls"])
    assert torch.equal(before.dense, after.dense)
    assert torch.equal(before.cls, after.cls)
    assert isinstance(legacy, ClipBackbone)
    assert not legacy.net.training


def test_legacy_is_exact_gelu_another_epsilon_and_imagenets_colours(tiny):
    legacy = tiny.read_as(legacy=True)
    assert (legacy.net.config.activation, legacy.net.config.eps) == ("gelu", 1e-6)
    norms = [m for m in legacy.net.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 2 * len(legacy.net.blocks) + 2
    assert {norm.eps for norm in norms} == {1e-6}
    assert {block.mlp.activation for block in legacy.net.blocks} == {"gelu"}
    mean, std = torch.tensor(registry.IMAGENET_MEAN), torch.tensor(registry.IMAGENET_STD)
    x = ((IMAGES.permute(0, 2, 3, 1) / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(legacy.prepare(IMAGES), x)
    torch.testing.assert_close(
        legacy.encode(IMAGES, want=["dense"]).dense, legacy.net(x, ("dense",)).dense
    )
    assert torch.equal(legacy.encode_texts(TEXTS), tiny.encode_texts(TEXTS))


# Files.


def test_a_clip_is_known_by_its_tensors_whatever_its_name(file):
    backbone = backbones.load("mine", weights=file, device="cpu")
    assert isinstance(backbone, ClipBackbone)
    assert (backbone.name, backbone.stride) == ("mine", 16)
    assert (backbone.dim, backbone.projection) == (128, 32)
    assert backbone.tokenise(["Cat"])[0, :3].tolist() == [515, 513, 516]
    assert backbone.encode_texts(TEXTS).shape == (3, 32)


def test_the_digest_is_that_of_weights_and_vocabulary(file):
    towers = towers_of(VIT, WORDS, 32)
    found = set()
    for layout in LAYOUTS:
        path = file.with_name(f"{layout.__name__}.pt")
        torch.save(layout(*towers), path)
        found.add(backbones.load("mine", weights=path, device="cpu").digest)
    assert len(found) == 1
    for i in range(2):  # each tower counts
        other = list(towers)
        other[i] = towers_of(VIT, WORDS, 32, seed=1)[i]
        save_file(openai(*other), file)
        found.add(backbones.load("mine", weights=file, device="cpu").digest)
    (file.with_name("merges.txt")).write_text(MERGES.replace("d o", "o d"))
    found.add(backbones.load("mine", weights=file, device="cpu").digest)
    assert len(found) == 4


def test_other_networks_are_loaded_as_ever(tmp_path):
    config = VitConfig(patch=4, dim=128, depth=2, heads=2, grid=3)
    save_file(layouts.weights_of(config), tmp_path / "mine.safetensors")
    backbone = backbones.load("mine", weights=tmp_path / "mine.safetensors", device="cpu")
    assert not isinstance(backbone, ClipBackbone)
    (tmp_path / "merges.txt").write_text(MERGES)
    with pytest.raises(WeightsError, match="not the weights of a CLIP"):
        backbones.load("clip-vitb16", weights=tmp_path / "mine.safetensors", device="cpu")


def test_a_clip_under_the_name_of_another_network_is_refused(file):
    with pytest.raises(WeightsError, match="dino-vits16 is no CLIP"):
        backbones.load("dino-vits16", weights=file, device="cpu")
    with pytest.raises(WeightsError, match="clip-vitb16 has patch 16, 768 channels"):
        backbones.load("clip-vitb16", weights=file, device="cpu")
    with pytest.raises(UsageError, match="Did you mean 'clip-vitb16'"):
        clip.load_clip("clip-vitb17", weights=None, device=torch.device("cpu"))


@pytest.mark.parametrize("filename", registry.VOCABULARIES)
def test_a_vocabulary_is_looked_for_beside_the_weights(filename, file):
    (file.with_name("merges.txt")).unlink()
    with pytest.raises(WeightsError) as caught:
        backbones.load("mine", weights=file, device="cpu")
    for part in (*registry.VOCABULARIES, str(file.parent), "models get clip-vitb16", "MIT"):
        assert part in str(caught.value)
    file.with_name(filename).write_text(
        '{"model": {"merges": ["a t</w>", "c at</w>", "d o"]}}' if "json" in filename else MERGES
    )
    assert vocabulary("mine", weights=file) == file.with_name(filename)
    assert backbones.load("mine", weights=file, device="cpu").tokenizer.size == 517


def test_then_in_the_cache_of_any_clip(file, home):
    (file.with_name("merges.txt")).unlink()
    assert find_vocabulary(file) is None
    path = lay(home, "clip-vitl14", "merges.txt", lambda path: path.write_text(MERGES))
    assert find_vocabulary(file) == path
    assert backbones.load("mine", weights=file, device="cpu").tokenizer.size == 517


def test_a_vocabulary_of_another_size_is_refused(file):
    (file.with_name("merges.txt")).write_text(MERGES + "o d\n")
    with pytest.raises(WeightsError, match="knows 517 tokens, its vocabulary has 518"):
        backbones.load("mine", weights=file, device="cpu")


# The registry and the cache.


@pytest.fixture
def small_entry(monkeypatch):
    """The registry's clip-vitb16 with an image tower small enough for tests."""
    size = replace(ARCHITECTURES["vit-base"], dim=128, depth=2, heads=2)
    monkeypatch.setitem(ARCHITECTURES, "vit-base", size)


@pytest.mark.parametrize("layout", [transformers, open_clip])
def test_cached_weights_are_found_and_loaded(layout, home, small_entry):
    item = registry.entry("clip-vitb16")
    state = layout(*towers_of(VIT, WORDS, 32))
    path = lay(home, "clip-vitb16", "model.safetensors", lambda path: save_file(state, path))
    assert weights.find(item) == path
    assert not here(item)
    with pytest.raises(WeightsError, match=r"The vocabulary of clip-vitb16 is not .* 598 MB"):
        backbones.load("clip-vitb16", device="cpu")
    with pytest.raises(WeightsError, match="could not be fetched"):
        weights.get("clip-vitb16")
    lay(home, "clip-vitb16", "merges.txt", lambda path: path.write_text(MERGES))
    assert here(item)
    assert weights.get("clip-vitb16") == path
    backbone = backbones.load("clip-vitb16", device="cpu")
    assert (backbone.name, backbone.projection) == ("clip-vitb16", 32)


def test_missing_weights_are_an_error_that_helps(home):
    with pytest.raises(WeightsError) as caught:
        backbones.load("clip-vitb16", device="cpu")
    message = str(caught.value)
    for part in ("zerolabel models get clip-vitb16", "598 MB", "MIT", "--weights FILE"):
        assert part in message
    assert all(filename in message for filename in registry.VOCABULARIES)
    assert "embedded" not in message
    with pytest.raises(WeightsError, match="on a machine with a network") as caught:
        weights.get("clip-vitb16")
    assert "embedded" not in str(caught.value)


def test_weights_and_vocabulary_are_fetched_together(monkeypatch, home):
    fetched = []

    def download(item, *filenames):
        fetched.append((item.name, *filenames))
        return home / "model.safetensors"

    monkeypatch.setattr(weights, "_download", download)
    weights.get("clip-vitb32")
    assert fetched == [("clip-vitb32",), ("clip-vitb32", "merges.txt")]
    fetched.clear()
    lay(home, "clip-vitb32", "merges.txt", lambda path: path.write_text(MERGES))
    weights.get("clip-vitb32")
    assert fetched == [("clip-vitb32",)]


def test_the_backbone_is_asked_for_by_what_it_gives(tiny):
    backbones.require(tiny, "dense", "joint", "keys")
    plain = backbones.load("random-vitt32", device="cpu")
    with pytest.raises(UsageError, match="clip-vitb16 or clip-vitb32 or clip-vitl14"):
        backbones.require(plain, "dense", "joint")


def test_a_vocabulary_that_does_not_fit_is_told_at_once(tiny):
    with pytest.raises(WeightsError, match="knows 514 tokens"):
        ClipBackbone("x", tiny.net, tiny.text, tokenizer=Tokenizer([("a", "b")]))
