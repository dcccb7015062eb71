import os
from dataclasses import replace

import pytest
import torch
from lively import DINO, FAMILIES, images, lively
from reference.gradcam import slopes
from reference.vit import forward as slow_forward

from zerolabel.backbones.layouts import build, convert
from zerolabel.errors import UsageError
from zerolabel.networks.reading import OUTPUTS
from zerolabel.networks.vit import ARCHITECTURES, ViT, random_vit, vit_config


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (7, 5)])
def test_equals_the_slow_reference(family, grid):
    config = FAMILIES[family]
    net = lively(config).double()
    x = images(grid[0] * config.patch + 3, grid[1] * config.patch)  # 3 rows to cut off
    with torch.no_grad():
        out = net(x, want=OUTPUTS)
    for i in range(len(x)):
        expected = slow_forward(
            x[i],
            net.state_dict(),
            depth=config.depth,
            heads=config.heads,
            rule=config.pos_interp,
        )
        sizes = {"depth": config.depth, "heads": config.heads, "grid": grid}
        expected["slopes"] = slopes(expected["context"], net.state_dict(), **sizes)
        for name in OUTPUTS:
            torch.testing.assert_close(getattr(out, name)[i], expected[name], atol=1e-10, rtol=0)


def test_the_rest_of_an_image_is_cut_off_at_the_bottom_and_the_right():
    net = lively(DINO)
    x = images(39, 47, dtype=torch.float32)
    with torch.no_grad():
        out, cut = net(x, want={"tokens"}), net(x[:, :, :32, :40], want={"tokens"})
    assert out.tokens.shape == (2, 4, 5, 128)
    torch.testing.assert_close(out.tokens, cut.tokens)


def test_an_unknown_feature_is_named():
    with pytest.raises(UsageError, match="Did you mean 'tokens'"):
        random_vit(DINO, seed=0)(images(32, 32, dtype=torch.float32), want={"token"})


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (random_vit(DINO, seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert value.isfinite().all()
    assert not torch.equal(first["pos_embed"], other["pos_embed"])


def test_it_can_be_trained():
    net = random_vit(FAMILIES["dinov2-reg"], seed=0)
    x = images(35, 21, dtype=torch.float32)
    out = net(x, want=OUTPUTS)
    loss = sum(getattr(out, name).square().mean() for name in OUTPUTS)
    loss.backward()
    for name, value in net.named_parameters():
        assert value.grad is not None, name


def test_the_published_sizes():
    sizes = {name: (a.dim, a.depth, a.heads) for name, a in ARCHITECTURES.items()}
    own = {name: sizes.pop(name) for name in ("vit-nano", "vit-mini")}  # for two CPU cores
    assert all(dim == 64 * heads for dim, _, heads in own.values())
    assert sizes == {
        "vit-tiny": (192, 12, 3),
        "vit-small": (384, 12, 6),
        "vit-base": (768, 12, 12),
        "vit-large": (1024, 24, 16),
    }
    assert vit_config("vit-small", 8).grid == 28
    with pytest.raises(UsageError, match="Did you mean 'vit-small'"):
        vit_config("vit-smal", 8)


STEMS = {
    "linear": DINO,
    "registers": FAMILIES["dinov2-reg"],
    "convolutions": vit_config("vit-nano", 8, grid=4, conv_stem=True),
    "two-stages": replace(vit_config("vit-nano", 4, grid=4, conv_stem=True), depth=1),
}


@pytest.mark.parametrize("stem", STEMS)
def test_all_tokens_at_once_are_those_of_forward(stem):
    config = STEMS[stem]
    net = lively(config).double()
    x = images(3 * config.patch + 1, 5 * config.patch + config.patch - 1)
    with torch.no_grad():
        cls, tokens = net.forward_all(x)
        out = net(x, want={"tokens", "cls"})
    assert tokens.shape == (2, 3, 5, config.dim)
    torch.testing.assert_close(cls, out.cls, atol=1e-10, rtol=0)
    torch.testing.assert_close(tokens, out.tokens, atol=1e-10, rtol=0)


def test_convolutions_halve_the_image_until_a_patch_is_a_pixel():
    for patch, stages in ((2, 1), (4, 2), (8, 3), (16, 4), (32, 5)):
        with torch.device("meta"):
            stem = ViT(vit_config("vit-mini", patch, grid=2, conv_stem=True)).patch_embed
            found = stem(torch.zeros(1, 3, 2 * patch + 1, 3 * patch + patch - 1))
        widths = [stage.conv.out_channels for stage in stem.stages]
        assert widths == [192 >> i for i in reversed(range(stages))]
        assert found.shape == (1, 192, 2, 3)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (25, 47), (31, 41)])
def test_a_convolutional_stem_cuts_the_rest_off(height, width):
    net = lively(STEMS["convolutions"])
    x = images(height, width, dtype=torch.float32)
    with torch.no_grad():
        whole, cut = net.forward_all(x), net.forward_all(x[:, :, :24, :40])
    for own, other in zip(whole, cut, strict=True):
        assert torch.equal(own, other)


def test_a_convolutional_stem_treats_every_image_by_itself():
    net = lively(STEMS["convolutions"]).double()
    x = images(32, 32, batch=3)
    with torch.no_grad():
        together = net.forward_all(x)[1]
        alone = torch.cat([net.train().forward_all(one[None])[1] for one in x])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=0)


