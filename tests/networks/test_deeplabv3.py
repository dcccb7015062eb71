"""DeepLabV3: what it computes, what its tensors are called, how it starts."""

from dataclasses import replace

import pytest
import torch
from reference.pupils import deeplabv3, shaken

from zerolabel.errors import UsageError
from zerolabel.networks.deeplab import dilated
from zerolabel.networks.deeplabv3 import RATES, DeepLabV3, DeepLabV3Config, random_deeplabv3
from zerolabel.networks.resnet import ResNetConfig

BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8)
TINY = DeepLabV3Config(classes=5, resnet=BODY, width=6)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_it_computes_what_its_names_say(stride, block):
    body = replace(BODY, block=block, output_stride=stride)
    net = shaken(random_deeplabv3(replace(TINY, resnet=body), seed=0))
    x = images(2, 3, 100, 117)
    with torch.no_grad():
        found = net(x)
        assert found.shape == (2, 5, -(-100 // stride), -(-117 // stride))
        whole = torch.nn.functional.interpolate(found, size=x.shape[2:], mode="bilinear")
        expected = deeplabv3(x, net.state_dict(), output_stride=stride, rates=RATES[stride])
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)
    assert net.stride == stride


# What `deeplabv3_resnet50(num_classes=21)` of torchvision holds behind its body, from its source.
HEAD = {
    "classifier.0.convs.0.0.weight": (256, 2048, 1, 1),
    **{f"classifier.0.convs.{i}.0.weight": (256, 2048, 3, 3) for i in (1, 2, 3)},
    "classifier.0.convs.4.1.weight": (256, 2048, 1, 1),
    "classifier.0.project.0.weight": (256, 1280, 1, 1),
    "classifier.1.weight": (256, 256, 3, 3),
    "classifier.4.weight": (21, 256, 1, 1),
    "classifier.4.bias": (21,),
}
NORMS = [f"classifier.0.convs.{i}.{2 if i == 4 else 1}" for i in range(5)]
NORMS += ["classifier.0.project.1", "classifier.2"]


def test_names_and_shapes_are_torchvisions():
    with torch.device("meta"):
        net = DeepLabV3(DeepLabV3Config(classes=21))
    found = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    norms = {f"{n}.{p}": (256,) for n in NORMS for p in ("weight", "bias")}
    norms |= {f"{n}.{p}": (256,) for n in NORMS for p in ("running_mean", "running_var")}
    norms |= {f"{n}.num_batches_tracked": () for n in NORMS}
    head = {name: shape for name, shape in found.items() if name.startswith("classifier.")}
    assert head == HEAD | norms
    assert found["backbone.layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert not any("fc." in name for name in found)
    total = sum(value.numel() for value in net.parameters())
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 257 * 21
    assert total == 42_004_074 - auxiliary  # what torchvision says of its network


@pytest.mark.parametrize(("arch", "stride"), [("resnet-50", 8), ("resnet-101", 16)])
def test_the_rates_follow_the_stride(arch, stride):
    config = DeepLabV3Config(classes=2, resnet=dilated(arch, output_stride=stride))
    with torch.device("meta"):
        net = DeepLabV3(config)
    rates = [branch[0].dilation[0] for branch in net.classifier[0].convs[1:4]]
    assert rates == {8: [12, 24, 36], 16: [6, 12, 18]}[stride]
    assert net.classifier[0].project[3].p == 0.5


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    net, same, other = (random_deeplabv3(TINY, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in net.state_dict().items())
    assert not torch.equal(net.classifier[4].weight, other.classifier[4].weight)
    assert net.training
    net(images(2, 3, 64, 64)).square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in net.parameters())


def test_one_image_cannot_be_compared_in_training():
    net = random_deeplabv3(TINY, seed=0)
    with pytest.raises(UsageError, match="batch of 2"):
        net(images(1, 3, 32, 32))
    assert net.eval()(images(1, 3, 32, 32)).shape == (1, 5, 4, 4)


def test_nonsense_is_refused():
    with pytest.raises(UsageError, match="output stride of 8 or 16, found 32"):
        replace(TINY, resnet=replace(BODY, output_stride=32))
    with pytest.raises(UsageError, match="found 0, 6"):
        replace(TINY, classes=0)
    with pytest.raises(UsageError, match=r"and 1\.0"):
        replace(TINY, dropout=1.0)
    assert replace(TINY, resnet=replace(BODY, classes=7)).resnet.classes == 0
