"""How a rectifier learns: one step, what falls, and going on after an interruption."""

import pytest
import torch
from torch.nn.functional import normalize

from zerolabel.errors import UsageError
from zerolabel.networks.bias import BiasConfig, rectifier
from zerolabel.networks.clip_text import ClipTextConfig, random_clip_text
from zerolabel.ops.rectification import contrastive, gumbel_mask
from zerolabel.training.rectify import RectifyTrainer, RectifyTraining

P, D, Q, TEXT = 32, 8, 4, 16
GRID = (6, 8)
TOWER = ClipTextConfig(vocabulary=20, context=12, dim=TEXT, depth=2, heads=2)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QUERIES = normalize(draw(Q, P, seed=5), dim=1)
POSITIONS = draw(*GRID, D, seed=6)


def trainer(*, seed=0, choices=None, **settings):
    text = random_clip_text(TOWER, P, seed=0)
    config = BiasConfig(dim=P, width=D, words=Q, text_dim=TEXT, shared=5, **(choices or {}))
    ids = torch.tensor([[3, 19], [4, 19], [5, 19], [6, 19]])
    return RectifyTrainer(
        rectifier(config, seed=seed, start=draw(TEXT)),
        text,
        queries=QUERIES,
        suffix=text.embed(ids),
        at=torch.ones(Q, dtype=torch.int64),
        sot=text.embed(torch.tensor(18)),
        config=RectifyTraining(**{"iterations": 60, **settings}),
        device=torch.device("cpu"),
    )


