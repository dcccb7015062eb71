"""One thread: tests work on small tensors, and threads of a busy machine wait for each other."""

import os

import pytest

from zerolabel import backbones

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, also by subprocesses


@pytest.fixture(autouse=True, scope="session")
def _filterbank_unless_named():
    """Tests that name no backbone use the quick one; tests/backbones/test_auto.py has "auto"."""

    def choose(name, *, weights=None):
        return ("filterbank" if name == backbones.AUTO else name), ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "choose", choose)
        yield
