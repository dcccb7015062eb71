import math

import pytest

from zerolabel.training.schedule import Cosine, Ramp


def test_a_cosine_meets_its_ends():
    schedule = Cosine(1.0, 0.1, warmup=10, start=0.2)
    assert schedule.at(0, 101) == 0.2
    assert schedule.at(5, 101) == pytest.approx(0.6)
    assert schedule.at(10, 101) == 1.0
    assert schedule.at(55, 101) == pytest.approx(0.55)  # half of the way
    assert schedule.at(100, 101) == pytest.approx(0.1)
    assert schedule.at(500, 101) == pytest.approx(0.1)
    values = [schedule.at(step, 101) for step in range(101)]
    assert values == sorted(values[:11]) + sorted(values[11:], reverse=True)
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2
    assert schedule.at(40, 101) == pytest.approx(quarter)


def test_a_cosine_without_warmup_starts_at_its_peak():
    assert Cosine(0.996, 1.0).at(0, 50) == pytest.approx(0.996)
    assert Cosine(0.996, 1.0).at(49, 50) == 1.0
    assert Cosine(3.0, 1.0).at(0, 1) == 3.0  # a run of one step
    assert Cosine(3.0, 1.0, warmup=5).at(7, 5) == 1.0  # shorter than its warm-up


def test_a_ramp_rises_and_stays():
    ramp = Ramp(0.04, 0.07, share=0.3)
    assert ramp.at(0, 100) == 0.04
    assert ramp.at(15, 100) == pytest.approx(0.055)
    assert ramp.at(30, 100) == ramp.at(99, 100) == pytest.approx(0.07)
    assert Ramp(0.04, 0.07, share=0.0).at(0, 100) == pytest.approx(0.07)
