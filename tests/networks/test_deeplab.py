from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.distil import aspp as slow_aspp
from reference.resnet import lively

from zerolabel.errors import UsageError
from zerolabel.networks.deeplab import (
    Aspp,
    DeepLabConfig,
    DeepLabV2,
    dilated,
    random_deeplab,
    settings_of,
)
from zerolabel.networks.resnet import STAGES, ResNet, ResNetConfig

TINY = DeepLabConfig(resnet=ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8), out=6)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def shaken(module, seed=0):
    """Norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(noise + 0.5 if name.endswith(("var", "weight")) else noise - 0.5)
    return module


# --- the pyramid ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_aspp_is_the_sum_of_dilated_convolutions(norm, relu):
    dilations = (1, 6, 7, 10)  # on a map of 7 x 10: from the seventh on, kernels reach beyond it
    net = shaken(Aspp(3, 2, dilations, norm=norm, relu=relu)).eval()
    x = images(2, 3, 7, 10)
    with torch.no_grad():
        expected = slow_aspp(x, net.state_dict(), dilations, relu=relu)
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    assert bool((expected < 0).any()) != relu


def test_kernels_that_reach_beyond_the_map_have_the_gradients_of_plain_convolutions():
    net = Aspp(3, 2, (2, 6, 7, 10), norm=False, relu=False)
    x, plain = images(2, 3, 7, 10).requires_grad_(True), images(2, 3, 7, 10).requires_grad_(True)
    up = images(2, 2, 7, 10)
    (net(x) * up).sum().backward()
    found = [value.grad.clone() for value in net.parameters()]
    net.zero_grad()
    (sum(branch.conv(plain) for branch in net) * up).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-4, atol=1e-5)
    for mine, value in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(mine, value.grad, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), stride=st.sampled_from([32, 16, 8]))
def test_any_size_of_image_gives_a_grid_of_the_stride(height, width, stride):
    config = replace(TINY, resnet=replace(TINY.resnet, output_stride=stride))
    net = random_deeplab(config, seed=0).eval()
    with torch.no_grad():
        out = net(images(2, 3, height, width))
    assert out.shape == (2, 6, -(-height // stride), -(-width // stride))
    assert net.stride == stride
    assert out.min() >= 0


def test_it_is_the_body_and_then_the_pyramid():
    net = shaken(random_deeplab(TINY, seed=0)).eval()
    body = ResNet(TINY.resnet).eval()
    body.load_state_dict(net.backbone.state_dict())
    x = images(2, 3, 33, 41)
    with torch.no_grad():
        last = body(x, want=["layer4"])["layer4"]
        state = net.aspp.state_dict()
        torch.testing.assert_close(
            net(x), slow_aspp(last, state, TINY.dilations), rtol=1e-4, atol=1e-5
        )


def test_the_default_is_the_papers_student():
    config = DeepLabConfig()
    assert (config.out, config.dilations) == (512, (6, 12, 18, 24))
    assert config.resnet == dilated("resnet-50", output_stride=8)
    with torch.device("meta"):
        net = DeepLabV2(config)
    pyramid = sum(value.numel() for value in net.aspp.parameters())
    assert pyramid == 4 * (2048 * 512 * 9 + 2 * 512)
    body = sum(value.numel() for value in net.backbone.parameters())
    assert body == 25_557_032 - 2_049_000  # torchvision's, without its classifier


def test_names():
    names = {name.split(".")[0] for name in random_deeplab(TINY, seed=0).state_dict()}
    assert names == {"backbone", "aspp", "settings"}
    state = random_deeplab(TINY, seed=0).state_dict()
    assert {"backbone.conv1.weight", "aspp.3.conv.weight", "aspp.0.bn.running_mean"} < set(state)
    plain = random_deeplab(replace(TINY, norm=False), seed=0).state_dict()
    assert {n for n in plain if n.startswith("aspp.1.")} == {
        "aspp.1.conv.weight",
        "aspp.1.conv.bias",
    }
    assert not plain["aspp.1.conv.bias"].any()


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    net, same, other = (random_deeplab(TINY, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in net.state_dict().items())
    assert not torch.equal(net.aspp[0].conv.weight, other.aspp[0].conv.weight)
    assert net.settings.tolist() == settings_of(TINY) == [8, 1, 6, 12, 18, 24]
    assert net.training
    wide = random_deeplab(replace(TINY, out=256), seed=0).aspp[2].conv.weight
    assert wide.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.03)


def test_every_weight_learns():
    net = random_deeplab(TINY, seed=0)
    net(images(2, 3, 64, 64)).square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in net.parameters())


def test_a_classifier_is_left_out_and_nonsense_is_refused():
    assert replace(TINY, resnet=replace(TINY.resnet, classes=7)).resnet.classes == 0
    with pytest.raises(UsageError, match="dilations"):
        replace(TINY, dilations=())
    with pytest.raises(UsageError, match="found 0 and"):
        replace(TINY, out=0)


# --- the deep stem of the body -------------------------------------------------------------------


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_deep_stem_is_three_convolutions(block):
    config = ResNetConfig(block, (1, 1, 1, 1), width=8, deep_stem=True)
    net = lively(config)
    shapes = {n: tuple(v.shape) for n, v in net.state_dict().items() if "stem" in n and v.ndim == 4}
    assert shapes == {
        "stem.0.weight": (4, 3, 3, 3),
        "stem.3.weight": (4, 4, 3, 3),
        "stem.6.weight": (8, 4, 3, 3),
    }
    assert not any(name.startswith(("conv1", "bn1")) for name in net.state_dict())
    x = images(2, 3, 45, 38)
    with torch.no_grad():
        z = x
        for conv, norm in ((0, 1), (3, 4), (6, 7)):
            z = torch.conv2d(z, net.stem[conv].weight, stride=2 if conv == 0 else 1, padding=1)
            z = net.stem[norm](z).clamp(min=0)
        z = torch.nn.functional.max_pool2d(z, 3, stride=2, padding=1)
        expected = net.layer1(z)
        out = net(x, want=STAGES)
    torch.testing.assert_close(out["layer1"], expected)
    assert out["layer4"].shape[2:] == (2, 2)


def test_a_deep_stem_has_the_size_of_resnet_c():
    with torch.device("meta"):
        plain, deep = (
            sum(v.numel() for v in ResNet(replace(dilated("resnet-50"), deep_stem=d)).parameters())
            for d in (False, True)
        )
    stem = 27 * 32 + 9 * 32 * 32 + 9 * 32 * 64 + 2 * (32 + 32 + 64)
    assert deep - plain == stem - (147 * 64 + 2 * 64)
