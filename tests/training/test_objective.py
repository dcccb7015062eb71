import math
from dataclasses import fields

import pytest
import torch
from reference import dino as slow
from small_training import CPU, noise_pool, small

from zerolabel.networks.vit import ViT
from zerolabel.training import augment, dense, distributed
from zerolabel.training.config import PRESETS
from zerolabel.training.objective import HIDDEN, Objective, make_batch, view_plan
from zerolabel.training.sampling import take
from zerolabel.training.twin import make_twins


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def setting(*, amp=False, **changes):
    """A student that has moved away from its teacher, the objective, and a batch."""
    config = small(**changes)
    student, teacher = make_twins(config)
    with torch.no_grad():
        for value in student.parameters():
            value.add_(torch.randn(value.shape, generator=generator(1)) * 0.05)
    batch = make_batch(take(noise_pool(), 0, config), config, generator=generator())
    return student, teacher, Objective(config, device=CPU, amp=amp), batch


def test_views_are_those_of_dino():
    plan = view_plan(PRESETS["dino"])
    assert [view.size for view in plan] == [224] * 2 + [96] * 8
    assert [view.blur for view in plan] == [1.0, 0.1] + [0.5] * 8
    assert [view.solarise for view in plan] == [0.0, 0.2] + [0.0] * 8
    assert [view.scale for view in plan] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8


def test_a_batch_is_normalised_views():
    config = small()
    images = torch.full((8, 3, 40, 40), 127, dtype=torch.uint8)
    batch = make_batch(images, config, generator=generator())
    assert [tuple(view.shape) for view in batch.views] == [(8, 3, 32, 32)] * 2 + [
        (8, 3, 16, 16)
    ] * 2
    plain = (0.498 - 0.449) / 0.226  # middle grey, by the mean of ImageNet
    assert abs(torch.stack(batch.views[:2]).mean().item() - plain) < 0.5
    assert batch.noise.shape == (8, 5 + 16)
    assert not torch.equal(batch.draws[0].box, batch.draws[1].box)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_see_their_part_of_what_one_would_see(monkeypatch, world):
    config, images = small(), take(noise_pool(), 0, small())
    whole = make_batch(images, config, generator=generator())
    size = len(images) // world
    monkeypatch.setattr(distributed, "world", lambda: world)
    for rank in range(world):
        rows = slice(rank * size, (rank + 1) * size)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        part = make_batch(images[rows], config, generator=generator())
        for own, other in zip(part.views, whole.views, strict=True):
            torch.testing.assert_close(own, other[rows], atol=1e-5, rtol=0)
        for own, other in zip(part.draws, whole.draws, strict=True):
            for field in fields(augment.Draw):
                name = field.name
                assert torch.equal(getattr(own, name), getattr(other, name)[rows])
        assert torch.equal(part.noise, whole.noise[rows])


def answers(twin, views, *, rows):
    """What the head says of every view, each view by itself."""
    found = []
    for view in views:
        cls, tokens = twin.backbone.forward_all(view)
        found.append(twin.head(cls if rows == "cls" else tokens.mean((1, 2))))
    return found


@pytest.mark.parametrize("symmetric", [True, False])
def test_dino_compares_different_views_of_an_image(symmetric):
    student, teacher, objective, batch = setting(dense="none", symmetric=symmetric)
    told = answers(teacher, batch.views[: 2 if symmetric else 1], rows="cls")
    said = answers(student, batch.views[0 if symmetric else 1 :], rows="cls")
    first = 0 if symmetric else 1
    expected = slow.dino(
        said,
        told,
        centre=0,
        teacher_temperature=0.05,
        student_temperature=0.1,
        same=lambda t, s: t == s + first,
    )
    out = objective.loss(student, teacher, batch, temperature=0.05)
    torch.testing.assert_close(out["loss"], expected, atol=1e-5, rtol=1e-5)
    # The centre moves once the loss is known.
    mean = torch.cat(told).mean(0)
    torch.testing.assert_close(objective.centres[0].value, 0.1 * mean, atol=1e-6, rtol=0)
    again = objective.loss(student, teacher, batch, temperature=0.05)
    assert again["loss"] != out["loss"]


