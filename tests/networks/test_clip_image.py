"""The image tower against a written-out one and against transformers."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from reference.clip import enliven, from_transformers, image_tower
from torch.utils.flop_counter import FlopCounterMode

from zerolabel.errors import UsageError
from zerolabel.networks.clip_image import CLIP_OUTPUTS, ClipImage, Reading, random_clip_image
from zerolabel.networks.vit import VitConfig, random_vit

SMALL = VitConfig(
    patch=4,
    dim=48,
    depth=3,
    heads=3,
    grid=4,
    pos_interp="size",
    eps=1e-5,
    pre_norm=True,
    activation="quick",
)
P = 20


def lively(config=SMALL, *, seed=0):
    return enliven(random_clip_image(config, P, seed=seed), seed=seed)


def images(h, w, batch=2, dtype=torch.float64, patch=4):
    generator = torch.Generator().manual_seed(100 * h + w)
    return torch.randn(batch, 3, h * patch, w * patch, dtype=dtype, generator=generator)


def flops(net, x, want, **how):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x, want, **how)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("activation", ["quick", "gelu"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("grid", [(4, 4), (3, 6)])
def test_equals_the_slow_reference(activation, depth, grid):
    net = lively(replace(SMALL, activation=activation, depth=depth)).double()
    x = images(*grid)
    found = net(x, CLIP_OUTPUTS)
    sizes = {"depth": depth, "heads": 3, "activation": activation}
    for i, image in enumerate(x):
        with torch.no_grad():
            expected = image_tower(image, net.state_dict(), **sizes)
        dense = expected.pop("dense")
        assert {*expected, "dense"} == set(CLIP_OUTPUTS)
        expected["dense"] = dense[True, True]
        for name, value in expected.items():
            torch.testing.assert_close(
                getattr(found, name)[i].detach(), value, atol=1e-10, rtol=0, msg=name
            )


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("mlp", [True, False])
def test_dense_is_attention_by_the_identity(residual, mlp):
    net = lively().double()
    x = images(3, 5)
    how = Reading(residual=residual, mlp=mlp)
    with torch.no_grad():
        found = net(x, {"dense"}, reading=how).dense
        assert found.shape == (2, 3, 5, P)
        for i, image in enumerate(x):
            slow = image_tower(image, net.state_dict(), depth=3, heads=3, activation="quick")
            for flags, expected in slow["dense"].items():
                same = torch.allclose(found[i], expected, atol=1e-10, rtol=0)
                assert same == (flags == (residual, mlp)), flags


@pytest.mark.parametrize("name", CLIP_OUTPUTS)
def test_a_feature_does_not_depend_on_the_others(name):
    net, x = lively().double(), images(3, 5)
    with torch.no_grad():
        alone, together = net(x, {name}), net(x, CLIP_OUTPUTS)
    for other in CLIP_OUTPUTS:
        assert (getattr(alone, other) is not None) == (other == name)
    torch.testing.assert_close(getattr(alone, name), getattr(together, name), atol=1e-12, rtol=0)


def test_no_more_is_computed_than_asked_for():
    net = lively()
    x, D, N = images(4, 6, batch=1, dtype=torch.float32), SMALL.dim, 24
    trunk = flops(net, x, {"context"})
    dense = N * (2 * D * D + 8 * D * D + D * P)  # value and its projection, MLP, way to texts
    assert flops(net, x, {"dense"}) - trunk == dense
    assert flops(net, x, {"dense", "keys"}) - trunk == dense + N * D * D
    assert flops(net, x, {"dense"}, reading=Reading(mlp=False)) - trunk == dense - 8 * N * D * D
    joint = 2 * (N + 1) * D * D + 10 * D * D + D * P  # keys and values of all
    attention = 2 * (N + 1) * D  # of one query; not every torch counts fused attention
    assert 0 <= flops(net, x, {"joint"}) - trunk - joint <= attention
    both = joint + dense - N * D * D  # values are computed once
    assert 0 <= flops(net, x, {"dense", "joint"}) - trunk - both <= attention


def test_the_trunk_runs_once():
    net, calls = lively(), []
    net.blocks[0].register_forward_hook(lambda *_: calls.append("first"))
    with torch.no_grad():
        net(images(4, 4, dtype=torch.float32), CLIP_OUTPUTS)
    assert calls == ["first"]


def test_gradients_reach_every_weight():
    net = lively()
    x = images(3, 4, dtype=torch.float32)
    dense = net(x, {"dense"}).dense
    dense.square().mean().backward()
    D = SMALL.dim
    grads = {name: value.grad for name, value in net.named_parameters()}
    assert all(value is not None and value.any() for value in grads.values())
    last = grads["blocks.2.attn.qkv.weight"]
    assert not last[: 2 * D].any()  # neither queries nor keys of the last block have a part in it
    assert last[2 * D :].any()
    net.zero_grad()
    net(x, {"joint"}).joint.square().mean().backward()
    assert all(value.grad.any() for value in net.parameters())


def test_all_of_the_vit_goes_on_working():
    net = lively().double()
    x = images(3, 5, batch=1)
    with torch.no_grad():
        out = net(x, {"context", "cls", "tokens"})
        everything = torch.ones(2, 3, 5, dtype=torch.bool)
        torch.testing.assert_close(net.within(out.context[0], everything)[0], out.cls[0])
        cls, tokens = net.forward_all(x)
    torch.testing.assert_close(cls, out.cls)
    torch.testing.assert_close(tokens, out.tokens)


def test_positions_are_those_of_the_patches():
    net = lively().double()
    own = net.pos_embed[0, 1:].reshape(4, 4, SMALL.dim)
    assert torch.equal(net.positions((4, 4)), own)
    wide = net.positions((4, 7))
    assert wide.shape == (4, 7, SMALL.dim)
    expected = F.interpolate(own.permute(2, 0, 1)[None], (4, 7), mode="bicubic")[0]
    torch.testing.assert_close(wide, expected.permute(1, 2, 0))
    wide.sum().backward()
    assert net.pos_embed.grad[0, 1:].any()
    assert not net.pos_embed.grad[0, 0].any()


def test_an_unknown_feature_is_named():
    with pytest.raises(UsageError, match="Did you mean 'dense'"):
        lively()(images(4, 4, dtype=torch.float32), {"denser"})


def test_names_of_the_weights():
    names = set(ClipImage(replace(SMALL, depth=1), P).state_dict())
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    expected = {f"blocks.0.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    expected |= {f"{name}.{kind}" for name in ("norm", "norm_pre") for kind in ("weight", "bias")}
    assert names == expected | {"cls_token", "pos_embed", "patch_embed.proj.weight", "proj"}


def test_the_other_networks_keep_theirs():
    plain = random_vit(VitConfig(patch=4, dim=32, depth=1, heads=2, grid=4), seed=0).state_dict()
    assert "patch_embed.proj.bias" in plain
    assert not any("norm_pre" in name for name in plain)


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (random_clip_image(SMALL, P, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert value.isfinite().all()
    assert not torch.equal(first["proj"], other["proj"])


@pytest.mark.parametrize("depth", [2, 12])
def test_random_weights_tell_patches_and_images_apart(depth):
    net = random_clip_image(replace(SMALL, dim=96, depth=depth), P, seed=0)
    generator = torch.Generator().manual_seed(0)
    own, inside = (torch.randn(6, 3, side, side, generator=generator) for side in (1, 4))
    colours = own + inside  # like photos: smooth within patches, and of different tones
    x = F.interpolate(colours, (16, 16), mode="nearest")
    with torch.no_grad():
        out = net(x, {"dense", "joint"})
    for rows in (out.dense[0].flatten(0, 1), out.joint):
        unit = F.normalize(rows, dim=-1)
        cosines = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
        assert cosines.mean() < 0.85
        assert cosines.max() < 0.9995
        assert 0.3 < rows.std() < 3


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (3, 7)])
def test_equals_transformers(activation, grid):
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=16,
        patch_size=4,
        projection_dim=P,
        hidden_act=activation,
        attn_implementation="eager",
    )
    theirs = enliven(transformers.CLIPVisionModelWithProjection(config))
    ours = ClipImage(replace(SMALL, activation=activation.split("_")[0]), P).eval()
    from_transformers(theirs, ours, tower="vision")
    x = images(*grid, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(
            x, interpolate_pos_encoding=True, output_attentions=True, output_hidden_states=True
        )
        found = ours(x, {"tokens", "joint", "cls", "attention", "context"})
        # transformers norms nothing but the CLS token
        normed = theirs.vision_model.post_layernorm(expected.last_hidden_state)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(found.joint, expected.image_embeds, **close)
    torch.testing.assert_close(found.cls, normed[:, 0], **close)
    torch.testing.assert_close(found.tokens.flatten(1, 2), normed[:, 1:], **close)
    torch.testing.assert_close(found.context, expected.hidden_states[-2], **close)
    attention = expected.attentions[-1][:, :, 0, 1:]
    torch.testing.assert_close(found.attention.flatten(2), attention, **close)