def planted(images=3, *, seed=0, preference=0.7):
    """Two words in every image, side by side; everything looks a bit like word 0."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.stack([torch.randperm(Q, generator=generator)[:2] for _ in range(images)])
    split = torch.arange(GRID[1]) < torch.randint(2, 6, (images, 1), generator=generator)
    truth = torch.where(split, words[:, :1], words[:, 1:])[:, None].expand(-1, *GRID)
    dense = QUERIES[truth] + preference * QUERIES[0] + 0.1 * draw(images, *GRID, P, seed=seed + 1)
    present = torch.zeros(images, Q, dtype=torch.bool).scatter_(1, words, True)
    return dense * (0.5 + torch.rand(images, 1, 1, 1, generator=generator)), present, truth


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- one step ------------------------------------------------------------------------------------


def test_the_loss_of_a_step_is_that_before_it():
    made, (dense, present, _) = trainer(seed=3), planted()
    twin, z = trainer(seed=3), normalize(dense, dim=3)
    queries, references = twin.texts()
    assert torch.equal(queries, QUERIES)
    out = twin.rectifier(z, queries, references=references, positions=POSITIONS)
    mask = gumbel_mask(100 * out, generator=torch.Generator().manual_seed(0))
    expected = contrastive(mask, z, queries, present).item()
    assert made.learn(dense, POSITIONS, present=present) == pytest.approx(expected, abs=1e-5)
    assert made.step == 1


@pytest.mark.parametrize(
    "choices",
    [{}, {"kind": "joint", "hidden": (6, 5), "decoder": False}, {"query": "learned"}],
    ids=str,
)
def test_the_loss_falls(choices):
    made, (dense, present, _) = trainer(choices=choices), planted()
    losses = [made.learn(dense, POSITIONS, present=present) for _ in range(60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(value.isfinite().all() for value in made.weights().values())


@pytest.mark.parametrize("seed", range(2))
def test_a_word_that_is_preferred_everywhere_loses_ground(seed):
    dense, present, truth = planted(24, seed=seed, preference=0.9)
    made, z = trainer(choices={"decoder": False}, iterations=150), normalize(dense, dim=3)

    def right(scores):
        return (scores.argmax(1) == truth).float().mean()

    for step in range(150):
        drawn = torch.randperm(24, generator=torch.Generator().manual_seed(step))[:4]
        made.learn(dense[drawn], POSITIONS, present=present[drawn])
    queries, references = made.texts()
    with torch.no_grad():
        found = made.rectifier.eval()(z, queries, references=references, positions=POSITIONS)
    maskclip = (z @ QUERIES.T).permute(0, 3, 1, 2)
    assert (found.argmax(1) == 0).sum() < (maskclip.argmax(1) == 0).sum()
    assert right(found) > right(maskclip) + 0.02


def test_only_the_rectifier_learns():
    made, (dense, present, _) = trainer(choices={"query": "learned"}), planted()
    before = {name: value.clone() for name, value in made.weights().items()}
    tower = {name: value.clone() for name, value in made.text.state_dict().items()}
    made.learn(dense, POSITIONS, present=present)
    same(tower, made.text.state_dict())
    after = made.weights()
    # the bias of the convolution, which normalisation takes away again, at least decays
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert not any(value.requires_grad for value in made.text.parameters())


def test_images_that_hold_nothing_are_as_if_they_were_not_there():
    dense, present, _ = planted(4)
    present[1] = False
    one, other = trainer(), trainer()
    loss = one.learn(dense, POSITIONS, present=present)
    held = torch.tensor([0, 2, 3])
    assert other.learn(dense[held], POSITIONS, present=present[held]) == loss
    same(one.state(), other.state())


def test_a_batch_that_holds_nothing_is_a_step_that_teaches_nothing():
    made, (dense, present, _) = trainer(), planted()
    made.learn(dense, POSITIONS, present=present)
    before = {name: value.clone() for name, value in made.state().items()}
    assert made.learn(dense, POSITIONS, present=torch.zeros_like(present)) == 0
    assert made.step == 2
    same(before | {"step": torch.tensor(2)}, made.state())


def test_lengths_and_types_of_features_do_not_count():
    dense, present, _ = planted()
    whole = trainer().learn(dense, POSITIONS, present=present)
    assert trainer().learn(3 * dense, POSITIONS, present=present) == pytest.approx(whole, rel=1e-4)
    half = trainer().learn(dense.half(), POSITIONS, present=present)
    assert half == pytest.approx(whole, rel=0.3)


def test_the_learning_rate_falls_by_epochs():
    made = trainer(iterations=10, epoch=4, lr=0.5)
    rates = []
    for made.step in range(10):
        rates.append(made.lr())
    expected = [0.5 * (1 - epoch / 3) ** 0.9 for epoch in (0, 0, 0, 0, 1, 1, 1, 1, 2, 2)]
    assert rates == pytest.approx(expected)
    made = trainer(iterations=10, epoch=4, lr=0.5, horizon=40)
    made.step = 9
    assert made.lr() == pytest.approx(0.5 * (1 - 2 / 10) ** 0.9)


def test_the_settings_reach_the_optimiser():
    made = trainer(lr=0.25, momentum=0.5, decay=0.125)
    [group] = made.optimiser.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.25, 0.5, 0.125)
    assert {id(p) for p in group["params"]} == {id(p) for p in made.rectifier.parameters()}


@pytest.mark.parametrize(
    "settings",
    [{"scale": 1.0}, {"tau": 0.1}, {"logit_scale": 10.0}, {"pool": "mask"}, {"cosine": True}],
    ids=str,
)
def test_the_settings_reach_the_loss(settings):
    dense, present, _ = planted()

    def taught(**settings):
        made = trainer(**settings)
        made.learn(dense, POSITIONS, present=present)
        return made.weights()["decoder.conv.weight"]

    assert not torch.equal(taught(**settings), taught())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "all"}, "Unknown pool"),
        ({"epoch": 0}, "lengths of 1 or more"),
        ({"horizon": 5}, "must not lie before the last iteration; found 5 and 60"),
        ({"tau": 0.0}, "must be above 0"),
        ({"momentum": 1.0}, "momentum in"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        trainer(**settings)


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choices", [{}, {"kind": "joint", "hidden": (6, 5)}, {"query": "learned"}], ids=str
)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_restored_training_goes_on_bit_for_bit(stop, choices):
    batches = [planted(2, seed=i)[:2] for i in range(7)]
    batches[2][1][:] = False  # nothing to learn there
    whole, first, second = (
        trainer(iterations=7, epoch=2, choices=choices, seed=seed) for seed in (0, 0, 1)
    )

    def learn(made, part):
        return [made.learn(dense, POSITIONS, present=present) for dense, present in part]

    expected = learn(whole, batches)
    found = learn(first, batches[:stop])
    state = {name: value.clone() for name, value in first.state().items()}
    kept = {name: value.clone() for name, value in state.items()}
    second.restore({name: torch.from_numpy(value.numpy()) for name, value in state.items()})
    assert second.step == stop
    found += learn(second, batches[stop:])
    assert found == expected
    same(second.state(), whole.state())
    same(state, kept)  # what was restored from stays as it was
