"""On real streets and photos, with the backbone that comes along."""

import os
from pathlib import Path

import pytest

import zerolabel
from zerolabel.jobs.evaluate import evaluate

DATA = os.environ.get("ZEROLABEL_DATA")
# nothing that takes time is left to the preset
FEW = {"size": 128, "crop_size": 64, "betas": (0.5,), "windows": "paper", "restarts": 1}
FEW |= {"epochs": 10, "batch": 4, "lr": 1e-3, "start": 5, "intervals": (5,), "amp": "off"}
FEW |= {"repeat": 1, "zoom": 2.0, "apart": False, "train": "bootstrapped"}


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="needs ZEROLABEL_DATA")
@pytest.mark.parametrize(
    ("name", "options", "floor"),
    [
        ("camvid", {"k": 11, "prior": False, "stuff": 0, "background": "none"}, 0.15),
        # a network this small attends to everything a little, so hardly anything is quiet
        (
            "voc",
            {"k": 21, "prior": True, "stuff": 0, "background": "quiet", "betas": (0.5, 0.3)},
            0.04,
        ),
    ],
)
def test_real_images_are_told_apart(tmp_path, name, options, floor):
    root = Path(DATA) / name
    run = zerolabel.segment(
        root,
        tmp_path / "run",
        method="transfgu",
        preset="protocol",
        backbone="embedded",
        split="val:12",
        overlays=False,
        **FEW | options,
    )
    assert (run.images, run.failures, len(run.categories)) == (12, {}, options["k"])
    result = evaluate(run.path, root, split="val:12")
    assert result["miou"] > floor
    assert result["pixel_accuracy"] > 0.25
