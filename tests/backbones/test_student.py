from dataclasses import replace

import pytest
import torch
from reference.distil import P, images_of, planted, positions, teacher, texts
from reference.resnet import LAYOUTS, lively
from safetensors.torch import save_file

from zerolabel.backbones import resnet_layouts
from zerolabel.backbones.student import (
    StudentBackbone,
    build,
    infer_config,
    load_student,
    rebuild,
    start,
)
from zerolabel.backbones.weights import digest
from zerolabel.errors import DataError, UsageError, WeightsError
from zerolabel.networks.deeplab import DeepLabConfig, DeepLabV2, dilated, random_deeplab
from zerolabel.networks.distilled import HEADS
from zerolabel.networks.resnet import ARCHITECTURES, ResNetConfig
from zerolabel.training.distil import Distillation, DistilTrainer

BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8)
TINY = DeepLabConfig(resnet=BODY, out=P)
QUERIES, REFERENCES = texts()
CONFIGS = {
    "tiny": TINY,
    "deep-stem": replace(TINY, resnet=replace(BODY, deep_stem=True, output_stride=16)),
    "plain": replace(TINY, norm=False, relu=False, dilations=(1, 5), out=9),
    "bottleneck": replace(TINY, resnet=replace(BODY, block="bottleneck", depths=(2, 1, 3, 1))),
}


def pixels(height, width, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def trained(net, head="inherited", rectifier=None, steps=1):
    made = DistilTrainer(
        net,
        teacher(passes=False) if rectifier is None else rectifier,
        Distillation(head=head),
        queries=QUERIES,
        references=REFERENCES,
    )
    for seed in range(steps):
        images, dense, labels = planted(seed)
        made.learn(images, dense, labels, positions((48, 64)))
    return made


# --- where it starts -----------------------------------------------------------------------------


def test_without_a_file_everything_is_random():
    net, expected = start(TINY, None, seed=3), random_deeplab(TINY, seed=3)
    assert digest(net.state_dict()) == digest(expected.state_dict())
    assert digest(start(TINY, "", seed=4).state_dict()) != digest(expected.state_dict())
    assert net.training


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_file_decides_the_body_and_the_seed_the_pyramid(layout, tmp_path):
    theirs = lively(ResNetConfig("bottleneck", (1, 2, 1, 1), width=8, classes=5))
    torch.save(layout(theirs.state_dict()), tmp_path / "body.pth")
    net = start(replace(TINY, dilations=(2, 3)), tmp_path / "body.pth", seed=3)
    body = replace(theirs.config, classes=0, output_stride=8)
    assert net.config == replace(TINY, dilations=(2, 3), resnet=body)
    for name, value in net.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs.state_dict()[name])
    assert torch.equal(
        net.aspp[1].conv.weight, random_deeplab(net.config, seed=3).aspp[1].conv.weight
    )
    assert net.training
    assert all(value.requires_grad for value in net.parameters())
    trained(net)  # learns


def test_output_stride_and_norms_are_those_asked_for(tmp_path):
    save_file(lively(BODY).state_dict(), tmp_path / "body.safetensors")
    asked = replace(TINY, resnet=replace(BODY, output_stride=16, fixed_norm=True))
    net = start(asked, str(tmp_path / "body.safetensors"), seed=0)
    assert net.config == asked
    assert net.stride == 16
    assert not net.backbone.bn1.weight.requires_grad


def test_deep_stems_are_read_by_the_names_of_openmmlab_and_timm():
    config = ResNetConfig("bottleneck", (1, 1, 1, 1), width=8, deep_stem=True, classes=3)
    state = lively(config).state_dict()
    timm = {}
    for name, value in state.items():
        if name.startswith("stem.7."):
            timm[name.replace("stem.7", "bn1")] = value
        else:
            timm[name.replace("stem.", "conv1.")] = value
    assert "conv1.0.weight" in timm
    assert "bn1.running_var" in timm
    for given in (state, {f"backbone.{k}": v for k, v in state.items()}, timm):
        back = resnet_layouts.convert(given, classifier="fc.weight" in given)
        found = resnet_layouts.infer_config(back)
        assert replace(found, classes=3) == config
        net = resnet_layouts.build(back)
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    broken = {**state, "stem.0.weight": torch.ones(4, 3, 5, 5)}
    with pytest.raises(WeightsError, match=r"found stem.0.weight \(4, 3, 5, 5\)"):
        resnet_layouts.infer_config(resnet_layouts.convert(broken))


