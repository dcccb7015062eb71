import math

import pytest
import torch

from zerolabel.training.monitors import (
    FEW,
    PATIENCE,
    CollapseError,
    Watch,
    measure,
    measure_targets,
)

HEALTHY = {"loss": 3.0, "image": 3.0, "image_cosine": 0.3, "patch_cosine": 0.4, "used": 0.6}
K = 64
BAD = {
    "images": ({"image_cosine": 0.97}, "all images look the same"),
    "patches": ({"patch_cosine": 0.95}, "all patches look the same"),
    "uniform": ({"image": math.log(K) + 5e-4}, "uniform answers"),
    "prototypes": ({"used": FEW / 2}, "1.0% of the prototypes"),
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mean_cosine(rows):
    z = rows / rows.norm(dim=-1, keepdim=True)
    pairs = [z[i] @ z[j] for i in range(len(z)) for j in range(len(z)) if i != j]
    return float(sum(pairs) / len(pairs))


def test_cosines_and_norms_equal_the_loops():
    cls, tokens = random(5, 7) + 1, random(5, 2, 3, 7, seed=1) + 0.5
    found = measure(cls, tokens)
    assert found["image_cosine"] == pytest.approx(mean_cosine(cls), abs=1e-5)
    each = [mean_cosine(x.flatten(0, 1)) for x in tokens]
    assert found["patch_cosine"] == pytest.approx(sum(each) / 5, abs=1e-5)
    norms = tokens.norm(dim=-1)
    assert found["norm_ratio"] == pytest.approx(float(norms.max() / norms.median()))


def test_the_rank_counts_directions():
    tokens = random(32, 2, 2, 16)
    assert measure(random(4000, 16), random(2, 2, 2, 16))["rank"] > 0.98
    line = random(32, 1) * random(1, 16, seed=1)
    assert measure(line, tokens)["rank"] == pytest.approx(1 / 16, abs=0.01)
    same = random(1, 16).expand(32, -1)
    assert measure(same, tokens)["image_cosine"] == pytest.approx(1)


def test_targets_are_measured():
    sure = torch.eye(K)[:8]
    assert measure_targets(sure) == pytest.approx({"entropy": 0, "used": 1}, abs=1e-4)
    flat = torch.full((8, K), 1 / K)
    assert measure_targets(flat) == pytest.approx({"entropy": math.log(K), "used": 1 / 8}, abs=1e-4)
    one = torch.eye(K)[:1].expand(200, -1)
    assert measure_targets(one)["used"] == pytest.approx(1 / K)


@pytest.mark.parametrize("kind", BAD)
def test_a_collapse_ends_the_run_after_a_while(kind):
    changes, reason = BAD[kind]
    watch = Watch(prototypes=K, warmup=100)
    for step in range(0, 100, 10):  # nothing is judged yet
        watch.look(step, {**HEALTHY, **changes})
    for step in range(PATIENCE - 1):
        watch.look(100 + step, {**HEALTHY, **changes})
    with pytest.raises(CollapseError, match=f"collapsed at step 200: .*{reason}"):
        watch.look(200, {**HEALTHY, **changes})


@pytest.mark.parametrize("kind", BAD)
def test_a_run_that_recovers_goes_on(kind):
    watch = Watch(prototypes=K)
    for step in range(5 * PATIENCE):
        watch.look(step, {**HEALTHY, **(BAD[kind][0] if (step + 1) % PATIENCE else {})})


def test_healthy_values_never_end_a_run():
    watch = Watch(prototypes=K)
    for step in range(5 * PATIENCE):
        watch.look(step, HEALTHY)
    assert watch.bad == 0


def test_other_objectives_know_no_uniform_answers():
    watch = Watch()
    for step in range(5 * PATIENCE):
        watch.look(step, {**HEALTHY, "image": 0.0, "used": 0.0})


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_no_number_ends_the_run_at_once(loss):
    with pytest.raises(CollapseError, match="loss is .* at step 3. Lower --lr"):
        Watch(warmup=100).look(3, {**HEALTHY, "loss": loss})


def test_a_dead_network_can_still_be_measured():
    found = measure(torch.full((4, 8), math.nan), torch.full((4, 2, 2, 8), math.nan))
    assert math.isnan(found["image_cosine"])
