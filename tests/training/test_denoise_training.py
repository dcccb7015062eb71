"""How a student learns masks: one step, what is kept, when it stops, interruptions."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from zerolabel.networks.deeplabv3 import DeepLabV3Config, random_deeplabv3
from zerolabel.networks.light import LightConfig, random_light
from zerolabel.networks.resnet import ResNetConfig
from zerolabel.networks.vit import VitConfig
from zerolabel.training.denoise import DenoiseTrainer, handicaps
from zerolabel.training.schedule import Poly
from zerolabel.training.supervised import SupervisedTraining, padded

K = 3
VIT = VitConfig(patch=8, dim=64, depth=1, heads=1, grid=4, conv_stem=True, pos_interp="size")
# Strided 1x1 convolutions of 4 channels write beyond their memory without AVX-512 (torch 2.13).
BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8, output_stride=8)
NETS = {
    "light": lambda: random_light(LightConfig(classes=K, vit=VIT, width=8), seed=0),
    "deeplabv3": lambda: random_deeplabv3(DeepLabV3Config(classes=K, resnet=BODY, width=8), seed=0),
}


def trainer(kind="light", *, patience=3, handicaps=None, **settings):
    config = SupervisedTraining(
        **{"iterations": 40, "batch": 4, "lr": 3e-3, "optimiser": "adamw", "decay": 0.01} | settings
    )
    return DenoiseTrainer(NETS[kind](), config, patience=patience, handicaps=handicaps)


def planted(seed=0, size=(32, 32)):
    """Images of coloured quarters, and which colour is where; some pixels do not count."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, K, (4, 2, 2), generator=generator)
    labels = interpolate(cells[:, None].float(), size=size)[:, 0].byte()
    images = 2.0 * torch.eye(3)[labels.long()].permute(0, 3, 1, 2) - 1
    labels[:, :3] = 255
    return images + 0.1 * torch.randn(images.shape, generator=generator), labels


def copied(state):
    return {name: value.clone() for name, value in state.items()}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", NETS)
def test_the_loss_is_cross_entropy_of_the_pixels_that_count(kind):
    made, (x, y) = trainer(kind), planted(size=(29, 40))
    net = copy.deepcopy(made.net).eval()
    wide = padded(x, net.patch)
    with torch.no_grad():
        scores = interpolate(net(wide), size=wide.shape[2:], mode="bilinear")[..., :29, :40]
        expected = cross_entropy(scores, y.long(), ignore_index=255)
    assert made.measure(x, y) == pytest.approx(float(expected), rel=1e-5)
    if kind == "light":  # nothing is dropped, but its norms see the batch
        with torch.no_grad():
            scores = interpolate(net.train()(wide), size=wide.shape[2:], mode="bilinear")
            expected = cross_entropy(scores[..., :29, :40], y.long(), ignore_index=255)
        assert made.learn(x, y) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", NETS)
def test_what_has_no_label_teaches_nothing(kind):
    made, (x, y) = trainer(kind), planted()
    made.learn(x, y)
    before = copied(made.state())
    assert made.learn(x, torch.full_like(y, 255)) == 0.0
    assert made.step == 2
    after = made.state()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "step")


@pytest.mark.parametrize("kind", NETS)
def test_what_is_under_255_does_not_matter(kind):
    results = []
    for seed in (0, 1):
        made, (x, y) = trainer(kind), planted()
        hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(5)) < 0.5
        other = torch.randint(0, K, y.shape, generator=torch.Generator().manual_seed(seed)).byte()
        mask = torch.where(hidden, other, y)  # what somebody might know
        made.learn(x, torch.where(hidden, torch.tensor(255, dtype=torch.uint8), mask))
        results.append(made.weights())
    same(*results)


@pytest.mark.parametrize(
    ("kind", "name", "lr"), [("light", "adamw", 1e-2), ("deeplabv3", "sgd", 0.2)]
)
def test_the_loss_falls_on_planted_colours(kind, name, lr):
    made = trainer(kind, optimiser=name, lr=lr, iterations=50)
    losses = [made.learn(*planted(seed, size=(64, 64))) for seed in range(50)]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


@pytest.mark.parametrize("kind", NETS)
def test_a_frozen_body_stays_as_it_was_norms_and_all(kind):
    made = trainer(kind, tuned=False)
    before = copied(made.weights())
    for seed in range(3):
        made.learn(*planted(seed))
    changed = {k for k, v in made.weights().items() if not torch.equal(v, before[k])}
    body = {"light": "net/encoder.", "deeplabv3": "net/backbone."}[kind]
    assert changed
    assert not any(name.startswith(body) for name in changed)
    assert any(name.startswith(body) for name in before)


