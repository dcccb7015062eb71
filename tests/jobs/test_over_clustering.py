"""More clusters than classes, from photos to the score."""

import numpy as np
import pytest
from PIL import Image

from zerolabel.data.planted import plant
from zerolabel.errors import UsageError
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import Options
from zerolabel.jobs.run.model import load
from zerolabel.jobs.segment import segment
from zerolabel.ops.matching import nearest


def test_many_clusters_get_the_class_of_most_of_their_pixels(tmp_path):
    root = plant("camvid", tmp_path, images=4, size=(48, 64), splits=["val"])
    settings = {"k": 24, "size": (48, 64)}
    options = Options(method="kmeans", backbone="filterbank", split="val", settings=settings)
    segment(root, tmp_path / "run", options=options, overlays=False, report=False)
    many = evaluate(tmp_path / "run", root, protocol="over-clustering", split="val")
    single = evaluate(tmp_path / "run", root, protocol="full", split="val")
    assert many["clusters"] == 24
    assert many["pixel_accuracy"] > single["pixel_accuracy"]
    assert max(len(entry["clusters"]) for entry in many["per_class"]) > 1
    labels, masks = (
        np.concatenate([np.asarray(Image.open(path)).ravel() for path in sorted(folder.iterdir())])
        for folder in (root / "valannot", tmp_path / "run" / "masks")
    )
    for entry in many["matching"]:
        inside = labels[(masks == entry["cluster"]) & (labels != 11)]
        if len(inside):
            assert entry["class"] == np.bincount(inside).argmax()


def test_clusters_left_over_get_the_class_of_the_nearest_centre_or_vote(tmp_path):
    root = plant("camvid", tmp_path, images=4, size=(48, 64), splits=["val"])
    settings = {"k": 16, "size": (48, 64), "noise": "ignore", "minimum": 2}
    options = Options(backbone="filterbank", split="val", settings=settings)
    run = tmp_path / "run"
    segment(root, run, options=options, overlays=False, report=False)
    rules = ("datus", "datus-nearest", "datus-majority")
    found = {name: evaluate(run, root, protocol=name, split="val") for name in rules}
    classes = {
        name: [entry["class"] for entry in result["matching"]] for name, result in found.items()
    }
    assert None in classes["datus"]
    assert None not in classes["datus-nearest"]
    counts = np.array(found["datus"]["counts"])
    centres = load(run).method.arrays["centroids"].numpy()
    assert classes["datus-nearest"] == nearest(counts, centres).tolist()
    for one, other in zip(classes["datus"], classes["datus-nearest"], strict=True):
        assert one in (None, other)  # those that were matched keep their class
    votes = [int(column.argmax()) if column.any() else None for column in counts[:, :-1].T]
    assert classes["datus-majority"] == votes
    # all three leave pixels without a category out
    unlabelled = counts[:, -1].sum()
    assert unlabelled > 0
    right = sum(counts[c, k] for k, c in enumerate(votes) if c is not None)
    accuracy = right / (counts.sum() - unlabelled)
    assert found["datus-majority"]["pixel_accuracy"] == pytest.approx(accuracy)
    (run / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="masks made elsewhere have none"):
        evaluate(run, root, protocol="datus-nearest", split="val")
