"""Clusters that are matched on the split train, by masks of the same model there."""

import json

import numpy as np
import pytest
from scored_runs import write_run

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.jobs.evaluate import evaluate

C = 11


@pytest.fixture
def data(tmp_path):
    plant("camvid", tmp_path / "data", images=3)
    return tmp_path / "data"


def masks(data, split, *, turn):
    """Masks that are right but for their ids: class c is category (c + turn) mod C."""
    samples = open_dataset(data, split=split).samples
    labels = {s.id.rpartition(".")[0]: s.load_label().astype(int) for s in samples}
    return {k: np.where(ids < C, (ids + turn) % C, 255) for k, ids in labels.items()}


def test_the_split_train_decides(tmp_path, data):
    run = write_run(tmp_path / "val", masks(data, "val", turn=2), categories=C)
    train = write_run(tmp_path / "train", masks(data, "train", turn=2), categories=C)
    result = evaluate(run, data, protocol="full-train", matching_run=train)
    assert result["pixel_accuracy"] == 1
    assert (result["split"], result["matched_on"]["split"]) == ("val", "train")
    assert (result["images"], result["matched_on"]["images"]) == (3, 3)
    # where train says otherwise, what is right on val no longer counts
    other = write_run(tmp_path / "other", masks(data, "train", turn=5), categories=C)
    assert evaluate(run, data, protocol="full-train", matching_run=other)["pixel_accuracy"] < 0.5
    assert evaluate(run, data)["pixel_accuracy"] == 1


def test_it_is_asked_for(tmp_path, data):
    run = write_run(tmp_path / "val", masks(data, "val", turn=2), categories=C)
    with pytest.raises(UsageError, match=r"--matching-run.*zerolabel predict .* --split train"):
        evaluate(run, data, protocol="full-train")
    with pytest.raises(UsageError, match="matches on the split it scores"):
        evaluate(run, data, matching_run=run)
    with pytest.raises(UsageError, match="Score another with --split"):
        evaluate(run, data, protocol="full-train", split="train", matching_run=run)


def test_it_must_be_of_the_same_model(tmp_path, data):
    run = write_run(tmp_path / "val", masks(data, "val", turn=2), categories=C)
    train = write_run(tmp_path / "train", masks(data, "train", turn=2), categories=C + 1)
    with pytest.raises(UsageError, match="expected its 11 categories, found 12 of another fit"):
        evaluate(run, data, protocol="full-train", matching_run=train)
    train = write_run(tmp_path / "train", masks(data, "train", turn=2), categories=C)
    for place in (run, train):
        (place / "model.json").write_text(json.dumps({"tensors": place.name}))
    with pytest.raises(UsageError, match="of another fit"):
        evaluate(run, data, protocol="full-train", matching_run=train)