def test_a_patch_that_cannot_be_halved_is_refused():
    for patch in (1, 7, 14):
        with pytest.raises(UsageError, match=f"needs a patch of 2, 4, 8, 16 or 32, got {patch}"):
            vit_config("vit-nano", patch, conv_stem=True)


@pytest.mark.parametrize("stem", STEMS)
def test_hidden_patches_are_replaced(stem):
    config = STEMS[stem]
    net = lively(config).double()
    x = images(2 * config.patch, 3 * config.patch)
    masked = torch.zeros(2, 2, 3, dtype=torch.bool)
    masked[0, 1, 2] = True
    token = torch.randn(config.dim, generator=torch.Generator().manual_seed(0)).double()
    first = 1 + config.registers
    with torch.no_grad():
        plain, _ = net.embed(x)
        hidden, grid = net.embed(x, masked=masked, mask_token=token)
        zero, _ = net.embed(x, masked=masked, mask_token=torch.zeros_like(token))
        nothing = net.forward_all(x, masked=torch.zeros_like(masked), mask_token=token)
        expected = net.forward_all(x)
        seen = net.forward_all(x, masked=masked, mask_token=token)
    assert grid == (2, 3)
    place = first + 5  # the last patch of the first image
    torch.testing.assert_close(hidden[0, place] - zero[0, place], token)
    rest = torch.ones(plain.shape[:2], dtype=torch.bool)
    rest[0, place] = False
    assert torch.equal(hidden[rest], plain[rest])
    for own, other in zip(nothing, expected, strict=True):
        assert torch.equal(own, other)
    assert not torch.allclose(seen[0][0], expected[0][0])
    assert torch.equal(seen[0][1], expected[0][1])  # the other image


@pytest.mark.parametrize("stem", ["convolutions", "two-stages"])
def test_random_stems_follow_the_seed_and_are_bounded(stem):
    first, again, other = (random_vit(STEMS[stem], seed=s).state_dict() for s in (0, 0, 1))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if not name.startswith("patch_embed"):
            continue
        if "norm" in name:
            assert (value == (0 if name.endswith("bias") else 1)).all()
            continue
        fan_in = first[name.replace(".bias", ".weight")][0].numel()
        assert 0.8 * fan_in**-0.5 < value.abs().max() <= fan_in**-0.5, name
        assert not torch.equal(value, other[name])


def test_branches_are_dropped_for_whole_images_while_training():
    net = lively(replace(STEMS["convolutions"], depth=1)).double()
    drop = net.blocks[0].drop_path
    drop.rate, drop.generator = 0.5, torch.Generator()
    z = torch.randn(64, 5, 128, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(drop(z), z)  # not while it is used
    drop.train()
    before = torch.get_rng_state()
    dropped = drop(z)
    assert torch.equal(before, torch.get_rng_state())
    kept = dropped.abs().sum((1, 2)) > 0
    assert 16 < kept.sum() < 48
    torch.testing.assert_close(dropped[kept], 2 * z[kept])
    drop.rate = 0.0
    assert torch.equal(drop(z), z)


def test_names_are_those_of_the_original_checkpoints():
    names = set(ViT(replace(FAMILIES["dinov2-reg"], depth=1)).state_dict())
    block = {
        f"blocks.0.{layer}.{kind}"
        for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    rest = {"cls_token", "pos_embed", "register_tokens", "norm.weight", "norm.bias"}
    patch = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    scales = {"blocks.0.ls1.gamma", "blocks.0.ls2.gamma"}
    assert names == block | rest | patch | scales


@pytest.fixture(scope="module")
def transformers():
    os.environ["HF_HUB_OFFLINE"] = "1"
    return pytest.importorskip("transformers")


def peer(transformers, family):
    """The same network in transformers, randomly initialised, and our rule for its positions."""
    common = {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "layer_norm_eps": 1e-6,
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    if family == "dino":
        config = transformers.ViTConfig(
            **common, image_size=32, patch_size=8, intermediate_size=512
        )
        return transformers.ViTModel(config), "size"
    kind = {"dinov2": "Dinov2", "dinov2-reg": "Dinov2WithRegisters"}[family]
    config = getattr(transformers, f"{kind}Config")(**common, image_size=28, patch_size=7)
    rule = "size" if family == "dinov2" else "size-antialias"
    return getattr(transformers, f"{kind}Model")(config), rule


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (7, 5)])
def test_equals_transformers(transformers, family, grid):
    theirs, rule = peer(transformers, family)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    theirs.eval()
    ours = build(convert(theirs.state_dict()))
    ours.config = replace(ours.config, pos_interp=rule)
    x = images(grid[0] * ours.config.patch, grid[1] * ours.config.patch, dtype=torch.float32)
    extra = {"interpolate_pos_encoding": True} if family == "dino" else {}
    with torch.no_grad():
        expected = theirs(x, output_attentions=True, output_hidden_states=True, **extra)
        out = ours(x, want=OUTPUTS)
    first = 1 + ours.config.registers
    hidden = expected.last_hidden_state
    attention = expected.attentions[-1][:, :, 0, first:]
    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(out.tokens.flatten(1, 2), hidden[:, first:], **tolerance)
    torch.testing.assert_close(out.cls, hidden[:, 0], **tolerance)
    torch.testing.assert_close(out.attention.flatten(2), attention, **tolerance)
    received = expected.attentions[-1].amin(1).sum(1)[:, first:]
    torch.testing.assert_close(out.received.flatten(1), received, **tolerance)
    torch.testing.assert_close(out.context, expected.hidden_states[-2], **tolerance)
