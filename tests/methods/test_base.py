from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from zerolabel.data.folder import from_arrays
from zerolabel.errors import UsageError
from zerolabel.methods import METHODS, find
from zerolabel.methods.base import Method, class_names, sample_rows


@pytest.mark.parametrize("name", METHODS)
def test_the_registry_holds_methods_under_their_names(name):
    kind = find(name)
    assert issubclass(kind, Method)
    assert kind.name == name
    assert {"default", "protocol"} <= set(kind.PRESETS)


@pytest.mark.parametrize("count", [1, 7, 19, 20, 30])
def test_sampled_rows_are_a_subset_in_order(count):
    x = torch.arange(20.0)[:, None]
    rows = sample_rows(x, count, seed=0)[:, 0].tolist()
    assert len(rows) == min(count, 20)
    assert rows == sorted(set(rows))
    assert torch.equal(sample_rows(x, count, seed=0)[:, 0], torch.tensor(rows))


def test_another_seed_samples_other_rows():
    x = torch.arange(100.0)[:, None]
    drawn = {tuple(sample_rows(x, 10, seed=seed)[:, 0].tolist()) for seed in range(5)}
    assert len(drawn) == 5
    shares = torch.stack([sample_rows(x, 50, seed=s).mean() for s in range(40)])
    assert abs(float(shares.mean()) - 49.5) < 3


def test_class_names_come_from_the_samples_that_know_them():
    bare = from_arrays("a", np.zeros((2, 2, 3), np.uint8))
    assert class_names([]) == class_names([bare]) == ()
    named = replace(bare, classes=("road", "sky"))
    assert class_names([bare, named, replace(named, id="b")]) == ("road", "sky")
    with pytest.raises(UsageError, match="found 2 lists of them: road, sea, ... and road, sky"):
        class_names([named, replace(bare, classes=("road", "sea"))])
