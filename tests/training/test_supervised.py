"""How Segmenter learns from labels: one step, what is dropped, learning rates, interruptions."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from zerolabel.backbones.weights import digest
from zerolabel.errors import UsageError
from zerolabel.networks.mask_transformer import LinearConfig, MaskTransformerConfig, decoder
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.store import below
from zerolabel.training import optimiser
from zerolabel.training.schedule import Plateau, Poly
from zerolabel.training.supervised import SupervisedTrainer, SupervisedTraining, padded

K, DIM, SIDE = 3, 64, 32
LINEAR = LinearConfig(encoder_dim=DIM, classes=K)
MASK = MaskTransformerConfig(encoder_dim=DIM, classes=K, depth=1)


def encoder(**changes):
    return random_vit(
        VitConfig(**{"patch": 8, "dim": DIM, "depth": 3, "heads": 2, "grid": 4} | changes), seed=0
    )


def trainer(head=LINEAR, **settings):
    config = SupervisedTraining(
        **{"iterations": 40, "batch": 4, "lr": 1e-2, "drop_path": 0.0} | settings
    )
    return SupervisedTrainer(encoder(), decoder(head, seed=0), config)


def planted(seed=0, size=(SIDE, SIDE), count=4):
    """Images of coloured quarters, and which colour is where; some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, K, (count, 2, 2), generator=generator)
    labels = interpolate(cells[:, None].float(), size=size)[:, 0].byte()
    images = 2.0 * torch.eye(3)[labels.long()].permute(0, 3, 1, 2) - 1
    labels[:, :3] = 255
    return images + 0.1 * torch.randn(images.shape, generator=generator), labels


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def copied(state):
    return {name: value.clone() for name, value in state.items()}


# --- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
def test_the_loss_is_cross_entropy_at_every_pixel_before_the_step(head):
    made, (x, y) = trainer(head), planted()
    made.decoder.eval()
    with torch.no_grad():
        logits = made.decoder(made.encoder.forward_all(x)[1])
        scores = interpolate(logits, size=(SIDE, SIDE), mode="bilinear")
        expected = cross_entropy(scores, y.long(), ignore_index=255)
    assert made.measure(x, y) == pytest.approx(float(expected), rel=1e-5)
    if head is LINEAR:  # nothing is dropped
        assert made.learn(x, y) == pytest.approx(float(expected), rel=1e-5)
        assert made.step == 1


def test_images_are_padded_with_zeros_to_whole_patches():
    x = torch.ones(1, 3, 17, 24)
    wide = padded(x, 8)
    assert wide.shape == (1, 3, 24, 24)
    assert torch.equal(wide[:, :, :17], x)
    assert not wide[:, :, 17:].any()
    assert padded(wide, 8).shape == wide.shape
    made, (images, labels) = trainer(), planted(size=(21, 30))
    with torch.no_grad():
        logits = made.decoder(made.encoder.forward_all(padded(images, 8))[1])
        scores = interpolate(logits, size=(24, 32), mode="bilinear")[..., :21, :30]
        expected = cross_entropy(scores, labels.long(), ignore_index=255)
    assert made.learn(images, labels) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("head", [LINEAR, MASK], ids=["linear", "mask"])
def test_the_loss_falls_on_planted_colours(head, name):
    lr = 3e-3 if name == "adamw" else 5e-2
    made = trainer(head, optimiser=name, lr=lr, iterations=60)
    losses = [made.learn(*planted(seed)) for seed in range(60)]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_where_no_pixel_counts_nothing_changes():
    x, y = planted()
    made = trainer(optimiser="sgd")
    before = copied(made.weights())
    assert made.learn(x, torch.full_like(y, 255)) == 0
    same(made.weights(), before)
    made.learn(x, y)
    assert any(not torch.equal(value, before[name]) for name, value in made.weights().items())


def test_a_frozen_encoder_stays_and_drops_nothing():
    made, (x, y) = trainer(tuned=False, drop_path=0.5, dropout=0.5), planted()
    before = digest(made.encoder.state_dict())
    first = [made.learn(x, y) for _ in range(3)]
    assert digest(made.encoder.state_dict()) == before
    assert not made.encoder.training
    assert {name.split(".")[0] for name in made.weights()} == {"decoder"}
    plain = trainer(tuned=False)
    assert [plain.learn(x, y) for _ in range(3)] == first


def test_bfloat16_learns_nearly_the_same():
    losses = {}
    for amp in (False, True):
        made = trainer(MASK, amp=amp)
        losses[amp] = [made.learn(*planted(seed)) for seed in range(6)]
        assert all(value.dtype == torch.float32 for value in made.weights().values())
    assert losses[False] != losses[True]
    assert losses[False] == pytest.approx(losses[True], abs=0.05)


# --- what is dropped -----------------------------------------------------------------------------


def test_drop_path_rises_with_depth_and_dropout_is_everywhere():
    net = encoder()
    net.regularise(drop_path=0.2, dropout=0.3)
    assert [block.drop_path.rate for block in net.blocks] == [0, 0.1, 0.2]
    rates = [m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.3] * (1 + 2 * 3)  # what enters; attention and MLP of every block
    encoder(depth=1).regularise(drop_path=0.2)


