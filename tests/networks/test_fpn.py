from dataclasses import replace

import pytest
import torch
from reference.resnet import forward as slow_forward
from reference.resnet import lively, pyramid

from zerolabel.errors import UsageError
from zerolabel.networks.fpn import FPN, PyramidConfig, ResNetFPN, random_pyramid
from zerolabel.networks.resnet import ARCHITECTURES, STAGES, ResNetConfig

BODY = ResNetConfig("bottleneck", (1, 1, 2, 1), width=4)
CONFIG = PyramidConfig(BODY, dim=6)


def images(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 3, height, width), generator=generator, dtype=torch.float64)


def tiny(config, seed=0):
    net = random_pyramid(config, seed=seed)
    net.body = lively(config.body)
    generator = torch.Generator().manual_seed(1)
    for module in (*net.fpn.inner_blocks, *net.fpn.layer_blocks):
        module.bias.data.normal_(generator=generator)
    return net.double().eval()


@pytest.mark.parametrize("stride", [32, 8])
@pytest.mark.parametrize("finest", ["layer1", "layer3"])
@pytest.mark.parametrize("size", [(64, 96), (75, 41)])
def test_equals_the_slow_reference(stride, finest, size):
    net = tiny(replace(CONFIG, body=replace(BODY, output_stride=stride), finest=finest))
    x = images(*size)
    stages = STAGES[STAGES.index(finest) :]
    with torch.no_grad():
        out, patches = net(x), net.patches(x)
        maps = slow_forward(x, net.body.state_dict(), output_stride=stride)
        expected = pyramid([maps[name] for name in stages], net.fpn.state_dict())
    assert len(out) == len(stages)
    for value, wanted in zip(out, expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-10, rtol=1e-10)
    assert torch.equal(patches.permute(0, 3, 1, 2), out[0])
    side = min(net.body.strides[finest], stride)
    assert net.patch == side
    assert patches.shape == (2, -(-size[0] // side), -(-size[1] // side), 6)


def test_only_the_finest_level_is_smoothed_for_patches():
    net = tiny(CONFIG)
    ran = []
    for i, module in enumerate(net.fpn.layer_blocks):
        module.register_forward_hook(lambda *_, i=i: ran.append(i))
    net.patches(images(32, 32))
    assert ran == [0]


def test_what_the_coarsest_level_sees_reaches_the_finest():
    net = tiny(CONFIG)
    maps = [
        torch.zeros(1, net.body.channels[s], 16 >> i, 16 >> i).double()
        for i, s in enumerate(STAGES)
    ]
    plain = net.fpn(maps)
    maps[-1][0, :, 0, 0] = 1.0
    changed = [(a != b).any(1)[0] for a, b in zip(net.fpn(maps), plain, strict=True)]
    for i, where in enumerate(changed):  # a square of 2, 4, 8 and 1 more for the smoothing
        side = (8 >> i) + 1
        assert where[:side, :side].all() or i == 3
        assert not where[side:].any()
        assert not where[:, side:].any()


def test_size_and_names_over_resnet_50():
    with torch.device("meta"):
        net = ResNetFPN(PyramidConfig(ARCHITECTURES["resnet-50"]))
    channels = (256, 512, 1024, 2048)
    expected = {}
    for i, count in enumerate(channels):
        expected |= {
            f"inner_blocks.{i}.weight": (256, count, 1, 1),
            f"inner_blocks.{i}.bias": (256,),
        }
        expected |= {f"layer_blocks.{i}.weight": (256, 256, 3, 3), f"layer_blocks.{i}.bias": (256,)}
    assert {k: tuple(v.shape) for k, v in net.fpn.state_dict().items()} == expected
    assert all(k.startswith(("body.", "fpn.")) for k in net.state_dict())


def test_random_weights_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    net, same, other = (random_pyramid(CONFIG, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in net.state_dict().items())
    assert not torch.equal(net.fpn.inner_blocks[0].weight, other.fpn.inner_blocks[0].weight)
    assert not torch.equal(net.body.conv1.weight, other.body.conv1.weight)


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(UsageError, match="Did you mean 'layer"):
        ResNetFPN(replace(CONFIG, finest="layer0"))
    with pytest.raises(UsageError, match="2 levels, but 1 maps"):
        FPN([3, 4])([torch.zeros(1, 3, 2, 2)])