def test_handicaps_are_the_logarithms_of_shares():
    found = handicaps([60, 30, 10], balance=0.5)
    assert found.tolist() == pytest.approx([0.5 * math.log(3 * x) for x in (0.6, 0.3, 0.1)])
    assert handicaps([5, 5, 5, 5], balance=1).tolist() == [0, 0, 0, 0]
    assert not handicaps([9, 1], balance=0).any()
    # what is hardly there, or not at all, is not helped without end
    assert handicaps([1000, 1, 0], balance=1)[1:].tolist() == pytest.approx([math.log(0.1)] * 2)


def test_the_loss_is_that_of_scores_with_handicaps():
    unfair, (x, y) = torch.tensor([0.5, -1.0, 0.2]), planted()
    made = trainer(handicaps=unfair)
    net = copy.deepcopy(made.net).eval()
    with torch.no_grad():
        scores = interpolate(net(x) + unfair[:, None, None], size=x.shape[2:], mode="bilinear")
        expected = cross_entropy(scores, y.long(), ignore_index=255)
    assert made.measure(x, y) == pytest.approx(float(expected), rel=1e-5)


def test_where_nothing_tells_a_rare_category_from_a_common_one_balance_makes_them_equal():
    """Of pixels that look the same nine in ten are called 0, the others 1."""
    x = torch.zeros(4, 3, 32, 32)
    y = (torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.1).byte()
    odds = {}
    for balance in (0, 1):
        made = trainer(handicaps=handicaps([9, 1, 0], balance=balance), iterations=150, lr=1e-2)
        for _ in range(150):
            made.learn(x, y)
        with torch.no_grad():
            common, rare, _ = made.net.eval()(x).softmax(1).mean((0, 2, 3)).tolist()
        odds[balance] = common / rare
    assert odds == {0: pytest.approx(9, rel=0.2), 1: pytest.approx(1, rel=0.2)}


def test_the_learning_rate_is_a_power_of_what_is_left():
    made = trainer(lr=0.01, iterations=10)
    rates = []
    for _ in range(10):
        made.learn(*planted())
        rates.append(made.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([Poly(0.01).at(step, 10) for step in range(10)])
    assert rates[5] == pytest.approx(1e-5 + (0.01 - 1e-5) * 0.5**0.9)


# --- early stopping ------------------------------------------------------------------------------


def judged(losses, *, patience=3):
    made = trainer(patience=patience)
    kept = []
    for loss in losses:
        made.learn(*planted(made.step))
        made.judge(loss)
        kept.append((made.chosen, made.stopped))
    return made, kept


def test_it_stops_when_the_loss_has_not_fallen_for_a_while():
    _, kept = judged([5, 3, 4, 3, 2, 2, 2.5, 9])
    assert [chosen for chosen, _ in kept] == [1, 2, 2, 2, 5, 5, 5, 5]
    assert [stopped for _, stopped in kept] == [False] * 7 + [True]


def test_the_best_weights_are_kept():
    made, _ = judged([5, 3, 4])
    twin = trainer()
    for step in range(2):
        twin.learn(*planted(step))
    same(made.result(), dict(twin.net.state_dict()))
    assert not torch.equal(made.result()["decoder.mix.weight"], made.net.decoder.mix.weight)


def test_without_judgement_the_last_weights_are():
    made = trainer()
    made.learn(*planted())
    assert (made.chosen, made.stopped) == (1, False)
    same(made.result(), dict(made.net.state_dict()))


def test_a_loss_that_is_no_number_is_no_best():
    made, kept = judged([math.nan, 3, math.nan, math.nan, math.nan])
    assert made.chosen == 2
    assert kept[-1] == (2, True)
    assert judged([math.nan, math.nan], patience=1)[1] == [(1, False), (1, True)]


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_interrupted_training_ends_with_the_same_bits(kind, name):
    def go(made, steps):
        for _ in range(steps):
            made.learn(*planted(made.step))
            if made.step % 2 == 0:
                made.judge([3.0, 2.0, 4.0, 2.0][made.step // 2 - 1])

    whole, first = trainer(kind, optimiser=name), trainer(kind, optimiser=name)
    go(whole, 8)
    go(first, 5)
    second = trainer(kind, optimiser=name)
    second.restore(copied(first.state()))
    assert second.step == 5
    go(first, 3)  # which must not touch what the second one took
    go(second, 3)
    same(whole.state(), second.state())
    same(whole.result(), second.result())
    assert (whole.held, whole.chosen) == (second.held, second.chosen)
