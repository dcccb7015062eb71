import math

import pytest
import torch
import torch.nn.functional as F
from reference import dino as slow

from zerolabel.training import dino

DTYPES = {torch.float64: 1e-10, torch.float32: 1e-5}
B, K, D = 6, 10, 5


def cosines(seed, *, shape=(B, K), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1


def units(seed, *, shape=(B, D), dtype=torch.float64):
    return F.normalize(cosines(seed, shape=shape, dtype=dtype), dim=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_dino_equals_the_loop_over_pairs(dtype, symmetric):
    teacher = [cosines(i, dtype=dtype) for i in range(2 if symmetric else 1)]
    student = [cosines(10 + i, dtype=dtype).requires_grad_() for i in range(5)]
    first = 0 if symmetric else 1  # number of the student's first view

    def same(t, s):
        return t == s + first

    pairs = [(t, s) for t in range(len(teacher)) for s in range(5) if not same(t, s)]
    centre = dino.Centre(K, device=torch.device("cpu"))
    centre.value = cosines(20, shape=(K,), dtype=dtype) / 10
    targets = centre.targets(teacher, temperature=0.05)
    found = dino.dino_loss(student, targets, pairs, temperature=0.1)
    expected = slow.dino(
        student,
        teacher,
        centre=centre.value,
        teacher_temperature=0.05,
        student_temperature=0.1,
        same=same,
    )
    tolerance = {"atol": DTYPES[dtype], "rtol": DTYPES[dtype]}
    torch.testing.assert_close(found, expected, **tolerance)
    gradients = [torch.autograd.grad(loss, student) for loss in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, **tolerance)


def test_uniform_answers_cost_ln_k():
    flat = torch.zeros(B, K)
    centre = dino.Centre(K, device=torch.device("cpu"))
    loss = dino.dino_loss([flat] * 3, centre.targets([flat] * 2, temperature=0.04), [(0, 1)])
    assert loss.item() == pytest.approx(math.log(K), abs=1e-5)


def test_half_precision_is_widened():
    student, teacher = cosines(0).bfloat16(), cosines(1).bfloat16()
    centre = dino.Centre(K, device=torch.device("cpu"))
    targets = centre.targets([teacher], temperature=0.04)
    assert targets[0].dtype == torch.float32
    wide = dino.dino_loss([student.float()], targets, [(0, 0)])
    assert torch.equal(dino.dino_loss([student], targets, [(0, 0)]), wide)
    torch.testing.assert_close(
        dino.sinkhorn(teacher, temperature=0.05), dino.sinkhorn(teacher.float(), temperature=0.05)
    )
    assert dino.koleo_loss(units(0).bfloat16()).dtype == torch.float32


def test_the_centre_is_the_running_mean_of_raw_answers():
    centre = dino.Centre(K, device=torch.device("cpu"), momentum=0.9)
    expected = torch.zeros(K)
    for step in range(3):
        views = [cosines(2 * step, dtype=torch.float32), cosines(2 * step + 1, dtype=torch.float32)]
        centre.update(views)
        expected = 0.9 * expected + 0.1 * torch.cat(views).mean(0)
    torch.testing.assert_close(centre.value, expected)


def test_the_mean_of_the_answers_is_the_centres_fixed_point():
    views = [cosines(0, dtype=torch.float32), cosines(1, dtype=torch.float32)]
    mean = torch.cat(views).mean(0)
    centre = dino.Centre(K, device=torch.device("cpu"))
    centre.value = mean.clone()
    centre.update(views)
    torch.testing.assert_close(centre.value, mean)
    for _ in range(200):
        centre.update([views[0]])
    torch.testing.assert_close(centre.value, views[0].mean(0))


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_sinkhorn_equals_the_loops(iterations):
    x = cosines(3)
    found = dino.sinkhorn(x, temperature=0.2, iterations=iterations)
    expected = torch.tensor(slow.sinkhorn(x, temperature=0.2, iterations=iterations)).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(B).double())
    if iterations == 50:
        torch.testing.assert_close(
            found.sum(0), torch.full((K,), B / K).double(), rtol=1e-3, atol=0
        )


def test_sinkhorn_spreads_rows_that_all_prefer_the_same():
    x = cosines(4, shape=(64, 16), dtype=torch.float32) * 0.2
    x[:, 3] += 0.8
    plain = (x / 0.05).softmax(1)
    spread = dino.sinkhorn(x, temperature=0.05)
    assert plain.sum(0).max() > 60
    assert spread.sum(0).max() < 6  # 4 would be equal
    assert (spread.sum(1) - 1).abs().max() < 1e-5


def test_sinkhorn_survives_a_small_temperature():
    found = dino.sinkhorn(cosines(5, dtype=torch.float32), temperature=0.02)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(B))


