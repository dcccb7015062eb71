"""U-Net and W-Net: what they are made of, and what they compute."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zerolabel.errors import UsageError
from zerolabel.networks.unet import ConvLayer, ConvModule, UNetConfig, random_unet, random_wnet

ORDERS = pytest.mark.parametrize("norm_last", [True, False])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unet(*, seed=0, **choices):
    return random_unet(UNetConfig(**{"outputs": 4, "base": 4, "depth": 2, **choices}), seed=seed)


def wnet(*, seed=0, **choices):
    return random_wnet(UNetConfig(**{"outputs": 4, "base": 4, **choices}), seed=seed)


def size(net):
    return sum(value.numel() for value in net.parameters())


def lively(net, *, seed=0):
    """In evaluation, with norms that are not the identity and biases that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5 * ("bias" not in name))
    return net.eval()


def visited(net, kind, x):
    """Modules of a kind, in the order in which they compute."""
    seen = []
    for module in net.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda module, *_: seen.append(module))
    net(x)
    return seen


# --- what it is made of --------------------------------------------------------------------------


def test_w_net_has_18_modules_and_46_convolution_layers():
    net, x = wnet(), draw(2, 3, 16, 16)
    assert len(visited(net, ConvModule, x)) == 18
    layers = visited(wnet(), (ConvLayer, nn.ConvTranspose2d), x)
    heads = [module for part in (net.encoder, net.decoder) for module in [part.head]]
    assert all(head.kernel_size == (1, 1) for head in heads)
    assert len(layers) + len(heads) == 46


def test_all_modules_but_four_are_depthwise_separable():
    modules = visited(wnet(), ConvModule, draw(2, 3, 16, 16))
    for number, module in enumerate(modules, start=1):
        for layer in module:
            if number in (1, 9, 10, 18):
                assert isinstance(layer.depthwise, nn.Identity)
                assert (layer.conv.kernel_size, layer.conv.groups) == ((3, 3), 1)
            else:
                assert layer.depthwise.groups == layer.depthwise.in_channels
                assert layer.depthwise.weight.shape[1:] == (1, 3, 3)
                assert layer.conv.kernel_size == (1, 1)


def test_parameters_of_a_small_unet_counted_by_hand():
    first = (3 * 2 * 9 + 2 + 4) + (2 * 2 * 9 + 2 + 4)  # weights, biases, norm
    bottom = (2 * 9 + 2 * 4 + 4 + 8) + (4 * 9 + 4 * 4 + 4 + 8)
    rise = 4 * 2 * 4 + 2
    last = (4 * 2 * 9 + 2 + 4) + (2 * 2 * 9 + 2 + 4)
    head = 2 * 5 + 5
    assert first + bottom + rise + last + head == 373
    assert size(unet(base=2, depth=1, outputs=5)) == 373
    biases = 2 + 2 + 4 + 4 + 2 + 2
    assert size(unet(base=2, depth=1, outputs=5, norm_last=False)) == 373 - biases
    ordinary = (2 * 4 * 9 + 4 + 8) + (4 * 4 * 9 + 4 + 8)
    assert size(unet(base=2, depth=1, outputs=5, separable=False)) == 373 - bottom + ordinary


def plain_count(a, b):
    return a * b * 9 + b + 2 * b


def separable_count(a, b):
    return a * 9 + a * b + b + 2 * b


