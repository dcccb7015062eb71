"""Students that have learned nothing but decide all the same, and photos to show them."""

import torch
from PIL import Image
from torch import nn

from zerolabel.backbones import load
from zerolabel.data.synthetic import world
from zerolabel.jobs.run.model import Model, new_categories
from zerolabel.jobs.run.settings import build
from zerolabel.networks.deeplabv3 import DeepLabV3Config, random_deeplabv3
from zerolabel.networks.light import LightConfig, random_light
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.networks.unet import UNetConfig, random_unet
from zerolabel.networks.vit import VitConfig
from zerolabel.types import Category, Naming

K = 3
NAMES = ("sky, ‘blue’", "日本", "a/b")
VIT = VitConfig(8, 64, 1, 1, grid=4, conv_stem=True, pos_interp="size")
UNET = {"base": 4, "depth": 2, "size": (30, 41)}
DEEP = {"network": "deeplabv3", "arch": "small", "start": "random", "size": (48, 40)}


def lively(net: nn.Module, *, last: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a network with statistics of its own, and scores that are not all alike."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
        for name, value in net.named_parameters():
            if "pos_embed" in name:
                value.normal_(std=0.5, generator=generator)
        last.weight.normal_(std=4 / last.weight[0].numel() ** 0.5, generator=generator)
    return net.state_dict()


def light(**changes):
    """A tiny light student as a fitted method."""
    net = random_light(LightConfig(classes=K, vit=VIT, width=16), seed=0)
    method = build("deeplab", load("none"), settings={"size": (44, 32)} | changes)
    method.arrays = lively(net, last=net.decoder.head)
    return method


def deep():
    body = ResNetConfig("basic", (1, 1, 1, 1), width=16, output_stride=8)
    net = random_deeplabv3(DeepLabV3Config(classes=K, resnet=body, width=32), seed=0)
    method = build("deeplab", load("none"), preset="deeplabv3", settings=DEEP)
    method.arrays = lively(net, last=net.classifier[-1])
    return method


def unet(**changes):
    config = UNetConfig(outputs=K, base=4, depth=2, norm_last=False, dropout=0.2)
    net = random_unet(config, seed=0)
    method = build("unet", load("none"), settings=UNET | changes)
    scale = {"low": torch.zeros(3), "high": torch.full((3,), 255.0)}
    method.arrays = lively(net, last=net.head) | scale
    return method


def write_model(method, folder):
    """Save a method as a model whose categories somebody named."""
    naming = Naming("csv", "category 0")
    categories = [Category(c.id, NAMES[c.id], c.colour, naming=naming) for c in new_categories(K)]
    Model(method, tuple(categories)).save(folder)
    return folder


def write_photos(folder, *, images=4, size=(50, 70)):
    folder.mkdir(parents=True)
    for sample in world(K, images=images, size=size, per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder
