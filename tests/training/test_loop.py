import math

import pytest
import torch
from small_training import noise_pool, run, small, trainer

from zerolabel.errors import DataError
from zerolabel.networks.vit import random_vit
from zerolabel.training import loop
from zerolabel.training.monitors import CollapseError
from zerolabel.training.twin import network

QUICK = {"objective": "infonce", "dense": "none", "symmetric": False, "local_views": 0}


def test_a_look_after_every_step_with_values_now_and_then():
    made = trainer(small(**QUICK))
    seen = run(made, 5, look_every=2)
    assert [look.step for look in seen] == [1, 2, 3, 4, 5]
    assert [bool(look.values) for look in seen] == [False, True, False, True, True]
    assert all(look.total == 5 and look.images == 8 * look.step for look in seen)
    assert [look.seconds for look in seen] == sorted(look.seconds for look in seen)
    expected = {"loss", "image", "image_cosine", "patch_cosine", "norm_ratio", "rank", "lr"}
    assert set(seen[-1].values) == expected
    assert run(made, 5) == []  # it is done


def test_dino_tells_of_its_prototypes():
    values = run(trainer(small(local_views=0, koleo=0.1)), 1)[0].values
    assert {"dense", "koleo", "entropy", "used"} <= set(values)
    assert 0 < values["entropy"] < math.log(64)


def test_too_few_images_are_explained():
    with pytest.raises(DataError, match="noise holds 7 images, fewer than a batch of 8"):
        run(trainer(small()), 3, pools=[noise_pool(32), noise_pool(7)], shares=[1, 1])


def test_sources_take_turns(monkeypatch):
    pools = [noise_pool(16), noise_pool(16, seed=1)]
    taken = []

    def take(pool, turn, config):
        taken.append((pool.digest, turn))
        return pool.images[: config.batch]

    monkeypatch.setattr(loop, "take", take)
    run(trainer(small(**QUICK)), 8, pools=pools, shares=[3, 1])
    for pool, steps in zip(pools, (6, 2), strict=True):
        assert [turn for digest, turn in taken if digest == pool.digest] == list(range(steps))


def test_the_schedules_reach_the_optimiser():
    config = small(**QUICK, warmup=0.4, lr_end=1e-5, decay=(0.04, 0.4), momentum=(0.9, 1.0))
    made = trainer(config)
    seen = [(look.values["lr"], *decays(made)) for look in made_looks(made, 5)]
    peak = 0.03 * 8 / 256
    assert [lr for lr, _, _ in seen] == pytest.approx(
        [0, peak / 2, peak, (peak + 1e-5) / 2, 1e-5], rel=1e-4
    )
    assert seen[0][1] == pytest.approx(0.04)
    assert seen[-1][1] == pytest.approx(0.4)
    assert {plain for _, _, plain in seen} == {0.0}


def made_looks(made, steps):
    return made.run([noise_pool()], shares=[1], steps=steps, look_every=1)


def decays(made):
    return [group["weight_decay"] for group in made.optimiser.param_groups]


def test_prototypes_wait_and_the_teacher_stands_at_a_momentum_of_one():
    made = trainer(small(freeze=0.5, momentum=(1.0, 1.0), local_views=0))
    heads = made.student.head, made.student.dense_head
    before = [head.prototypes.detach().clone() for head in heads]
    first = {name: x.clone() for name, x in made.teacher.state_dict().items()}
    for look in made_looks(made, 4):
        moved = [not torch.equal(a, b.prototypes) for a, b in zip(before, heads, strict=True)]
        assert moved == [look.step > 2] * 2
    assert all(torch.equal(x, first[name]) for name, x in made.teacher.state_dict().items())
    assert not torch.equal(made.student.head.mlp[0].weight, first["head.mlp.0.weight"])


def test_the_teacher_is_a_mean_of_the_student():
    made = trainer(small(**QUICK, momentum=(0.8, 0.8)))
    expected = made.teacher.mask_token.clone(), made.teacher.head.mlp[0].weight.clone()
    for _ in made_looks(made, 3):
        expected = [
            0.8 * old + 0.2 * new.detach()
            for old, new in zip(
                expected, (made.student.mask_token, made.student.head.mlp[0].weight), strict=True
            )
        ]
    torch.testing.assert_close(made.teacher.head.mlp[0].weight, expected[1])
    torch.testing.assert_close(made.teacher.mask_token, expected[0])


def test_a_run_can_go_on_from_a_network():
    net = random_vit(network(small()), seed=7)
    made = trainer(small(), start=net)
    for twin in (made.student, made.teacher):
        assert torch.equal(twin.backbone.pos_embed, net.pos_embed)
    run(made, 1)
    assert torch.equal(net.pos_embed, random_vit(network(small()), seed=7).pos_embed)  # untouched


@pytest.mark.parametrize("settings", [{}, {**QUICK, "dense": "match"}])
def test_a_dead_run_ends_at_its_first_look(settings):
    made = trainer(small(**settings))
    with torch.no_grad():
        made.student.backbone.norm.weight.fill_(math.nan)
    with pytest.raises(CollapseError, match="The loss is nan at step 1"):
        run(made, 9)


class Clock:
    """A step takes a second."""

    def __init__(self, made):
        self.made = made

    def perf_counter(self):
        return float(self.made.step)


@pytest.mark.parametrize("stopped", [0, 2, 4])
def test_a_length_in_minutes_becomes_steps(monkeypatch, stopped):
    monkeypatch.setattr(loop, "RATE_FROM", 1)
    monkeypatch.setattr(loop, "RATE_TO", 3)
    made = trainer(small(**QUICK))
    monkeypatch.setattr(loop, "time", Clock(made))
    for _ in range(stopped):  # an earlier part of the run
        next(made.run([noise_pool()], shares=[1], minutes=10 / 60 / loop.MARGIN, look_every=99))
    assert made.total == 0
    totals = [
        look.total for look in made.run([noise_pool()], shares=[1], minutes=10 / 60 / loop.MARGIN)
    ]
    assert totals == [0] * 2 + [10] * (10 - stopped - 2)


def test_the_seed_decides_the_views(monkeypatch):
    seen = []
    make_batch = loop.make_batch
    monkeypatch.setattr(
        loop, "make_batch", lambda *a, **k: seen.append(make_batch(*a, **k)) or seen[-1]
    )
    for seed in (0, 0, 1):
        trainer(small(**QUICK, seed=seed)).train_step(noise_pool().images[:8])
    first, again, other = (batch.draws[0].box for batch in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
