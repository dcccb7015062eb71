"""Two processes that share a batch learn what one learns from all of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import one_of_many
import pytest
import torch

from zerolabel.errors import UsageError
from zerolabel.training import distributed

HERE = Path(__file__).parent


def together(path, world=2):
    """Start the processes as torchrun would, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
    }
    started = [
        subprocess.Popen(
            [sys.executable, one_of_many.__file__, str(path)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    return torch.load(path)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    two = together(tmp_path_factory.mktemp("group") / "two.pt")
    return one_of_many.train_all(), two


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_many.SETTINGS)
def test_two_processes_learn_as_one(both, name):
    one, two = (found[name] for found in both)
    torch.testing.assert_close(two["losses"], one["losses"], atol=1e-5, rtol=1e-5)
    for own, other in zip(two["centres"], one["centres"], strict=True):
        torch.testing.assert_close(own, other, atol=1e-6, rtol=0)
    for key, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, atol=1e-5, rtol=0, msg=key)
    assert one["moved"] > 1e-4


@pytest.mark.slow
def test_processes_agree_on_the_clock_of_the_first(both):
    assert both[1]["agreed"] == 0.25


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    device = torch.device("cpu")
    assert distributed.start(device) == device
    assert (distributed.rank(), distributed.world()) == (0, 1)
    x = torch.ones(2, requires_grad=True)
    for fn in (distributed.total, distributed.gather):
        assert not fn(x).requires_grad
    assert distributed.total_with_gradient(x) is x
    assert distributed.agree(1.5) == 1.5
    distributed.stop()  # there is nothing to leave


def test_more_processes_than_gpus_are_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UsageError, match="Process 1 has no GPU of its own: 1 found. Start torchrun"
    ):
        distributed.start(torch.device("cuda"))