def test_infonce_compares_both_kinds_of_rows():
    student, teacher, objective, batch = setting(
        objective="infonce", dense="none", rows="both", symmetric=False
    )
    losses = []
    for rows in ("cls", "mean"):
        told = answers(teacher, batch.views[:1], rows=rows)[0]
        losses += [
            slow.infonce(said, told, temperature=0.2)
            for said in answers(student, batch.views[1:], rows=rows)
        ]
    out = objective.loss(student, teacher, batch, temperature=0.0)
    torch.testing.assert_close(out["loss"], sum(losses) / 6, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("objective", ["dino", "infonce", "coding-rate"])
@pytest.mark.parametrize("dense", ["none", "ibot", "match"])
def test_every_weight_learns(objective, dense):
    student, teacher, made, batch = setting(objective=objective, dense=dense, koleo=0.1)
    out = made.loss(student, teacher, batch, temperature=0.04)
    expected = out["image"] + 0.1 * out["koleo"] + (out["dense"] if dense != "none" else 0)
    torch.testing.assert_close(out["loss"], expected)
    assert out["cls"].shape == (8, 128)
    assert out["tokens"].shape == (8, 4, 4, 128)
    assert ("targets" in out) == (objective == "dino")
    out["loss"].backward()
    for name, value in student.named_parameters():
        if name == "mask_token" and dense != "ibot":
            assert value.grad is None
        else:
            assert value.grad is not None, name
            assert value.grad.isfinite().all(), name
            assert value.grad.abs().sum() > 0, name
    assert all(value.grad is None for value in teacher.parameters())


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_teacher_sees_whole_views_only(monkeypatch, symmetric):
    student, teacher, objective, batch = setting(symmetric=symmetric, dense="none")
    seen = []
    forward_all = ViT.forward_all

    def spy(self, x, **options):
        seen.append((self is teacher.backbone, len(x), x.shape[-1], torch.is_grad_enabled()))
        return forward_all(self, x, **options)

    monkeypatch.setattr(ViT, "forward_all", spy)
    objective.loss(student, teacher, batch, temperature=0.04)
    whole = 16 if symmetric else 8  # images in one pass
    assert seen == [
        (True, whole, 32, False),
        (False, whole, 32, True),
        (False, 16, 16, True),  # both local views at once
    ]


@pytest.mark.parametrize("amp", [False, True])
def test_patches_without_a_partner_do_not_count(amp):
    student, teacher, objective, _ = setting(amp=amp)
    mine, theirs = (torch.randn(20, 128, generator=generator(i)) for i in range(2))
    weight = (torch.rand(20, generator=generator(2)) < 0.6).float()
    with objective.amp, torch.no_grad():
        told, said = teacher.dense_head(theirs).double(), student.dense_head(mine).double()
    targets = torch.tensor(slow.sinkhorn(told, temperature=0.05, iterations=3))
    each = -(targets * (said / 0.1).log_softmax(1)).sum(1)
    expected = each[weight > 0].mean().item()
    rows = dense.Partners(mine, theirs, weight)
    found = objective._dense_loss(student, teacher, rows, 0.05)
    assert found.item() == pytest.approx(expected, rel=1e-4)
    others = torch.where(weight[:, None] > 0, mine, -mine)
    again = objective._dense_loss(student, teacher, dense.Partners(others, theirs, weight), 0.05)
    assert again.item() == pytest.approx(expected, rel=1e-4)
    nobody = dense.Partners(mine, theirs, torch.zeros(20))
    assert objective._dense_loss(student, teacher, nobody, 0.05) == 0


def test_ibot_hides_patches_of_one_view_of_an_image():
    config = small(batch=400, global_size=64, dense="ibot")
    objective = Objective(config, device=CPU, amp=False)
    images = torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    batch = make_batch(images, config, generator=generator())
    first, second = objective._hidden(batch).chunk(2)
    hidden = torch.stack([first, second]).flatten(2).float().mean(2)  # (2, 400)
    assert ((hidden > 0).sum(0) == 1).all()
    assert abs((hidden[0] > 0).float().mean() - 0.5) < 0.08
    shares = hidden.amax(0)
    assert shares.min() >= HIDDEN[0] - 1 / 8
    assert shares.max() <= HIDDEN[1] + 1 / 8
    assert abs(shares.mean() - sum(HIDDEN) / 2) < 0.03
    # A process that has some of the images hides the same.
    rows = slice(100, 200)
    part = type(batch)([], [], batch.noise[rows])
    found = objective._hidden(part).chunk(2)
    assert torch.equal(found[0], first[rows])
    assert torch.equal(found[1], second[rows])


def test_nothing_is_hidden_of_local_views(monkeypatch):
    student, teacher, objective, batch = setting(dense="ibot", local_size=32)
    seen = []
    forward_all = ViT.forward_all

    def spy(self, x, *, masked=None, mask_token=None):
        seen.append(masked)
        return forward_all(self, x, masked=masked, mask_token=mask_token)

    monkeypatch.setattr(ViT, "forward_all", spy)
    out = objective.loss(student, teacher, batch, temperature=0.04)
    told, said = seen
    assert told is None
    assert said.shape == (4 * 8, 4, 4)
    assert torch.equal(said[:16], objective._hidden(batch))
    assert not said[16:].any()
    assert out["loss"].isfinite()


@pytest.mark.parametrize("objective", ["dino", "infonce"])
@pytest.mark.parametrize("dense", ["ibot", "match"])
def test_mixed_precision_says_nearly_the_same(objective, dense):
    settings = {"objective": objective, "dense": dense}
    student, teacher, made, batch = setting(**settings)
    exact = made.loss(student, teacher, batch, temperature=0.04)
    *_, mixed, _ = setting(amp=True, **settings)
    found = mixed.loss(student, teacher, batch, temperature=0.04)
    for name in ("loss", "image", "dense"):
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(exact[name].item(), rel=0.03), name


def test_twins_that_know_nothing_lose_by_chance():
    for settings, chance in (
        ({"objective": "infonce", "dense": "none"}, math.log(8)),
        ({"objective": "dino", "dense": "none", "prototypes": 256}, math.log(256)),
    ):
        config = small(**settings)
        student, teacher = make_twins(config)
        for twin in (student, teacher):  # the same answer to everything
            torch.nn.init.zeros_(twin.head.mlp[-1].weight)
            torch.nn.init.ones_(twin.head.mlp[-1].bias)
            if config.objective == "dino":
                torch.nn.init.ones_(twin.head.prototypes)
        batch = make_batch(take(noise_pool(), 0, config), config, generator=generator())
        out = Objective(config, device=CPU, amp=False).loss(
            student, teacher, batch, temperature=0.04
        )
        assert out["loss"].item() == pytest.approx(chance, abs=1e-4)