def test_what_is_dropped_is_no_weight_and_only_in_training():
    net, plain = encoder().eval(), encoder().eval()
    net.regularise(drop_path=0.9, dropout=0.9)
    assert digest(net.state_dict()) == digest(plain.state_dict())
    x = planted()[0]
    with torch.no_grad():
        assert torch.equal(net.forward_all(x)[1], plain.forward_all(x)[1])
        assert torch.equal(net(x, want={"tokens"}).tokens, plain(x, want={"tokens"}).tokens)
        assert not torch.equal(net.train().forward_all(x)[1], plain.forward_all(x)[1])


def test_the_seed_decides_what_is_dropped_and_torchs_own_state_is_left_alone():
    x, y = planted()

    def losses(**settings):
        made = trainer(dropout=0.2, drop_path=0.2, **settings)
        return [made.learn(x, y) for _ in range(3)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = losses()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert losses() == first
    assert losses(seed=1) != first


# --- learning rates ------------------------------------------------------------------------------


def test_poly_goes_from_the_start_to_the_end():
    poly = Poly(1e-3)
    assert poly.at(0, 100) == 1e-3
    assert poly.at(100, 100) == poly.at(200, 100) == 1e-5
    assert poly.at(50, 100) == pytest.approx((1e-3 - 1e-5) * 0.5**0.9 + 1e-5)
    values = [poly.at(step, 100) for step in range(101)]
    assert values == sorted(values, reverse=True)
    assert Poly(1e-6).at(100, 100) == 1e-6  # never rises
    warm = [Poly(1.0, warmup=4).at(step, 1000) for step in range(5)]
    assert warm == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=0.01)


def test_plateau_is_torchs():
    generator = torch.Generator().manual_seed(0)
    losses = (torch.rand(80, generator=generator) * 0.2 + torch.linspace(1, 0.5, 80)).tolist()
    losses += [0.7] * 40
    [p] = [torch.nn.Parameter(torch.zeros(1))]
    reference = torch.optim.SGD([p], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, "min")
    mine = Plateau()
    for loss in losses:
        scheduler.step(loss)
        mine.see(loss)
        assert mine.scale == pytest.approx(reference.param_groups[0]["lr"])
    assert mine.scale < 1e-2


def test_the_trainer_follows_its_schedule():
    made, (x, y) = trainer(iterations=4), planted()
    rates = []
    for _ in range(4):
        made.learn(x, y)
        rates += {group["lr"] for group in made.optimiser.param_groups}
    assert rates == [Poly(1e-2).at(step, 4) for step in range(4)]
    made = trainer(schedule="plateau")
    made.plateau.see(1.0)
    for _ in range(11):
        made.plateau.see(1.0)
    assert made.lr() == pytest.approx(1e-3)


def test_only_matrices_decay():
    made = optimiser.make("sgd", encoder(), decoder(MASK, seed=0), lr=0.1, decay=0.5)
    decayed, plain = made.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert decayed["momentum"] == plain["momentum"] == 0.9
    net = encoder().requires_grad_(False)
    only = optimiser.make("adamw", net, decoder(LINEAR, seed=0), lr=0.1, decay=0.5)
    assert sum(len(group["params"]) for group in only.param_groups) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "polly"}, "Unknown schedule 'polly'. Did you mean 'poly'"),
        ({"optimiser": "adam"}, "Unknown optimiser 'adam'"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"drop_path": -0.1}, "drop_path -0.1"),
        ({"iterations": 0}, "found 0, 8"),
        ({"lr": 0.0}, "learning rate above 0"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        SupervisedTraining(**settings)
    with pytest.raises(UsageError, match="Unknown optimiser"):
        optimiser.make("", lr=1, decay=0)


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("tuned", "schedule"), [(True, "poly"), (False, "plateau")])
@pytest.mark.parametrize("stop", [0, 3])
def test_a_restored_training_goes_on_bit_for_bit(stop, tuned, schedule, name):
    settings = {"tuned": tuned, "schedule": schedule, "optimiser": name, "iterations": 6}
    whole, first, second = (trainer(MASK, dropout=0.1, drop_path=0.3, **settings) for _ in range(3))

    def run(made, steps):
        losses = []
        for _ in range(steps):
            losses.append(made.learn(*planted(made.step)))
            made.plateau.see(losses[-1])
        return losses

    expected = run(whole, 6)
    found = run(first, stop)
    state = copied(first.state())
    kept = copied(state)
    second.restore(state)
    assert second.step == stop
    found += run(second, 6 - stop)
    assert found == expected
    same(second.state(), whole.state())
    same(state, kept)  # what was restored from stays as it was
    assert math.isfinite(whole.plateau.best)


def test_names_below_a_prefix():
    assert below({"a.b": 1, "a.c": 2, "ab": 3}, "a.") == {"b": 1, "c": 2}
