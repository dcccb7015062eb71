"""How a W-Net learns: each kind of step against one written out, resuming, planted parts."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from zerolabel.errors import UsageError
from zerolabel.networks.transformer import seeded
from zerolabel.networks.unet import UNetConfig, random_wnet
from zerolabel.ops.ncut import Affinity, class_mean_ncut, hard_ncut, soft_ncut, weights
from zerolabel.training import wnet as module
from zerolabel.training.wnet import WnetTrainer, WnetTraining

CPU = torch.device("cpu")
NEAR = Affinity(radius=2)
OF_MEANS = Affinity(radius=4, sigma_value=1.0, sigma_place=5.0)  # published for "class-mean"


def network(*, K=3, bands=3, seed=0, dropout=0.5):
    config = UNetConfig(bands=bands, outputs=K, base=4, depth=2, dropout=dropout)
    return random_wnet(config, seed=seed)


def trainer(net=None, *, mean=(0.0,), deviation=(255.0,), **settings):
    config = WnetTraining(**{"affinity": NEAR, **settings})
    return WnetTrainer(net or network(), config, CPU, mean=mean, deviation=deviation)


def photos(count=4, *, bands=3, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(count, bands, side, side, generator=generator)


def kept(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def close(one, other):
    return all(torch.allclose(one[n].double(), other[n].double(), atol=1e-6) for n in one)


def built(name, groups):
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    return torch.optim.Adam(groups)


def by_hand(net, images, *, optimiser, scope, steps):
    """Algorithm 1 as it is written, with lr 0.01 and 0.02."""
    encoder, decoder, both = (list(part.parameters()) for part in (net.encoder, net.decoder, net))
    if scope == "encoder":
        first = [{"params": encoder, "lr": 0.01}]
        second = [{"params": encoder, "lr": 0.01}, {"params": decoder, "lr": 0.02}]
    else:
        first, second = [{"params": both, "lr": 0.01}], [{"params": both, "lr": 0.02}]
    cutter, maker = built(optimiser, first), built(optimiser, second)
    x = images / 255
    for step in range(steps):
        with seeded(step, device=CPU):
            cut = soft_ncut(F.softmax(net.encoder(x), 1), weights(images, NEAR)).mean()
            net.zero_grad()
            cut.backward()
            cutter.step()
            made = net.decoder(F.softmax(net.encoder(x), 1))
            error = ((made - x) ** 2).mean(dim=(1, 2, 3)).mean()
            net.zero_grad()
            error.backward()
            maker.step()
    return cut.item(), error.item()


# --- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("scope", ["encoder", "all"])
def test_alternate_steps_are_those_written_out(optimiser, scope):
    # Adam turns what is 0 but for rounding into whole steps: with float64 it stays next to 0
    net, images = network().double(), photos().double()
    twin = copy.deepcopy(net)
    made = trainer(
        net, optimiser=optimiser, ncut_scope=scope, lr=0.01, decoder_lr=0.02, reduction="mean"
    )
    losses = [made.learn(images) for _ in range(2)]
    cut, error = by_hand(twin, images, optimiser=optimiser, scope=scope, steps=2)
    assert made.losses["ncut"] == pytest.approx(cut, abs=1e-5)
    assert made.losses["reconstruction"] == pytest.approx(error, abs=1e-5)
    assert losses[1] == pytest.approx(cut + error, abs=1e-5)
    assert close(kept(net), kept(twin))
    assert made.step == 2


@pytest.mark.parametrize("scope", ["encoder", "all"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_the_update_on_the_cut_leaves_the_decoder_bit_identical(scope, optimiser):
    net = network()
    made = trainer(net, ncut_scope=scope, optimiser=optimiser, reduction="mean")
    for seed in range(3):  # later steps have momentum
        before, seen = kept(net), []
        hook = net.decoder.register_forward_pre_hook(lambda *_, seen=seen: seen.append(kept(net)))
        made.learn(photos(seed=seed))
        hook.remove()
        (between,) = seen  # the decoder runs once, after the update on the cut
        decoder = [name for name in before if name.startswith("decoder.")]
        assert all(torch.equal(before[name], between[name]) for name in decoder)
        learned = [name for name, _ in net.encoder.named_parameters()]
        assert not any(
            torch.equal(before[f"encoder.{n}"], between[f"encoder.{n}"]) for n in learned
        )
        after = kept(net)
        learned = [name for name, _ in net.named_parameters()]
        assert not any(torch.equal(between[name], after[name]) for name in learned)


def test_without_reconstruction_the_decoder_stays():
    net = network()
    before, made = kept(net.decoder), trainer(net, rec_weight=0.0)
    made.learn(photos())
    assert same(before, kept(net.decoder))
    assert set(made.losses) == {"ncut"}


def test_without_a_cut_only_images_are_learned():
    made = trainer(ncut_weight=0.0, rec_weight=0.5, reduction="mean")
    loss = made.learn(photos())
    assert made.losses == {"reconstruction": pytest.approx(2 * loss)}


@pytest.mark.parametrize("ncut", ["pairwise", "class-mean"])
def test_a_joint_step_is_down_one_weighted_sum(ncut):
    net, images = network(), photos()
    twin, passes = copy.deepcopy(net), []
    made = trainer(
        net, update="joint", ncut=ncut, optimiser="sgd", lr=0.1, decoder_lr=0.2,
        ncut_weight=0.7, rec_weight=3.0, reduction="mean",
    )  # fmt: skip
    net.encoder.register_forward_hook(lambda *_: passes.append(1))
    loss = made.learn(images)
    assert len(passes) == 1
    with seeded(0, device=CPU):
        logits, back = twin(images / 255)
    p = logits.softmax(1)
    if ncut == "pairwise":
        cut = soft_ncut(p, weights(images, NEAR)).mean()
    else:
        near = {"radius": 2, "sigma_value": 10.0, "sigma_place": 4.0}  # those of NEAR
        cut = class_mean_ncut(p, images / 255, **near).mean()
    error = F.mse_loss(back, images / 255)
    (0.7 * cut + 3 * error).backward()
    with torch.no_grad():
        for part, lr in ((twin.encoder, 0.1), (twin.decoder, 0.2)):
            for value in part.parameters():
                value -= lr * value.grad
    assert loss == pytest.approx((0.7 * cut + 3 * error).item(), abs=1e-5)
    assert close(kept(net), kept(twin))


def test_what_each_part_sees(monkeypatch):
    images, seen = photos(bands=2), {}
    images[:, 1] += 1000  # so that bands cannot be mistaken
    real, real_mean = module.weights, module.class_mean_ncut
    monkeypatch.setattr(module, "weights", lambda x, a: seen.update(pairs=x) or real(x, a))
    monkeypatch.setattr(
        module,
        "class_mean_ncut",
        lambda p, x, **k: seen.update(mean=x, **k) or real_mean(p, x, **k),
    )
    expected = (images - torch.tensor([10, 1000.0])[:, None, None]) / torch.tensor([50, 70.0])[
        :, None, None
    ]
    for ncut in ("pairwise", "class-mean"):
        net = network(bands=2)
        net.encoder.register_forward_pre_hook(lambda _, given: seen.update(net=given[0]))
        made = trainer(net, ncut=ncut, pooled=True, mean=(10.0, 1000.0), deviation=(50.0, 70.0))
        made.learn(images)
        assert torch.allclose(seen["net"], expected, atol=1e-5)
    assert torch.equal(seen["pairs"], images)
    assert torch.allclose(seen["mean"], images / 255)
    assert seen["pooled"]


def test_known_weights_of_pairs_are_not_computed_again(monkeypatch):
    images = photos()
    one, other, pairs = trainer(), trainer(), weights(images, NEAR)
    one.learn(images)
    monkeypatch.setattr(module, "weights", None)
    other.learn(images, pairs=pairs)
    assert same(one.weights(), other.weights())


def test_sum_and_mean():
    images = photos(side=16)
    whole, mean = trainer(), trainer(reduction="mean")
    whole.learn(images)
    mean.learn(images)
    ratio = whole.losses["reconstruction"] / mean.losses["reconstruction"]
    assert ratio == pytest.approx(3 * 16 * 16, rel=1e-3)  # pixels and bands, not images


def test_rates_fall():
    made = trainer(lr=0.5, decoder_lr=0.25, optimiser="sgd", drop_every=2, reduction="mean")
    rates = []
    for _ in range(5):
        rates.append(made.lr())
        made.learn(photos(2, side=8))
        second = made._optimisers["reconstruction"].param_groups
        assert [group["lr"] for group in second] == pytest.approx([rates[-1], rates[-1] / 2])
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_rates_fall_along_a_cosine():
    made = trainer(lr=0.4, schedule="cosine", iterations=5, drop_every=1)
    rates = []
    for _ in range(5):
        rates.append(made.lr())
        made.learn(photos(2, side=8))
    assert rates == pytest.approx([0.4, 0.2 + 0.02**0.5, 0.2, 0.2 - 0.02**0.5, 0])


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("choice", [{}, {"ncut_scope": "all"}, {"update": "joint"}], ids=str)
def test_an_interrupted_training_ends_with_the_same_bits(optimiser, choice):
    settings = {"optimiser": optimiser, "reduction": "mean", "drop_every": 3, "seed": 5, **choice}
    whole, part = trainer(**settings), trainer(**settings)
    states = torch.get_rng_state()
    for made, steps in ((whole, 5), (part, 2)):
        for step in range(steps):
            made.learn(photos(seed=step))
    assert torch.equal(torch.get_rng_state(), states)
    state = {name: torch.from_numpy(v.numpy().copy()) for name, v in part.state().items()}
    rest = trainer(network(seed=9), **settings)
    rest.restore(state)
    for step in range(2, 5):
        rest.learn(photos(seed=step))
    assert same(whole.state(), rest.state())
    assert whole.losses == rest.losses


def test_the_seed_decides_what_is_dropped():
    images = photos()
    one, other = trainer(seed=0), trainer(seed=1)
    assert one.learn(images) != other.learn(images)


# --- what it learns ------------------------------------------------------------------------------


def planted(count=6, *, side=32, seed=0):
    """A disc of one colour on another one, with noise; images 0..255 and parts 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    middle = side * (0.3 + 0.4 * torch.rand(count, 2, 1, 1, generator=generator))
    radius = side * (0.2 + 0.15 * torch.rand(count, 1, 1, generator=generator))
    parts = ((rows - middle[:, 0]) ** 2 + (columns - middle[:, 1]) ** 2 < radius**2).long()
    colours = torch.tensor([[60.0, 90, 60], [190, 60, 160]])
    images = colours[parts].permute(0, 3, 1, 2)
    images = images + 8 * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 255), parts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ncut", "share", "seed"),
    [("pairwise", 0.97, 0), ("pairwise", 0.97, 1), ("class-mean", 0.9, 0)],
)
def test_planted_parts_are_found(ncut, share, seed):
    images, parts = planted(seed=seed)
    net = random_wnet(UNetConfig(outputs=2, base=8, depth=2), seed=seed)
    rates = {"lr": 0.05, "decoder_lr": 0.05, "reduction": "mean"}
    affinity = Affinity() if ncut == "pairwise" else OF_MEANS
    made = trainer(net, ncut=ncut, affinity=affinity, optimiser="sgd", seed=seed, **rates)
    pairs = weights(images, Affinity())

    @torch.no_grad()
    def judged():
        labels = net.eval().encoder(made.normalise(images)).argmax(1)
        right = (labels == parts).float().mean().item()
        return hard_ncut(labels, pairs, K=2).mean().item(), max(right, 1 - right)

    before, _ = judged()
    errors = []
    for _ in range(60):
        made.learn(images)
        errors.append(made.losses["reconstruction"])
    after, right = judged()
    assert after < 0.25 * before
    assert right > share
    assert errors[-1] < 0.1 * errors[0]


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimiser": "adamw"},
        {"update": "both"},
        {"ncut_scope": "decoder"},
        {"ncut": "mean"},
        {"reduction": "median"},
        {"batch": 0},
        {"iterations": 0},
        {"drop_every": -1},
        {"lr": 0.0},
        {"drop": 0.0},
        {"ncut_weight": -1.0},
        {"ncut_weight": 0.0, "rec_weight": 0.0},
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(UsageError):
        WnetTraining(**wrong)


@pytest.mark.parametrize("deviation", [(0.0,), (1.0, 2.0)])
def test_deviations_that_fit_no_image_are_refused(deviation):
    with pytest.raises(UsageError, match="deviations"):
        trainer(deviation=deviation)


def test_losses_that_are_not_finite_end_the_training():
    made = trainer()
    made.learn(photos())
    before = kept(made.net.decoder)
    with torch.no_grad():
        made.net.decoder.head.bias[0] = math.inf
    with pytest.raises(UsageError, match=r"step 1.*reconstruction.*'mean'"):
        made.learn(photos())
    del before["head.bias"]
    learned = dict(made.net.decoder.named_parameters())
    assert all(torch.equal(learned[name], before[name]) for name in before if name in learned)
