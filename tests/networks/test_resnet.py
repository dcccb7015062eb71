from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.resnet import forward as slow_forward
from reference.resnet import lively, transformers_names

from zerolabel.errors import UsageError
from zerolabel.networks.resnet import (
    ARCHITECTURES,
    OUTPUTS,
    STAGES,
    FixedNorm,
    ResNet,
    ResNetConfig,
    random_resnet,
)

BASIC = ResNetConfig("basic", (1, 2, 2, 1), width=8, classes=3)
DEEP = ResNetConfig("bottleneck", (2, 1, 2, 2), width=4, classes=3)
BOTH = pytest.mark.parametrize("config", [BASIC, DEEP], ids=["basic", "bottleneck"])


def images(height, width, *, count=2):
    shape = (count, 3, height, width)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@BOTH
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(64, 96), (75, 41)])
def test_equals_the_slow_reference(config, stride, size):
    net = lively(replace(config, output_stride=stride)).double()
    x = images(*size)
    with torch.no_grad():
        out = net(x, want=OUTPUTS)
    expected = slow_forward(x, net.state_dict(), output_stride=stride)
    assert list(out) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(out[name], value, atol=1e-10, rtol=1e-10)
        assert value.std() > 1e-2  # something is compared


@BOTH
def test_gradients_equal_the_slow_reference(config):
    # The norms are fixed: the reference does not use the statistics of the batch.
    net = lively(replace(config, fixed_norm=True)).double().requires_grad_(True).train()
    x = images(40, 33)
    state = {k: v.detach().clone() for k, v in net.state_dict().items()}
    learned = [name for name, _ in net.named_parameters()]
    for name in learned:
        state[name].requires_grad_(True)
    net(x, want=OUTPUTS)["logits"].square().sum().backward()
    slow_forward(x, state)["logits"].square().sum().backward()
    for name, value in net.named_parameters():
        torch.testing.assert_close(value.grad, state[name].grad, rtol=1e-8, atol=1e-8)


