"""Where students of masks start, what is said of it, and back from a model."""

from dataclasses import replace

import pytest
import torch
from reference.pupils import shaken
from reference.resnet import LAYOUTS, weights_of
from safetensors.torch import save_file

from zerolabel.backbones import layouts
from zerolabel.backbones.pupils import HEADS, Student, rebuild, start
from zerolabel.backbones.weights import cached, digest, load_file
from zerolabel.errors import UsageError, WeightsError
from zerolabel.networks.light import Light
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.networks.vit import VitConfig, random_vit, vit_config
from zerolabel.store import below

NANO = Student(arch="vit-nano", start="random")
SMALL = Student(network="deeplabv3", arch="small", start="random")
BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, classes=9)


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- the light one -------------------------------------------------------------------------------


def test_the_light_one_starts_from_the_embedded_backbone():
    found = start(Student(), classes=7, seed=0)
    state = layouts.convert(load_file(cached("embedded")))
    assert isinstance(found.net, Light)
    same(below(found.net.state_dict(), "encoder."), state)
    assert found.net.config.vit == layouts.infer_config(state)
    assert found.digest == digest(state)
    assert found.words == "the embedded backbone, which saw no label (3.2 M weights)"
    assert all(p.requires_grad for p in found.net.parameters())
    assert found.net.training
    other = start(Student(), classes=7, seed=1)  # the decoder alone is drawn
    same(below(other.net.state_dict(), "encoder."), state)
    assert not torch.equal(other.net.decoder.mix.weight, found.net.decoder.mix.weight)


def test_the_embedded_weights_are_not_trained_in_place():
    found = start(Student(), classes=2, seed=0)
    with torch.no_grad():
        for value in found.net.parameters():
            value.add_(1)
    again = start(Student(), classes=2, seed=0)
    assert not torch.equal(found.net.encoder.norm.weight, again.net.encoder.norm.weight)


def test_the_light_one_starts_from_a_file(tmp_path):
    net = random_vit(vit_config("vit-nano", 8, grid=4, conv_stem=True), seed=3)
    save_file(
        {f"backbone.{k}": v for k, v in net.state_dict().items()}, tmp_path / "own.safetensors"
    )
    found = start(replace(NANO, start=str(tmp_path / "own.safetensors")), classes=3, seed=0)
    same(below(found.net.state_dict(), "encoder."), net.state_dict())
    assert found.words.startswith("the transformer in own.safetensors (")
    plain = random_vit(VitConfig(patch=8, dim=64, depth=1, heads=1, grid=4), seed=0)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="no convolutional stem"):
        start(replace(NANO, start=str(tmp_path / "plain.safetensors")), classes=3, seed=0)


# --- DeepLabV3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [8, 16])
def test_a_body_is_read_in_every_layout(layout, stride, tmp_path):
    state = weights_of(BODY)
    torch.save(layout(state), tmp_path / "body.pth")
    student = replace(SMALL, start=str(tmp_path / "body.pth"), output_stride=stride)
    found = start(student, classes=3, seed=0)
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    mine = found.net.backbone.state_dict()
    learned = [name for name in body if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(mine[name], body[name]) for name in learned)
    assert found.net.stride == stride
    assert all(p.requires_grad for p in found.net.parameters())
    labels = "classifier of 9 classes" in found.words
    assert labels == layout.__name__.startswith("torchvision")
    assert found.digest == digest(mine)


def test_random_students_say_so():
    found = start(SMALL, classes=3, seed=0)
    assert found.words.startswith("random weights (small, ")
    assert "--set start=FILE" in found.words
    assert found.digest == ""
    nano = start(NANO, classes=3, seed=0)
    assert nano.words.startswith("random weights (vit-nano, ")
    assert nano.digest == ""


# --- and back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("student", [NANO, SMALL, replace(SMALL, output_stride=16)], ids=str)
def test_a_model_is_enough_to_build_the_student_again(student):
    net = shaken(start(student, classes=4, seed=0).net)
    state = net.state_dict()
    assert len(state[HEADS[student.network]]) == 4
    again = rebuild(state, student)
    assert again.config == net.config
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    x = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


def test_other_tensors_are_no_model():
    state = start(NANO, classes=4, seed=0).net.state_dict()
    with pytest.raises(WeightsError, match=r"Expected classifier\.4\.bias"):
        rebuild(state, SMALL)
    del state["decoder.mix.weight"]
    with pytest.raises(WeightsError, match=r"decoder\.mix\.weight missing"):
        rebuild(state, NANO)


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "deep"}, "Unknown network 'deep'"),
        ({"network": "deeplabv3", "arch": "resnet-50"}, "embedded backbone is a transformer"),
        ({"network": "deeplabv3", "start": "random"}, "Unknown body of deeplabv3 'vit-mini'"),
        ({"arch": "resnet-50"}, "Unknown architecture 'resnet-50'"),
        (
            {"network": "deeplabv3", "arch": "small", "start": "random", "output_stride": 32},
            "8 or 16",
        ),
    ],
)
def test_settings_that_cannot_be(change, words):
    with pytest.raises(UsageError, match=words):
        Student(**change)


def test_a_start_that_is_no_file():
    with pytest.raises(UsageError, match="embedded, random or a weights file; found 'embeded'"):
        start(Student(start="embeded"), classes=3, seed=0)


def test_a_file_of_another_network(tmp_path):
    torch.save(weights_of(BODY), tmp_path / "body.pth")
    with pytest.raises(WeightsError, match="vision transformer"):
        start(replace(NANO, start=str(tmp_path / "body.pth")), classes=3, seed=0)
    net = random_vit(vit_config("vit-nano", 8, grid=4, conv_stem=True), seed=0)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match="residual network"):
        start(replace(SMALL, start=str(tmp_path / "vit.pth")), classes=3, seed=0)
