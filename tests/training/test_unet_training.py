"""How a U-Net learns from labels."""

import copy

import pytest
import torch
import torch.nn.functional as F

from zerolabel.errors import UsageError
from zerolabel.networks.transformer import seeded
from zerolabel.networks.unet import UNetConfig, random_unet
from zerolabel.training.unet import UnetTrainer, UnetTraining

CPU = torch.device("cpu")


def network():
    return random_unet(UNetConfig(outputs=3, base=4, depth=2, dropout=0.5), seed=0)


def lesson(seed=0):
    drawn = torch.Generator().manual_seed(seed)
    images = 255 * torch.rand(2, 3, 16, 20, generator=drawn)
    return images, torch.randint(0, 3, (2, 16, 20), generator=drawn)


def test_the_loss_is_the_cross_entropy_of_labelled_pixels():
    images, labels = lesson()
    labels[:, :4] = 255
    net = network()
    twin = copy.deepcopy(net)
    loss = UnetTrainer(net, UnetTraining(seed=3), CPU).learn(images, labels)
    with seeded(3 * 1_000_003, device=CPU):
        logits = twin.train()(images / 255)
    known = labels[:, 4:]
    expected = F.cross_entropy(logits[:, :, 4:], known)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_images_without_labels_teach_nothing():
    images, labels = lesson()
    net = network()
    before = copy.deepcopy(net.state_dict())
    trainer = UnetTrainer(net, UnetTraining(), CPU)
    assert trainer.learn(images, torch.full_like(labels, 255)) == 0
    assert trainer.step == 1
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_an_interrupted_training_ends_with_the_same_bits():
    config = UnetTraining(iterations=6)
    whole = UnetTrainer(network(), config, CPU)
    for step in range(6):
        whole.learn(*lesson(step))
    first = UnetTrainer(network(), config, CPU)
    for step in range(3):
        first.learn(*lesson(step))
    second = UnetTrainer(network(), config, CPU)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for step in range(3, 6):
        second.learn(*lesson(step))
    assert all(torch.equal(v, second.weights()[k]) for k, v in whole.weights().items())


def test_what_cannot_be_is_refused():
    for change in ({"lr": 0.0}, {"batch": 0}, {"decay": -1.0}, {"iterations": 0}):
        with pytest.raises(UsageError, match="Expected iterations"):
            UnetTraining(**change)
