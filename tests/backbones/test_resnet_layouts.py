from dataclasses import replace

import pytest
import torch
from reference.resnet import LAYOUTS, dino, moco_v2, torchvision, torchvision_old, weights_of

from zerolabel.backbones import weights
from zerolabel.backbones.resnet_layouts import build, convert, infer_config
from zerolabel.errors import WeightsError
from zerolabel.networks.resnet import ARCHITECTURES, ResNet, ResNetConfig

BASIC = ResNetConfig("basic", (1, 2, 1, 1), width=8, classes=5)
DEEP = ResNetConfig("bottleneck", (2, 1, 2, 1), width=4, classes=5)


@pytest.mark.parametrize("config", [BASIC, DEEP], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_comes_back_to_the_original_names(layout, config, tmp_path):
    state = weights_of(config)
    path = tmp_path / "checkpoint.pth"
    torch.save(layout(state), path)
    loaded = weights.load_file(path)
    kept = layout in (torchvision, torchvision_old)
    for classifier in (False, True):
        back = convert(loaded, classifier=classifier)
        expected = {k: v for k, v in state.items() if (classifier and kept) or "fc." not in k}
        if layout is torchvision_old:
            counted = {k: v * 0 for k, v in expected.items() if k.endswith("tracked")}
            expected |= counted
        assert back.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(back[name], value), name
        assert infer_config(back) == replace(config, classes=5 if classifier and kept else 0)
        net = build(back)
        assert not net.training
        assert not any(value.requires_grad for value in net.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("classes", [0, 1000])
def test_the_network_is_told_from_shapes(arch, classes):
    config = replace(ARCHITECTURES[arch], classes=classes)
    with torch.device("meta"):
        state = ResNet(config).state_dict()
    assert infer_config(state) == config


def test_the_same_weights_serve_every_output_stride_and_norm():
    state = convert(moco_v2(weights_of(DEEP))["state_dict"])
    config = replace(infer_config(state), output_stride=8, fixed_norm=True)
    net = build(state, config, frozen=False)
    assert net.training
    assert net.conv1.weight.requires_grad
    assert not net.bn1.training
    assert not net.bn1.weight.requires_grad
    before = state["conv1.weight"].clone()
    with torch.no_grad():
        net.conv1.weight.add_(1)
    assert torch.equal(state["conv1.weight"], before)  # training does not reach what was read
    free = build(state, replace(config, fixed_norm=False), frozen=False)
    assert free.bn1.training
    assert all(value.requires_grad for value in free.parameters())


def test_half_precision_is_read_as_single():
    halves = {k: v.half() if v.is_floating_point() else v for k, v in weights_of(DEEP).items()}
    back = convert(halves)
    assert {v.dtype for v in back.values()} == {torch.float32, torch.int64}


def test_missing_unexpected_and_misshapen_tensors_are_named():
    state = weights_of(DEEP)
    del state["layer4.0.bn3.bias"]
    state["surprise"] = torch.ones(1)
    state["bn1.weight"] = torch.ones(7)
    with pytest.raises(WeightsError) as caught:
        build(convert(state))
    message = str(caught.value)
    assert "layer4.0.bn3.bias missing" in message
    assert "surprise unexpected" in message
    assert "bn1.weight of another shape" in message


def test_other_networks_are_refused():
    with pytest.raises(WeightsError, match="not the weights of a residual network"):
        infer_config(convert({"patch_embed.proj.weight": torch.ones(4, 3, 8, 8)}))
    with pytest.raises(WeightsError, match="nothing found"):
        infer_config({})
    stem = {**weights_of(DEEP), "conv1.weight": torch.ones(32, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"conv1.weight \(32, 3, 3, 3\)"):
        infer_config(stem)


def test_two_networks_in_one_file_are_refused():
    state = dino(weights_of(DEEP))
    with pytest.raises(WeightsError, match="comes twice"):
        convert({**state, **{f"module.{k}": v for k, v in state.items()}})
