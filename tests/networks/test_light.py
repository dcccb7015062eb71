"""The light student: what it computes, that it is the embedded encoder, what it costs."""

from dataclasses import replace

import pytest
import torch
from reference.pupils import light, shaken
from torch import nn

from zerolabel.errors import UsageError
from zerolabel.networks.light import LightConfig, random_light
from zerolabel.networks.vit import VitConfig, random_vit, vit_config

VIT = VitConfig(
    patch=8, dim=64, depth=2, heads=1, grid=4, conv_stem=True, pos_interp="size", mlp_ratio=2
)
TINY = LightConfig(classes=5, vit=VIT, width=6)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def lively(config=TINY, seed=0):
    """A student whose biases and norms do something."""
    return shaken(random_light(config, seed=seed))


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
@pytest.mark.parametrize("patch", [8, 16])
def test_it_computes_what_its_names_say(size, patch):
    size = tuple(side * patch // 8 for side in size)
    net = lively(replace(TINY, vit=replace(VIT, patch=patch)))
    x = images(2, 3, *size)
    with torch.no_grad():
        found = net(x)
        expected = [light(one, net.state_dict(), depth=2, heads=1) for one in x]
    assert found.shape == (2, 5, size[0] // 4, size[1] // 4)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 40), (8, 8)])
def test_its_encoder_is_the_transformer_whatever_the_grid(size):
    net = lively()
    seen = []
    hook = net.decoder.register_forward_pre_hook(lambda _, given: seen.append(given))
    x = images(2, 3, *size)
    with torch.no_grad():
        net(x)
        _, tokens = net.encoder.forward_all(x)
    hook.remove()
    torch.testing.assert_close(seen[0][0], tokens.permute(0, 3, 1, 2), rtol=0, atol=0)
    assert seen[0][1].shape == (2, 32, size[0] // 4, size[1] // 4)


def test_what_exceeds_whole_patches_is_cut_off():
    net, x = lively(), images(1, 3, 45, 39)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(x[:, :, :40, :32]))


def test_a_batch_is_its_images():
    net, x = lively(), images(3, 3, 32, 48)
    with torch.no_grad():
        alone = torch.cat([net(one[None]) for one in x])
        torch.testing.assert_close(net(x), alone, rtol=1e-4, atol=1e-5)


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    net, same, other = (random_light(TINY, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in net.state_dict().items())
    assert not torch.equal(net.decoder.mix.weight, other.decoder.mix.weight)
    encoder = random_vit(VIT, seed=5).state_dict()
    assert all(torch.equal(v, encoder[k]) for k, v in net.encoder.state_dict().items())
    net(images(2, 3, 32, 32)).square().mean().backward()
    # a stem that ends in a norm of all channels leaves no gradient for nothing else
    assert all(value.grad is not None for value in net.parameters())
    assert net.decoder.deep.weight.grad.any()
    assert net.encoder.blocks[0].attn.qkv.weight.grad.any()


def test_the_size_that_it_has_for_people():
    net = random_light(
        LightConfig(classes=21, vit=vit_config("vit-mini", 8, conv_stem=True)), seed=0
    )
    decoder = sum(value.numel() for value in net.decoder.parameters())
    assert decoder == 192 * 96 + 96 * 96 + 96 * 96 * 9 + 4 * 96 + 97 * 21
    counted = []

    def count(module, _, out):
        places = out.numel() // (
            out.shape[1] if isinstance(module, nn.Conv2d) else module.out_features
        )
        counted.append(places * module.weight.numel())

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        net.eval()(images(1, 3, 224, 224))
    tokens = 28 * 28 + 1
    attention = 6 * 2 * tokens**2 * 192
    assert (sum(counted) + attention) / 1e9 == pytest.approx(4.33, abs=0.02)  # docs/methods


def test_other_encoders_are_refused():
    for change, words in [
        ({"conv_stem": False}, "no convolutional stem"),
        ({"patch": 4}, "patches of 4"),
        ({"registers": 4}, "4 registers"),
    ]:
        with pytest.raises(UsageError, match=words):
            replace(TINY, vit=replace(VIT, **change))
    with pytest.raises(UsageError, match="found 5 and 0"):
        replace(TINY, width=0)
