"""On real streets, with the backbone that comes along and true labels."""

import os
from pathlib import Path

import numpy as np
import pytest
from planted import fitted

from zerolabel.backbones import load
from zerolabel.data.benchmarks import open_dataset
from zerolabel.evaluation.confusion import Confusion
from zerolabel.jobs.run.model import Model

DATA = os.environ.get("ZEROLABEL_DATA")
FEW = {"short": 120, "crop": 96, "window": 120, "stride": 120, "batch": 4, "iterations": 150}


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")
def test_real_streets_are_learned():
    def streets(split):
        return list(open_dataset(Path(DATA) / "camvid", split=split).samples)

    made, store = fitted(
        "segmenter", streets("train:60"), backbone=load("embedded"), preset="protocol", **FEW
    )
    assert made.names()[0] == "sky"
    model, fresh = Model(made), streets("val:12")
    found, _ = made.evidence(fresh, store=store)
    counts = Confusion(made.k, made.k)
    for sample, evidence in found:
        counts.add(sample.load_label(), model.label_map(evidence, sample.load()))
    table = counts.counts[:, : made.k]  # classes x categories, which are the classes
    right, largest = np.trace(table) / table.sum(), table.sum(1).max() / table.sum()
    assert right > 0.5
    assert right > largest + 0.15  # than one category everywhere