@pytest.mark.parametrize(("base", "K", "bands"), [(64, 64, 3), (16, 11, 12)])
def test_parameters_of_w_net(base, K, bands):
    w = base

    def one(inputs, outputs):
        down = plain_count(inputs, w) + plain_count(w, w)
        for c in (w, 2 * w, 4 * w, 8 * w):
            down += separable_count(c, 2 * c) + separable_count(2 * c, 2 * c)
        up = plain_count(2 * w, w) + plain_count(w, w)
        for c in (16 * w, 8 * w, 4 * w):
            up += separable_count(c, c // 2) + separable_count(c // 2, c // 2)
        rise = sum(c * (c // 2) * 4 + c // 2 for c in (16 * w, 8 * w, 4 * w, 2 * w))
        return down + up + rise + w * outputs + outputs

    config = UNetConfig(outputs=K, base=base, bands=bands)
    assert size(random_wnet(config, seed=0)) == one(bands, K) + one(K, bands)


def test_separable_modules_are_much_smaller():
    separable, ordinary = (unet(base=32, depth=4, separable=flag) for flag in (True, False))
    for one, other in zip(separable.down[1:], ordinary.down[1:], strict=True):
        assert 7 * size(one) < size(other)


# --- what it computes ----------------------------------------------------------------------------


def by_hand(net, x):
    """Depth 1, one line after the other, from the state dict."""
    w, last = net.state_dict(), net.config.norm_last

    def layer(name, z):
        depthwise = w.get(f"{name}.depthwise.weight")
        if depthwise is not None:
            z = torch.cat(
                [F.conv2d(z[:, [i]], k[None], padding=1) for i, k in enumerate(depthwise)], 1
            )
        kernel = w[f"{name}.conv.weight"]
        z = F.conv2d(z, kernel, w.get(f"{name}.conv.bias"), padding=kernel.shape[2] // 2)
        z = z.clamp(min=0) if last else z
        mean, variance = (
            w[f"{name}.norm.running_{what}"][:, None, None] for what in ("mean", "var")
        )
        z = (z - mean) / (variance + 1e-5).sqrt() * w[f"{name}.norm.weight"][:, None, None]
        z = z + w[f"{name}.norm.bias"][:, None, None]
        return z if last else z.clamp(min=0)

    a = layer("down.0.1", layer("down.0.0", x))
    b = torch.maximum(a[:, :, ::2], a[:, :, 1::2])
    b = torch.maximum(b[..., ::2], b[..., 1::2])
    b = layer("down.1.1", layer("down.1.0", b))
    risen = torch.zeros(len(x), a.shape[1], *x.shape[2:])
    for i in range(2):
        for j in range(2):
            kernel = w["rise.0.weight"][:, :, i, j]
            risen[:, :, i::2, j::2] = torch.einsum("bchw,cd->bdhw", b, kernel)
    risen = risen + w["rise.0.bias"][:, None, None]
    z = layer("up.0.1", layer("up.0.0", torch.cat([a, risen], 1)))
    return F.conv2d(z, w["head.weight"], w["head.bias"])


@ORDERS
def test_a_unet_computes_what_is_written_out(norm_last):
    net, x = lively(unet(depth=1, norm_last=norm_last)), draw(2, 3, 6, 8)
    with torch.no_grad():
        assert torch.allclose(net(x), by_hand(net, x), atol=1e-5)


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (5, 7), (8, 8), (33, 50)])
def test_any_size_continued_and_cut_back(sides):
    net, x = lively(unet(depth=3)), draw(2, 3, *sides)
    height, width = sides
    pad = [(0, 0), (0, 0), (0, -height % 8), (0, -width % 8)]
    mode = (
        "reflect"
        if all(more < side for (_, more), side in zip(pad[2:], sides, strict=True))
        else "edge"
    )
    with torch.no_grad():
        found = net(x)
        larger = net(torch.from_numpy(np.pad(x.numpy(), pad, mode=mode)))
    assert found.shape == (2, 4, *sides)
    assert torch.equal(found, larger[:, :, :height, :width])


@pytest.mark.parametrize("bands", [1, 2, 12])
def test_any_number_of_bands(bands):
    logits, made = wnet(bands=bands, outputs=5, depth=2).eval()(draw(1, bands, 9, 11))
    assert (logits.shape, made.shape) == ((1, 5, 9, 11), (1, bands, 9, 11))


def test_the_decoder_sees_probabilities():
    net, x = lively(wnet(depth=2)), draw(2, 3, 8, 8)
    with torch.no_grad():
        logits, made = net(x)
        assert torch.equal(logits, net.encoder(x))
        p = logits.exp() / logits.exp().sum(1, keepdim=True)
        assert torch.allclose(made, net.decoder(p), atol=1e-5)
    assert logits.min() < 0  # no softmax, no rectifier
    assert made.min() < 0


@ORDERS
def test_every_weight_learns(norm_last):
    net = wnet(depth=2, norm_last=norm_last)
    made = net(draw(2, 3, 16, 16))[1]
    (made**2).sum().backward()
    silent = {
        name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()
    }
    assert silent == set()


def test_the_deepest_two_modules_drop():
    net, x = unet(depth=3, dropout=0.5), draw(4, 3, 16, 16)
    seen = []
    net.drop.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    net(x)
    assert [given.shape[1] for given, _ in seen] == [16, 32]  # of 4, 8, 16, 32
    for given, out in seen:
        kept = out != 0
        assert 0.4 < kept.float().mean() < 0.6
        assert torch.allclose(out[kept], 2 * given[kept])
    net.eval()
    assert torch.equal(net(x), net(x))
    net = unet(depth=3, dropout=0.0)
    assert torch.equal(net(x), net(x))


# --- random weights ------------------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (wnet(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.head.weight"], other["encoder.head.weight"])
    assert all(value.isfinite().all() for value in one.values())


@ORDERS
def test_random_weights_keep_the_scale(norm_last):
    net = wnet(base=8, norm_last=norm_last, dropout=0.0)
    scales = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, given, out: scales.append(out.std().item()))
    net(draw(4, 3, 64, 64))
    assert min(scales) > 0.25
    assert max(scales) < 4


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"outputs": 0}, {"bands": 0}, {"depth": 0}, {"base": 0}, {"dropout": 1.0}], ids=str
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(UsageError, match="found"):
        UNetConfig(**{"outputs": 2, **wrong})


def test_other_bands_are_refused():
    with pytest.raises(UsageError, match="3 bands, found 4"):
        unet()(draw(2, 4, 8, 8))


def test_a_norm_needs_something_to_compare():
    net, x = unet(depth=3), draw(1, 3, 7, 8)
    with pytest.raises(UsageError, match="7 x 8"):
        net(x)
    assert net.eval()(x).shape == (1, 4, 7, 8)
    assert net.train()(draw(2, 3, 7, 8)).isfinite().all()
