from dataclasses import replace

import pytest
import torch
from reference.mask_transformer import forward as slow_forward

from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import (
    PRESETS,
    LinearConfig,
    MaskTransformerConfig,
    decoder,
    mask_transformer_config,
)
from zerolabel.networks.transformer import seeded
from zerolabel.networks.vit import ViT, vit_config

SMALL = MaskTransformerConfig(encoder_dim=10, classes=5, dim=12, heads=3, hidden=20)
SETTINGS = {
    "official": SMALL,
    "transfgu": replace(SMALL, **PRESETS["transfgu"]),
    "another eps": replace(SMALL, eps=0.1, depth=1),
}
CPU = torch.device("cpu")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def lively(config, seed=0):
    """A decoder whose every parameter matters: nothing is zero or small."""
    made = decoder(config, seed=seed).double()
    for i, (name, value) in enumerate(made.named_parameters()):
        gain = name.endswith("weight") and "norm" in name
        value.data = 0.5 * draw(*value.shape, seed=seed + i) + gain
    return made.eval()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("grid", [(2, 3), (4, 1)])
def test_equals_the_slow_reference(setting, grid):
    config = SETTINGS[setting]
    made, x = lively(config), draw(2, *grid, 10)
    with torch.no_grad():
        scores, classes = made.decode(x)
        looks = [made.attention(x, block=i) for i in range(config.depth)]
    for i in range(2):
        expected = slow_forward(
            x[i], made.state_dict(), depth=config.depth, heads=3, eps=config.eps
        )
        torch.testing.assert_close(scores[i], expected[0], atol=1e-10, rtol=0)
        torch.testing.assert_close(classes[i], expected[1], atol=1e-10, rtol=0)
        for found, look in zip(looks, expected[2], strict=True):
            torch.testing.assert_close(found[i], look, atol=1e-10, rtol=0)


@pytest.mark.parametrize("config", [SMALL, LinearConfig(encoder_dim=10, classes=5)])
@pytest.mark.parametrize("grid", [(4, 4), (2, 7), (9, 1), (1, 1)])
def test_one_score_for_every_class_at_every_patch(config, grid):
    made, x = decoder(config, seed=0), draw(2, *grid, 10, dtype=torch.float32)
    assert made(x).shape == (2, 5, *grid)
    assert made(x).isfinite().all()
    if config is SMALL:
        scores, classes = made.eval().decode(x)
        assert torch.equal(scores, made(x))
        assert classes.shape == (2, 5, 12)
        torch.testing.assert_close(classes.norm(dim=2), torch.ones(2, 5))
        assert made.attention(x).shape == (2, 3, 5, *grid)


@pytest.mark.parametrize("grid", [(3, 2), (1, 1)])
def test_one_class_has_its_bias_everywhere(grid):
    made = lively(replace(SMALL, classes=1))
    scores, classes = made.decode(draw(2, *grid, 10))
    torch.testing.assert_close(scores, made.mask_norm.bias.expand(2, 1, 1, 1).expand_as(scores))
    assert classes.isfinite().all()
    assert made.attention(draw(2, *grid, 10)).shape == (2, 3, 1, *grid)
    linear = decoder(LinearConfig(encoder_dim=10, classes=1), seed=0).double()
    assert linear(draw(2, *grid, 10)).shape == (2, 1, *grid)


def test_scores_are_normalised_over_the_classes():
    made = decoder(SMALL, seed=0).double().eval()
    scores = made(100 * draw(2, 3, 4, 10))
    torch.testing.assert_close(scores.mean(1), torch.zeros(2, 3, 4).double(), atol=1e-9, rtol=0)
    assert (scores.std(1, correction=0) <= 1).all()


def test_patches_have_no_order():
    """The decoder has no positions: it sees a set of patches, and an image at a time."""
    made, x = lively(SMALL), draw(3, 4, 5, 10)
    scores, classes = made.decode(x)
    turned, same = made.decode(x.flip(0, 1, 2))
    torch.testing.assert_close(turned, scores.flip(0, 2, 3))
    torch.testing.assert_close(same, classes.flip(0))


