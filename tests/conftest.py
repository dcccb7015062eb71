"""One thread: tests work on small tensors, and threads of a busy machine wait for each other."""

import os
import signal
from functools import partial

import pytest

from zerolabel import backbones

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, also by subprocesses
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Files with slow tests first: what is begun last should be short, or one core waits for it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _filterbank_unless_named():
    """Tests that name no backbone use the quick one; tests/backbones/test_auto.py has "auto"."""

    def choose(name, *, weights=None):
        return ("filterbank" if name == backbones.AUTO else name), ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "choose", choose)
        yield


@pytest.fixture(scope="module")
def small_worlds():
    """Small worlds need no second thread and few patches to learn from; no plug is pulled here."""
    import torch

    from zerolabel.backbones import filterbank

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(filterbank, "Config", partial(filterbank.Config, patches=2000))
        yield
    torch.set_num_threads(before)
