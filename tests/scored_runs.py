"""Tiny runs and data sets with known labels, for the tests of whatever scores masks."""

import json

import numpy as np
from PIL import Image

TRUTH = {
    "a": [[0, 0, 0, 0], [0, 0, 0, 1], [2, 2, 1, 1]],
    "deep/b": [[0, 0, 255, 255], [1, 1, 1, 2], [2, 2, 2, 255]],
}
# categories 0, 1, 2 stand for classes 2, 0, 1; some pixels are wrong, some have none
PREDICTED = {
    "a": [[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 2, 255]],
    "deep/b": [[1, 0, 0, 1], [2, 2, 2, 0], [0, 0, 1, 1]],
}


def save(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(ids, np.uint8)).save(path)


def write_data(root):
    """Write TRUTH as a folder of images and masks with three named classes."""
    for name, ids in TRUTH.items():
        save(root / "masks" / f"{name}.png", ids)
        path = root / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


def write_run(run, predicted, *, categories=3):
    """Write masks as a run that does not say how it was made."""
    for name, ids in predicted.items():
        save(run / "masks" / f"{name}.png", ids)
    listed = [{"id": k, "name": f"category {k}"} for k in range(categories)]
    (run / "categories.json").write_text(json.dumps({"categories": listed}))
    return run


def says(run, **config):
    """Let a run say how it was made."""
    job = {"method": "kmeans", "backbone": "filterbank", "config": config}
    (run / "run.json").write_text(json.dumps({"zerolabel": "1", "job": job}))
    return run
