from dataclasses import replace

import pytest
import torch

from zerolabel.data.pool import Pool
from zerolabel.training import distributed
from zerolabel.training.config import Pretrain
from zerolabel.training.sampling import EPOCHS, plan, seed_of, take

CONFIG = Pretrain(batch=8)


def pool(count):
    """Images that are their own number."""
    images = torch.arange(count).byte()[:, None, None, None].expand(-1, 3, 2, 2)
    return Pool("planted", images, "0", {})


def numbers(images):
    return images[:, 0, 0, 0].tolist()


def as_process(monkeypatch, rank, world):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world", lambda: world)


@pytest.mark.parametrize("shares", [[1], [1, 1], [3, 1], [5, 2, 1], [1, 7]])
def test_sources_are_spread_over_the_cycle(shares):
    order = plan(shares)
    assert [order.count(i) for i in range(len(shares))] == shares
    for i, share in enumerate(shares):  # nowhere more than one step ahead of or behind its share
        for n in range(1, len(order) + 1):
            assert abs(order[:n].count(i) - n * share / len(order)) <= 1


@pytest.mark.parametrize("count", [32, 35])
def test_an_image_comes_once_in_an_epoch(count):
    source, batches = pool(count), count // 8
    epochs = [
        [n for turn in range(batches) for n in numbers(take(source, e * batches + turn, CONFIG))]
        for e in range(3)
    ]
    for seen in epochs:
        assert len(set(seen)) == len(seen) == batches * 8
        if count == 32:
            assert sorted(seen) == list(range(32))
    assert epochs[0] != epochs[1]
    assert set().union(*map(set, epochs)) == set(range(count))  # nothing is always left out


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_a_batch(monkeypatch, world):
    source = pool(32)
    for turn in (0, 5):
        whole = numbers(take(source, turn, CONFIG))
        parts = []
        for rank in range(world):
            with monkeypatch.context() as patch:
                as_process(patch, rank, world)
                parts.append(numbers(take(source, turn, CONFIG)))
        assert [len(part) for part in parts] == [8 // world] * world
        assert sum(parts, []) == whole


def test_the_seed_decides_also_on_the_cpu():
    source = pool(32)
    assert numbers(take(source, 0, CONFIG)) == numbers(take(source, 0, CONFIG))
    assert numbers(take(source, 0, CONFIG)) != numbers(take(source, 0, replace(CONFIG, seed=1)))


def test_no_two_generators_of_a_run_are_alike():
    for seed in (0, 1, 12345):
        found = [seed_of(seed, n) for n in (*range(1000), *range(EPOCHS, EPOCHS + 1000))]
        assert len(set(found)) == 2000
        assert all(0 <= x < 2**32 for x in found)
    # neighbouring seeds do not run through each other's steps
    assert not {seed_of(0, n) for n in range(10**5)} & {seed_of(1, n) for n in range(10**5)}
    draws = {
        tuple(torch.rand(3, generator=torch.Generator().manual_seed(seed_of(seed, 7))).tolist())
        for seed in range(20)
    }
    assert len(draws) == 20