@pytest.mark.slow  # imports transformers
@BOTH
@pytest.mark.parametrize("training", [False, True])
def test_equals_transformers(config, training):
    transformers = pytest.importorskip("transformers")
    expansion = 4 if config.block == "bottleneck" else 1
    theirs = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=config.width,
            hidden_sizes=[config.width * expansion << i for i in range(4)],
            depths=list(config.depths),
            layer_type=config.block,
            downsample_in_bottleneck=False,  # stride in the 3x3 convolution
            num_labels=config.classes,
        )
    )
    net = lively(config)
    names = {
        ours: key
        for key, ours in zip(
            theirs.state_dict(), transformers_names(theirs.state_dict()), strict=True
        )
    }
    assert names.keys() == net.state_dict().keys()
    theirs.load_state_dict({names[ours]: value for ours, value in net.state_dict().items()})
    net, theirs = net.double().train(training), theirs.double().train(training)
    x = images(75, 98)
    with torch.no_grad():
        out = net(x, want=OUTPUTS)
        expected = theirs(x, output_hidden_states=True)
    for name, value in zip(STAGES, expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(out[name], value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(out["logits"], expected.logits, rtol=1e-10, atol=1e-10)
    for name, value in transformers_names(theirs.state_dict()).items():  # moved statistics, too
        torch.testing.assert_close(net.state_dict()[name], value)


@pytest.mark.parametrize(
    ("arch", "parameters", "tensors"),
    [
        ("resnet-18", 11_689_512, 122),
        ("resnet-34", 21_797_672, 218),
        ("resnet-50", 25_557_032, 320),
        ("resnet-101", 44_549_160, 626),
    ],
)
def test_sizes_are_the_published_ones(arch, parameters, tensors):
    config = replace(ARCHITECTURES[arch], classes=1000)
    with torch.device("meta"):
        net = ResNet(config)
    assert sum(value.numel() for value in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors
    deep = config.block == "bottleneck"
    assert list(net.channels.values()) == [(256 if deep else 64) << i for i in range(4)]


def test_names_are_torchvisions():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    units = [("conv1", "bn1")]
    for stage, depth in zip(STAGES, (3, 4, 6, 3), strict=True):
        for i in range(depth):
            units += [(f"{stage}.{i}.conv{j}", f"{stage}.{i}.bn{j}") for j in (1, 2, 3)]
            if i == 0:
                units.append((f"{stage}.0.downsample.0", f"{stage}.0.downsample.1"))
    expected = {f"{conv}.weight" for conv, _ in units} | {
        f"{bn}.{n}" for _, bn in units for n in norm
    }
    with torch.device("meta"):
        assert ResNet(ARCHITECTURES["resnet-50"]).state_dict().keys() == expected
        assert "layer1.0.downsample.0.weight" not in ResNet(ARCHITECTURES["resnet-18"]).state_dict()


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stride=st.sampled_from([32, 16, 8]),
    block=st.sampled_from(["basic", "bottleneck"]),
)
def test_dilation_sees_what_strides_saw(height, width, stride, block):
    """Where a strided network has a value, the dilated one has the same; any size of image."""
    config = ResNetConfig(block, (1, 2, 2, 2), width=2)
    plain = lively(config).double()
    dilated = lively(replace(config, output_stride=stride)).double()
    x = images(height, width, count=1)
    with torch.no_grad():
        sparse, dense = plain(x, want=STAGES), dilated(x, want=STAGES)
    for name in STAGES:
        s = dilated.strides[name]
        assert s == min(plain.strides[name], stride)
        assert dense[name].shape[2:] == (-(-height // s), -(-width // s))
        step = plain.strides[name] // s
        torch.testing.assert_close(
            dense[name][..., ::step, ::step], sparse[name], rtol=1e-9, atol=1e-9
        )


@BOTH
def test_an_output_stride_of_32_changes_nothing(config):
    x = images(50, 70)
    net, same = lively(config).double(), lively(replace(config, output_stride=32)).double()
    with torch.no_grad():
        assert torch.equal(net(x, want=["layer4"])["layer4"], same(x, want=["layer4"])["layer4"])
    assert all(m.dilation == (1, 1) for m in net.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize("last", range(4))
def test_later_stages_do_not_run(last):
    net = lively(DEEP)
    ran = []
    for name in STAGES:
        getattr(net, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    wanted = {STAGES[0], STAGES[last]}
    out = net(images(40, 40).float(), want=wanted)
    assert ran == list(STAGES[: last + 1])
    assert out.keys() == wanted
    assert net(images(40, 40).float(), want=()) == {}
    assert len(ran) == last + 1


@BOTH
def test_what_was_returned_is_not_changed_by_later_stages(config):
    net = lively(config).double()
    x = images(40, 40)
    with torch.no_grad():
        together = net(x, want=OUTPUTS)
        for name in OUTPUTS:
            assert torch.equal(net(x, want=[name])[name], together[name])


def test_fixed_norms_neither_move_nor_learn():
    fixed, free = lively(replace(DEEP, fixed_norm=True)), lively(DEEP)
    x = images(40, 40).float()
    still = fixed(x, want=["layer4"])["layer4"]
    torch.testing.assert_close(still, free(x, want=["layer4"])["layer4"])
    before = {k: v.clone() for k, v in fixed.state_dict().items()}
    fixed.train()
    free.train()
    assert torch.equal(fixed(x, want=["layer4"])["layer4"], still)
    assert not torch.allclose(free(x, want=["layer4"])["layer4"], still)
    assert all(torch.equal(v, before[k]) for k, v in fixed.state_dict().items())
    moved = {k for k, v in free.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if "running" in k or "tracked" in k}
    assert not any(m.training for m in fixed.modules() if isinstance(m, FixedNorm))
    learning = {name for name, value in fixed.named_parameters() if value.requires_grad}
    assert learning == {k for k in before if before[k].ndim == 4} | {"fc.weight", "fc.bias"}
    assert all(value.requires_grad for value in free.parameters())


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    net, same, other = (random_resnet(DEEP, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in net.state_dict().items())
    assert not torch.equal(net.conv1.weight, other.conv1.weight)
    wide = random_resnet(replace(DEEP, width=64), seed=0)
    assert wide.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.03)
    assert wide.bn1.running_var.eq(1).all()
    assert wide.bn1.running_mean.eq(0).all()


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(UsageError, match="32, 16 or 8, found 4"):
        ResNet(replace(DEEP, output_stride=4))
    net = lively(replace(DEEP, classes=0))
    with pytest.raises(UsageError, match="Did you mean 'layer"):
        net(images(32, 32).float(), want=["layer5"])
    with pytest.raises(UsageError, match="no classifier"):
        net(images(32, 32).float(), want=["logits"])