# --- what it learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_network_is_told_from_its_tensors(config):
    net = random_deeplab(config, seed=1)
    assert infer_config(net.state_dict()) == config
    same = build(net.state_dict())
    assert digest(same.state_dict()) == digest(net.state_dict())
    assert not same.training
    assert not any(value.requires_grad for value in same.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_published_depths_are_told_from_shapes(arch):
    with torch.device("meta"):
        state = DeepLabV2(DeepLabConfig(resnet=dilated(arch))).state_dict()
    del state["settings"]  # the defaults then
    assert infer_config(state) == DeepLabConfig(resnet=dilated(arch))


@pytest.mark.parametrize("kind", ["independent", "joint"])
@pytest.mark.parametrize("head", HEADS)
def test_a_rebuilt_student_predicts_as_the_trainer(head, kind):
    rectifier = teacher(passes=False, kind=kind, hidden=(4,))
    made = trained(random_deeplab(TINY, seed=0), head, rectifier, steps=2)
    x, places = images_of(2, (40, 61)), positions((40, 61))
    expected = made.predict(x, places)
    bias = rectifier.config if head in ("inherited", "query+bias") else None
    net = rebuild(made.weights(), head=head, bias=bias)
    assert not net.training
    assert not any(value.requires_grad for value in net.parameters())
    torch.testing.assert_close(net.predict(x, places), expected)


def test_tokens_are_the_students_vectors_of_normalised_images(tmp_path):
    made = trained(random_deeplab(TINY, seed=0))
    state = {**made.weights(), "rectifier.prompt": torch.ones(3)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    backbone = load_student(tmp_path / "model.safetensors")
    assert backbone.gives == {"tokens"}
    assert (backbone.stride, backbone.dim, backbone.learns) == (8, P, 0)
    images = pixels(41, 64)
    tokens = backbone.encode(images, want={"tokens"}).tokens
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images.permute(0, 2, 3, 1) / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = made.net.eval()(x, positions((41, 64))).embedding
    assert tokens.shape == (2, 6, 8, P)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)
    assert not tokens.requires_grad
    assert backbone.encode(images, want=()).tokens is None
    again = load_student(str(tmp_path / "model.safetensors"), name="mine")
    assert (again.digest, again.name) == (backbone.digest, "mine")
    other = StudentBackbone("other", random_deeplab(TINY, seed=0))
    assert other.digest != backbone.digest


def test_it_is_a_backbone_like_the_others():
    backbone = StudentBackbone("student", random_deeplab(TINY, seed=0))
    assert backbone.learn([], seed=0) is backbone
    assert backbone.restore(backbone.state()) is backbone
    with pytest.raises(UsageError, match="no CLS token"):
        backbone.within(torch.ones(3, 4), torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="patch tokens only, found cls, tokens"):
        backbone.encode(pixels(16, 16), want={"tokens", "cls"})
    with pytest.raises(UsageError, match="Expected uint8 images"):
        backbone.encode(pixels(16, 16).float(), want={"tokens"})
    with pytest.raises(DataError, match="at least 8x8 pixels, found 7x16"):
        backbone.encode(pixels(7, 16), want={"tokens"})


def test_other_files_are_refused(tmp_path):
    save_file(lively(BODY).state_dict(), tmp_path / "body.safetensors")
    with pytest.raises(WeightsError, match="holds no student"):
        load_student(tmp_path / "body.safetensors")
    with pytest.raises(WeightsError, match="aspp.0.conv.weight expected"):
        infer_config(lively(BODY).state_dict())
    made = trained(random_deeplab(TINY, seed=0), "query", steps=0)
    with pytest.raises(WeightsError, match="head.queries"):
        rebuild({k: v for k, v in made.weights().items() if "head" not in k}, head="query")
    with pytest.raises(WeightsError, match="own.weight"):
        rebuild(made.weights(), head="own")
    with pytest.raises(UsageError, match="inherited from a rectifier"):
        rebuild(made.weights(), head="inherited")