def test_infonce_equals_the_loops():
    student, teacher = units(0), units(1)
    found = dino.infonce_loss(student, teacher, temperature=0.2)
    torch.testing.assert_close(found, slow.infonce(student, teacher, temperature=0.2))
    same = units(2)[:1].expand(B, -1)
    assert dino.infonce_loss(same, same).item() == pytest.approx(math.log(B))


def test_the_coding_rate_equals_the_determinant():
    student, teacher = units(0), units(1)
    found = dino.coding_rate_loss(student, teacher)
    expected = slow.coding_rate(student, teacher, epsilon=dino.EPSILON)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    single = dino.coding_rate_loss(student.float(), teacher.float())
    assert single.item() == pytest.approx(expected.item(), abs=1e-5)


def test_rows_of_weight_zero_do_not_count():
    student, teacher = units(0).requires_grad_(), units(1)
    kept = torch.tensor([0, 2, 3])
    weight = torch.zeros(B, dtype=torch.float64)
    weight[kept] = 1
    found = dino.coding_rate_loss(student, teacher, weight)
    torch.testing.assert_close(found, dino.coding_rate_loss(student[kept], teacher[kept]))
    gradient = torch.autograd.grad(found, student)[0]
    assert (gradient[weight == 0] == 0).all()
    assert (gradient[kept].norm(dim=1) > 0).all()
    nobody = dino.coding_rate_loss(student, teacher, torch.zeros(B, dtype=torch.float64))
    assert nobody.item() == pytest.approx(0)


def test_the_coding_rate_rewards_agreement_and_spread():
    spread, heap = torch.eye(D), torch.eye(D)[:1].expand(D, -1)
    losses = [dino.coding_rate_loss(x, x).item() for x in (spread, heap)]
    assert losses[0] < losses[1] - 0.1
    # one row per axis is as spread as vectors can be: the bound of the docstring
    bound = -1 - (D + D) / (2 * D) * math.log(1 + 1 / dino.EPSILON)
    assert losses[0] == pytest.approx(bound, rel=1e-5)
    assert dino.coding_rate_loss(spread, -spread) > losses[0] + 1.9


def test_koleo_equals_the_loops():
    x = cosines(0, shape=(B, D)) * 3
    torch.testing.assert_close(dino.koleo_loss(x), slow.koleo(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(dino.koleo_loss(x), dino.koleo_loss(7 * x))
    assert dino.koleo_loss(torch.ones(4, 3)).isfinite()  # all the same


def test_gradients_are_those_of_the_values():
    student, teacher = units(0, shape=(4, 3)).requires_grad_(), units(1, shape=(4, 3))
    weight = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    targets = [torch.softmax(teacher * 3, 1)]
    for loss in (
        lambda x: dino.dino_loss([x, 2 * x], targets, [(0, 0), (0, 1)]),
        lambda x: dino.infonce_loss(x, teacher),
        lambda x: dino.coding_rate_loss(x, teacher, weight),
        dino.koleo_loss,
    ):
        assert torch.autograd.gradcheck(loss, student)


def test_what_is_no_number_gives_a_loss_that_is_no_number():
    dead = torch.full((B, D), math.nan)
    alive = units(0, dtype=torch.float32)
    assert dino.infonce_loss(dead, alive).isnan()
    assert dino.coding_rate_loss(dead, alive).isnan()
    assert dino.dino_loss([dead], [alive.softmax(1)], [(0, 0)]).isnan()
