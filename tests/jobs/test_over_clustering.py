"""More clusters than classes, from photos to the score."""

import numpy as np
from PIL import Image

from zerolabel.data.planted import plant
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.fit import Options
from zerolabel.jobs.segment import segment


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
