"""The raw-logit map against the full product of queries and keys."""

import pytest
import torch
from reference import maps as reference

from zerolabel.networks.seed_logits import seed_logits
from zerolabel.networks.vit import VitConfig, random_vit


def net_and_images(registers=0, scale=8.0):
    config = VitConfig(patch=8, dim=24, depth=3, heads=3, grid=4, registers=registers)
    net = random_vit(config, seed=0).eval()
    attention = net.blocks[-1].attn
    with torch.no_grad():  # fresh weights give logits near 0, which would show no difference
        attention.qkv.weight.mul_(scale)
        attention.qkv.bias.normal_(generator=torch.Generator().manual_seed(2))
    return net, torch.randn(2, 3, 32, 43, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("floor", [-4.0, -2.0, -1.8])
def test_it_equals_the_full_product(registers, floor):
    net, x = net_and_images(registers)
    found = seed_logits(net, x, floor=floor)
    with torch.no_grad():
        expected = reference.seed_logits(net, x, floor=floor)
    assert found.shape == (2, 4, 5)
    assert found.std() > 1e-3
    assert torch.allclose(found, expected, atol=1e-5)


def test_low_values_are_cut_off():
    net, x = net_and_images(scale=80.0)
    whole = seed_logits(net, x, floor=-1e9)
    middle = float(whole.median())
    cut = seed_logits(net, x, floor=middle)
    assert whole.min() < middle == cut.min()
    assert torch.equal(cut, whole.clamp_min(middle))


def test_it_reads_the_block_before_its_norm():
    net, x = net_and_images()
    before = seed_logits(net, x)
    with torch.no_grad():
        net.blocks[-1].norm1.weight.mul_(3)
    assert torch.equal(seed_logits(net, x), before)
    assert not before.requires_grad
