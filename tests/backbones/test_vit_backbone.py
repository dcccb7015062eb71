import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from reference.vit import within as slow_within
from safetensors.torch import save_file

from zerolabel import backbones
from zerolabel.backbones.vit import VitBackbone
from zerolabel.errors import DataError, UsageError, WeightsError
from zerolabel.networks.reading import OUTPUTS
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.types import Features

TINY = VitConfig(patch=8, dim=64, depth=2, heads=1, grid=4)


def pixels(height, width, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture
def backbone():
    return VitBackbone("tiny", random_vit(TINY, seed=0))


def test_shapes_types_and_what_was_not_asked_for(backbone):
    out = backbone.encode(pixels(50, 33), want=OUTPUTS)
    for name in ("tokens", "keys", "queries", "values"):
        assert getattr(out, name).shape == (2, 6, 4, 64)
    assert out.cls.shape == (2, 64)
    assert out.attention.shape == (2, 1, 6, 4)
    assert out.received.shape == (2, 6, 4)
    assert out.context.shape == (2, 25, 64)
    of_clip = {"dense", "joint"}
    assert backbone.gives == set(OUTPUTS) == {field.name for field in fields(Features)} - of_clip
    assert all(getattr(out, name).dtype == torch.float32 for name in OUTPUTS)
    only = backbone.encode(pixels(50, 33), want={"keys"})
    assert only.tokens is only.cls is only.attention is None
    torch.testing.assert_close(only.keys, out.keys)


def test_images_are_normalised_as_imagenet(backbone):
    images = pixels(32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images.permute(0, 2, 3, 1) / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = random_vit(TINY, seed=0)(x, want={"cls"}).cls.detach()
    out = backbone.encode(images, want={"cls"}).cls
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def test_regions_are_described_without_cutting_them_out(backbone):
    seen = backbone.encode(pixels(40, 56), want={"context", "cls"})
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0] = masks[1, :2, 3:] = masks[2, 4, 0] = True
    found = backbone.within(seen.context[1], masks)
    assert found.shape == (3, 64)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found[0], seen.cls[1], atol=1e-5, rtol=0)
    expected = slow_within(
        seen.context[1].double(),
        backbone.net.double().state_dict(),
        masks[1],
        depth=TINY.depth,
        heads=TINY.heads,
    )
    torch.testing.assert_close(found[1].double(), expected, atol=1e-5, rtol=0)


def test_wrong_masks_are_explained(backbone):
    context = backbone.encode(pixels(40, 56), want={"context"}).context[0]
    with pytest.raises(UsageError, match=r"torch.bool, found torch.int64"):
        backbone.within(context, torch.ones(1, 5, 7, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"of 35 patches.*found \(1, 5, 6\)"):
        backbone.within(context, torch.ones(1, 5, 6, dtype=torch.bool))


def test_a_batch_is_its_images(backbone):
    images = pixels(32, 40)
    whole = backbone.encode(images, want={"tokens"}).tokens
    for i in range(2):
        one = backbone.encode(images[i : i + 1], want={"tokens"}).tokens
        torch.testing.assert_close(whole[i : i + 1], one, atol=1e-5, rtol=1e-5)


def test_heads_can_be_trained_on_the_features(backbone):
    tokens = backbone.encode(pixels(16, 16), want={"tokens"}).tokens
    scale = torch.nn.Parameter(torch.ones(64))
    (tokens * scale).sum().backward()  # autograd saves the tokens themselves here
    assert scale.grad is not None
    assert not any(p.requires_grad for p in backbone.net.parameters())


def test_learning_and_saving_do_nothing(backbone):
    assert backbone.learn([], seed=0) is backbone
    assert backbone.learns == 0
    assert backbone.state() == {}
    assert backbone.restore({}) is backbone


def test_wrong_images_are_explained(backbone):
    with pytest.raises(UsageError, match=r"uint8 images .* torch.float32 \(1, 3, 8, 8\)"):
        backbone.encode(torch.zeros(1, 3, 8, 8), want={"cls"})
    with pytest.raises(UsageError, match=r"found torch.uint8 \(8, 8, 3\)"):
        backbone.encode(torch.zeros(8, 8, 3, dtype=torch.uint8), want={"cls"})
    with pytest.raises(DataError, match="at least 8x8 pixels, found 7x100"):
        backbone.encode(pixels(7, 100), want={"cls"})
    with pytest.raises(UsageError, match="Unknown feature 'text'"):
        backbone.encode(pixels(16, 16), want={"text"})


def test_a_file_under_a_name_of_its_own(tmp_path):
    net = random_vit(TINY, seed=5)
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    loaded = backbones.load("mine", weights=tmp_path / "mine.safetensors", device="cpu")
    assert (loaded.name, loaded.stride, loaded.dim) == ("mine", 8, 64)
    assert loaded.digest == VitBackbone("other", net).digest
    images = pixels(24, 24)
    expected = VitBackbone("other", net).encode(images, want={"tokens"}).tokens
    torch.testing.assert_close(loaded.encode(images, want={"tokens"}).tokens, expected)


def test_a_file_of_another_network_than_the_name_says(tmp_path):
    save_file(random_vit(TINY, seed=0).state_dict(), tmp_path / "mine.safetensors")
    found = "has patch 8, 64 channels, 2 blocks, 0 registers"
    with pytest.raises(WeightsError, match=f"dino-vits16 has patch 16, 384 .*{found}"):
        backbones.load("dino-vits16", weights=str(tmp_path / "mine.safetensors"), device="cpu")


def test_unknown_names():
    with pytest.raises(UsageError, match="Did you mean 'dino-vitb16'"):
        backbones.load("dino-vitb61", device="cpu")
    for name in ("random-vit", "random-vitx16", "random-vits0", "random-vits999"):
        with pytest.raises(UsageError, match="such as random-vits16"):
            backbones.load(name, device="cpu")
    for name in ("filterbank", "random-vits16"):
        with pytest.raises(UsageError, match="takes no weights"):
            backbones.load(name, weights="a.pth", device="cpu")


@pytest.mark.slow
def test_random_backbones_are_the_same_everywhere():
    first, second = (backbones.load("random-vitt16", device="cpu") for _ in range(2))
    assert first.digest == second.digest
    assert (first.stride, first.dim) == (16, 192)
    assert backbones.load("random-vitt8", device="cpu").stride == 8


def test_devices():
    assert backbones.pick_device("cpu") == torch.device("cpu")
    assert backbones.pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="Unknown device 'gpu'"):
        backbones.pick_device("gpu")
    for name in ("cuda:x", "cpu:", ":0", ""):
        with pytest.raises(UsageError, match="Unknown device"):
            backbones.pick_device(name)
    with pytest.raises(UsageError, match="not on this machine"):
        backbones.pick_device("cuda:99")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert backbones.pick_device("auto").type == expected


def test_a_method_can_say_what_it_requires(backbone):
    backbones.require(backbone, "keys", "attention")

    class Floor:
        name, gives = "filterbank", frozenset({"tokens"})

    backbones.require(Floor(), "tokens")
    with pytest.raises(UsageError) as caught:
        backbones.require(Floor(), "tokens", "attention")
    message = str(caught.value)
    assert "'filterbank' gives tokens, but attention is needed" in message
    assert "--backbone dino-vits16 or dino-vits8" in message
    assert "filterbank" not in message.split("Use --backbone")[1]


def test_importing_the_package_does_not_import_torch():
    code = "import sys, zerolabel.backbones; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