def test_permuted_classes_permute_what_comes_out():
    made, other, x = lively(SMALL), lively(SMALL), draw(2, 3, 4, 10)
    order = torch.tensor([3, 0, 4, 1, 2])
    other.cls_emb.data = made.cls_emb.data[:, order]
    other.mask_norm.weight.data = made.mask_norm.weight.data[order]
    other.mask_norm.bias.data = made.mask_norm.bias.data[order]
    (scores, classes), (scores2, classes2) = made.decode(x), other.decode(x)
    torch.testing.assert_close(scores2, scores[:, order])
    torch.testing.assert_close(classes2, classes[:, order])
    torch.testing.assert_close(other.attention(x), made.attention(x)[:, :, order])
    assert not torch.allclose(scores2, scores)


def test_a_linear_decoder_can_say_back_what_the_tokens_hold():
    made = decoder(LinearConfig(encoder_dim=6, classes=4), seed=0)
    with torch.no_grad():
        made.head.weight.copy_(torch.eye(4, 6))
    labels = torch.randint(4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    tokens = torch.nn.functional.one_hot(labels, 6).float()
    assert torch.equal(made(tokens).argmax(1), labels)


def test_a_class_is_found_where_patches_are_like_it():
    """Without blocks and with the same projection, the nearest class by angle wins."""
    config = MaskTransformerConfig(encoder_dim=8, classes=4, heads=2, depth=0)
    made = decoder(config, seed=0).eval()
    with torch.no_grad():
        made.proj_dec.weight.copy_(torch.eye(8))
        made.proj_classes.copy_(made.proj_patch)
        made.cls_emb.copy_(draw(1, 4, 8, dtype=torch.float32))
    labels = torch.randint(4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    tokens = made.cls_emb[0].detach()[labels]
    assert torch.equal(made(3 * tokens).argmax(1), labels)


def test_dropout_acts_while_training_and_draws_from_the_seed():
    made, x = decoder(SMALL, seed=0), draw(2, 3, 4, 10, dtype=torch.float32)
    assert torch.equal(made.eval()(x), made(x))
    still, without = made(x), decoder(replace(SMALL, dropout=0.0), seed=0).train()(x)
    torch.testing.assert_close(still, without)

    def trained(seed):
        with seeded(seed, device=CPU):
            return made(x)

    made.train()
    before = torch.get_rng_state()
    first = trained(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, trained(1))
    assert not torch.allclose(first, trained(2))
    assert not torch.allclose(first, still)


@pytest.mark.parametrize("config", [*SETTINGS.values(), LinearConfig(encoder_dim=10, classes=5)])
def test_every_parameter_has_a_gradient(config):
    made, x = decoder(config, seed=0).double(), draw(2, 3, 4, 10).requires_grad_()
    (made(x) * draw(2, 5, 3, 4, seed=1)).sum().backward()
    for name, value in made.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name
    assert x.grad.abs().sum() > 0


def test_class_embeddings_can_be_pulled_apart():
    made, x = decoder(SETTINGS["transfgu"], seed=0).eval(), draw(2, 3, 4, 10, dtype=torch.float32)
    classes = made.decode(x)[1]
    (classes @ classes.transpose(1, 2)).square().mean().backward()
    assert made.cls_emb.grad.abs().sum() > 0
    assert made.mask_norm.weight.grad is None


def test_mixed_precision_keeps_small_differences_between_classes():
    made, x = decoder(SMALL, seed=0).eval(), draw(2, 6, 6, 10, dtype=torch.float32)
    made.proj_classes.data.copy_(made.proj_patch.data)
    made.cls_emb.data.copy_(1 + 0.01 * draw(1, 5, 12, dtype=torch.float32))  # nearly the same
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores, classes = made.decode(x)
    assert scores.dtype == classes.dtype == torch.float32
    torch.testing.assert_close(classes.norm(dim=2), torch.ones(2, 5), atol=1e-6, rtol=0)
    # bfloat16 has 8 bits: cosines rounded to it would come in steps, and so would the scores
    assert len(scores[0, 0].unique()) == 36


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for config in (*SETTINGS.values(), LinearConfig(encoder_dim=10, classes=5)):
        first, again, other = (decoder(config, seed=s).state_dict() for s in (3, 3, 4))
        for name, value in first.items():
            assert torch.equal(value, again[name]), name
            if "norm" in name or name.endswith("bias"):
                assert (value == (0 if name.endswith("bias") else 1)).all(), name
            else:
                assert not torch.equal(value, other[name]), name
    assert torch.equal(before, torch.get_rng_state())


def test_weights_have_the_published_deviations():
    official, transfgu = (
        decoder(mask_transformer_config(name, encoder_dim=384, classes=27), seed=0)
        for name in ("official", "transfgu")
    )
    for made in (official, transfgu):
        made.requires_grad_(False)
        for value in (made.proj_patch, made.proj_classes):
            assert abs(float(value.std()) * 384**0.5 - 1) < 0.02
        for value in (made.proj_dec.weight, made.blocks[1].attn.qkv.weight):
            assert abs(float(value.std()) - 0.02) < 1e-3
    assert abs(float(official.cls_emb.std()) - 0.02) < 1e-3
    tokens = transfgu.cls_emb[0]
    torch.testing.assert_close(tokens @ tokens.T, torch.eye(27), atol=1e-5, rtol=0)


def test_presets_are_the_published_settings():
    def fields(preset, width):
        c = mask_transformer_config(preset, encoder_dim=width, classes=150)
        return c.dim, c.depth, c.heads, c.hidden, c.dropout, c.qkv_bias, c.orthogonal, c.eps

    assert fields("official", 192) == (192, 2, 3, 768, 0.1, True, False, 1e-5)
    assert fields("official", 1024) == (1024, 2, 16, 4096, 0.1, True, False, 1e-5)
    assert fields("seed", 192) == (192, 12, 12, 2048, 0.1, True, False, 1e-5)
    assert fields("transfgu", 384) == (384, 2, 6, 1536, 0.1, False, True, 1e-5)


def test_the_published_size():
    """Seg-T-Mask/16 has 7 million parameters with 150 classes (Strudel et al. 2021, table)."""

    def count(net):
        return sum(value.numel() for value in net.parameters())

    with torch.device("meta"):
        encoders = [ViT(vit_config("vit-tiny", 16, grid=grid)) for grid in (24, 32)]
    D, K = 192, 150
    made = decoder(mask_transformer_config("official", encoder_dim=D, classes=K), seed=0)
    block = 4 * (D * D + D) + (8 * D * D + 5 * D) + 4 * D  # attention, MLP, two norms
    assert count(made) == 2 * block + (D * D + D) + 2 * D * D + K * D + 2 * D + 2 * K
    totals = [count(net) + count(made) for net in encoders]
    assert 6.5e6 < totals[0] < totals[1] < 7e6
    assert round(totals[1] / 1e6) == 7


def test_names_are_those_of_the_original_checkpoints():
    block = {
        f"blocks.{i}.{layer}.{kind}"
        for i in range(2)
        for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    layers = ("proj_dec", "decoder_norm", "mask_norm")
    rest = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    names = block | rest | {"cls_emb", "proj_patch", "proj_classes"}
    assert set(decoder(SMALL, seed=0).state_dict()) == names
    without = {f"blocks.{i}.attn.qkv.bias" for i in range(2)}
    assert set(decoder(SETTINGS["transfgu"], seed=0).state_dict()) == names - without
    linear = decoder(LinearConfig(encoder_dim=10, classes=5), seed=0)
    assert set(linear.state_dict()) == {"head.weight", "head.bias"}


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match="multiple of 5, found dim 12"):
        replace(SMALL, heads=5)
    with pytest.raises(UsageError, match="dropout"):
        replace(SMALL, dropout=1.0)
    with pytest.raises(UsageError, match="Did you mean 'transfgu'"):
        mask_transformer_config("transfg", encoder_dim=10, classes=5)


def test_tokens_of_another_backbone_are_named():
    for config in (SMALL, LinearConfig(encoder_dim=10, classes=5)):
        with pytest.raises(UsageError, match=r"\(B, h, w, 10\), found \(2, 3, 3, 11\)"):
            decoder(config, seed=0)(torch.zeros(2, 3, 3, 11))
    made = decoder(SMALL, seed=0)
    with pytest.raises(UsageError, match="from -2 to 1, found 2"):
        made.attention(torch.zeros(1, 2, 2, 10), block=2)
    x = draw(1, 2, 2, 10, dtype=torch.float32)
    assert torch.equal(made.attention(x, block=0), made.attention(x, block=-2))
