"""Students: what they decide, on which grid, and that their weights depend on the seed alone."""

import pytest
import torch
import torch.nn.functional as F

from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import MaskTransformer, decoder, mask_transformer_config
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.networks.students import (
    IMAGES,
    KINDS,
    RESNET50,
    ConvConfig,
    ConvDecoder,
    FpnStudent,
    blank,
    student,
    student_config,
)

BODY = ResNetConfig("bottleneck", (1, 1, 1, 1), width=4)
K = 5


def made(kind, *, patch=8, seed=0):
    config = student_config(kind, encoder_dim=12, classes=K, patch=patch, body=BODY, dim=8)
    return student(config, seed=seed).eval()


def shown(kind, *, size=(32, 48), patch=8, batch=2):
    generator = torch.Generator().manual_seed(3)
    if kind in IMAGES:
        return torch.randn(batch, 3, *size, generator=generator)
    return torch.randn(batch, size[0] // patch, size[1] // patch, 12, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_every_student_scores_the_backbones_grid_and_knows_its_classes(kind):
    with torch.no_grad():
        logits, classes = made(kind).decode(shown(kind))
    assert logits.shape == (2, K, 4, 6)
    assert classes.shape[:2] == (2, K)
    assert torch.allclose(classes.norm(dim=2), torch.ones(2, K))
    assert logits.std() > 0
    assert torch.equal(made(kind)(shown(kind)), logits)


@pytest.mark.parametrize("kind", sorted(IMAGES))
@pytest.mark.parametrize(
    ("patch", "stage"),
    [(2, "layer1"), (4, "layer1"), (8, "layer2"), (14, "layer2"), (16, "layer3")],
)
def test_the_pyramid_ends_at_the_patch_whatever_it_is(kind, patch, stage):
    net = made(kind, patch=patch)
    assert net.encoder.stages[0] == stage
    with torch.no_grad():
        logits, _ = net.decode(shown(kind, size=(3 * patch, 4 * patch)))
    assert logits.shape[2:] == (3, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_depend_on_the_seed_alone(kind):
    before = torch.get_rng_state()
    one, same, other = (made(kind, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert all(value.isfinite().all() and not value.is_meta for value in one.values())


def test_the_default_is_the_papers_decoder():
    config = student_config("segmenter", encoder_dim=12, classes=K, patch=8)
    assert config == mask_transformer_config("transfgu", encoder_dim=12, classes=K)
    mine, expected = student(config, seed=4), decoder(config, seed=4)
    assert isinstance(mine, MaskTransformer)
    for name, value in expected.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value)


def test_the_residual_network_is_of_fifty_layers_unless_another_is_given():
    config = student_config("r50-fpn-conv", encoder_dim=12, classes=K, patch=8)
    assert config.pyramid.body == RESNET50
    assert config.pyramid.dim == config.head.encoder_dim == 256


def test_the_convolutional_decoder_is_what_its_words_say():
    net = made("conv").double()
    x = shown("conv").double()
    state = net.state_dict()
    logits, classes = net.decode(x)
    padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1))
    for b in range(2):
        z = torch.zeros(12, 4, 6, dtype=torch.float64)
        for row in range(4):
            for column in range(6):
                seen = padded[b, :, row : row + 3, column : column + 3]
                z[:, row, column] = (state["conv.weight"] * seen).sum((1, 2, 3))
        z = ((z - z.mean()) / (z.var(unbiased=False) + 1e-5).sqrt()).clamp_min(0)
        expected = torch.einsum("kd,dhw->khw", state["head.weight"].flatten(1), z)
        assert torch.allclose(logits[b], expected + state["head.bias"][:, None, None])
    rows = state["head.weight"].flatten(1)
    assert torch.allclose(classes[0], rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(classes[0], classes[1])


@pytest.mark.parametrize("kind", KINDS)
def test_everything_learns(kind):
    net = made(kind).train()
    logits, classes = net.decode(shown(kind))
    (logits.square().mean() + classes[:, 0].sum()).backward()
    seen = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert all(grad.isfinite().all() for grad in seen.values())
    asleep = {name for name, _ in net.named_parameters()} - set(seen)
    coarser = ("encoder.fpn.layer_blocks.1.", "encoder.fpn.layer_blocks.2.")  # nobody looks there
    assert all(name.startswith(coarser) for name in asleep)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_student_takes_weights_over(kind):
    net = made(kind)
    own = blank(net.config)
    assert all(value.is_meta for value in own.parameters())
    own.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(own.eval()(shown(kind)), net(shown(kind)))


def test_wrong_kinds_and_inputs_are_refused():
    with pytest.raises(UsageError, match="segmenter"):
        student_config("segmentr", encoder_dim=12, classes=K, patch=8)
    with pytest.raises(UsageError, match=r"\(B, h, w, 12\)"):
        ConvDecoder(ConvConfig(encoder_dim=12, classes=2)).decode(torch.zeros(1, 2, 2, 3))
    net = made("r50-fpn-conv")
    assert isinstance(net, FpnStudent)
    with pytest.raises(UsageError, match="images"):
        net.decode(torch.zeros(1, 2, 2, 12))
