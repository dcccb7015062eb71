"""DatUS2 (Kumar et al., arXiv 2401.12820): the paper's tables, before and after its student.

Clusters are found on the images that are scored, as the published code does, and the student learns
their masks. The paper's final scores come after a DeepLabV3 (stage F), of which neither code nor
settings are published: here it has those of the student `deeplabv3` (docs/refine.md), and starts
from random weights unless the environment variable ZEROLABEL_STUDENT names a file with a residual
network. Ablations are in `recipes/datus_ablations.py`.
None of these recipes was run with published weights.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote

METRICS = ("miou", "pixel_accuracy", "mf1")
STUDENT = "ZEROLABEL_STUDENT"  # environment variable: a file with the student's residual network
CROPS = "ZEROLABEL_CROPS"  # another: the network that describes crops
MOCO = "moco_v2_800ep_pretrain.pth.tar"  # which is looked for here otherwise
SUIM = Cell(
    data="suim",
    split="test",
    space="suim6",
    method="datus",
    preset="paper",
    backbone="dino-vitb8",
    settings={"k": 6},
    protocol="datus",
)
COCO = replace(SUIM, data="cocostuff", split="curated-val", space="coco27", settings={"k": 27})


def suim() -> Experiment:
    """DatUS2 on the 110 test images of SUIM, 6, 8 and 5 classes, before and after its student.

    Command: `zerolabel reproduce datus-suim DATA`. Time: not measured.
    Expected: 28.48 mIoU, 64.67 pixel accuracy, 39.52 mF1 with 6 classes after the student; from a
    table of its successor GraPix. 8 and 5 classes: no number.
    """
    spaces = {"suim6": 6, "suim8": 8, "suim5": 5}
    own = Quote("grapix", "Table 1", "DatUS", images=110)
    cells = (
        cell
        for space, k in spaces.items()
        for cell in _before_and_after(
            replace(SUIM, space=space, settings={"k": k}), own if space == "suim6" else None
        )
    )
    return Experiment(title="DatUS2 on SUIM", cells=tuple(cells), metrics=METRICS)


def suim_train() -> Experiment:
    """DatUS2, initial masks of the 1,525 training images of SUIM, DINO and DINOv2.

    Command: `zerolabel reproduce datus-suim-train DATA`. Time: not measured.
    Expected: DINOv2 24.90 mIoU and 36.3 mF1, DINO 62.18 pixel accuracy, each the best of the
    backbones that the paper compares; abstract of the journal version. Of the segments 25 to 30 %
    are valid (summary of the paper).
    """
    name = "DatUS2, initial masks"
    rows = (("dino-vitb8", "DINO"), ("dinov2-vitb14", "DINOv2"))
    cells = (
        replace(SUIM, split="train", backbone=b, quote=Quote("datus2", "abstract", name, q, 1525))
        for b, q in rows
    )
    return Experiment(
        title="DatUS2, initial masks on SUIM train",
        cells=tuple(cells),
        metrics=(*METRICS, "valid_share"),
    )


def suim_patches() -> Experiment:
    """DatUS2 on SUIM, initial masks: patches of 8, 14 and 16 pixels, two sizes of backbone.

    Command: `zerolabel reproduce datus-suim-patches DATA`. Time: not measured.
    Expected: smaller patches score higher in every metric (seen in the paper, numbers not known);
    the best ones keep 25 to 30 % of the segments as valid. Mugs, BEiT and Unicom, which the paper
    compares, too, are not here: their files load by `--weights`, one recipe's backbone at a time.
    """
    names = ("dino-vits8", "dinov2-vits14", "dino-vits16", "dino-vitb8", "dinov2-vitb14")
    cells = tuple(replace(SUIM, backbone=name) for name in (*names, "dino-vitb16"))
    return Experiment(
        title="DatUS2 on SUIM, size of the patches",
        cells=cells,
        metrics=(*METRICS, "valid_share"),
    )


def suim_crops() -> Experiment:
    """DatUS2 on SUIM, initial masks: crops described by the transformer and by MoCo's ResNet-50.

    Command: `zerolabel reproduce datus-suim-crops DATA`. Time: not measured. The variable
    ZEROLABEL_CROPS names the file of MoCo v2; moco_v2_800ep_pretrain.pth.tar in the current folder
    without it.
    Expected: the transformer is better (seen in the paper, numbers not known). Colours of the
    residual network are normalised as ImageNet's, and as the published code does it on SUIM.
    """
    cnn = {"crop_encoder": "resnet", "crop_weights": os.environ.get(CROPS) or MOCO}
    changes: tuple[dict[str, Any], ...] = ({}, cnn, {**cnn, "crop_norm": "suim"})
    cells = tuple(replace(SUIM, settings={**SUIM.settings, **change}) for change in changes)
    return Experiment(title="DatUS2 on SUIM, who describes crops", cells=cells, metrics=METRICS)


def coco() -> Experiment:
    """DatUS2 on the 2,175 curated images of COCO-Stuff val, before and after its student.

    Command: `zerolabel reproduce datus-coco DATA`. Time: not measured.
    Expected: 14.45 mIoU, 25.05 pixel accuracy after the student (summary of the paper; a copy of a
    leader board has 15.97 mIoU), 27 classes.
    """
    cells = _before_and_after(COCO, Quote("datus2", "", "DatUS2", images=2175))
    return Experiment(title="DatUS2 on COCO-Stuff 27", cells=cells, metrics=METRICS)


def light() -> Experiment:
    """DatUS2 on small data, its masks before and after the light student, three seeds.

    Command: `zerolabel reproduce datus-light DATA`, DATA holding CamVid and PASCAL VOC 2012 in
    folders of any name; no download. Time: with one core 10 minutes a row and seed.
    Expected: docs/methods/deeplab.md; nothing of it is published elsewhere. Both are enlarged
    bilinearly, so that no edge of a photo helps either.
    """
    data = (("camvid", "val", "camvid11", 11), ("voc", "val", "voc21", 21))
    cells = []
    for name, split, space, k in data:
        cell = Cell(data=name, split=split, space=space, method="datus", settings={"k": k})
        cell = replace(cell, preset="protocol", backbone="embedded")
        refined = replace(cell, student="light", student_settings={"refine": "bilinear"})
        cells += [replace(c, seed=seed) for c in (cell, refined) for seed in range(3)]
    return Experiment(title="DatUS2 and the light student", cells=tuple(cells))


def taught(cell: Cell, quote: Quote | None = None) -> Cell:
    """The whole pipeline: the masks of a cell, refined by the student."""
    body = os.environ.get(STUDENT, "")
    settings = {"start": body} if body else {}
    return replace(cell, student="deeplabv3", student_settings=settings, quote=quote)


def _before_and_after(cell: Cell, quote: Quote | None) -> tuple[Cell, Cell]:
    """Initial masks, and those of the student, which is what the paper scores."""
    return cell, taught(cell, quote)
