"""MaskCLIP and MaskCLIP+ (Zhou et al., ECCV 2022): annotation-free segmentation.

Category k is class k, at the original size of the labels, background not scored. MaskCLIP learns
nothing: it looks at the images that it is scored on. MaskCLIP+ learns from images of the training
split, without labels. Both need CLIP ViT-B/16 (`zerolabel models get clip-vitb16`: MIT, 598 MB).
The student of MaskCLIP+ started from a ResNet-50 that knows ImageNet: name its file in the
environment variable ZEROLABEL_STUDENT, or it starts from random weights and no published number
stands beside it. The published code ran CLIP with another activation, epsilon and normalisation of
colours than CLIP was trained with: `legacy` does so, too.
None of these recipes was run with published weights. Expected numbers are mIoU in percent, from the
README of the original project unless something else is said. Its rows with residual networks of
CLIP have no recipe, as only the transformers are here; nor have those on corrupted images, and its
zero-shot tables, which need labels of the seen classes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote
from zerolabel.jobs.experiments.table import PREFERENCES

STUDENT = "ZEROLABEL_STUDENT"  # environment variable: a file with the residual network
CLIP = "clip-vitb16"
WORDS = "CLIP ViT-B/16"
LEGACY: dict[str, Any] = {"legacy": True}
IMAGES = {"voc": 1449, "context": 5105, "ade20k": 2000, "cityscapes": 500, "cocostuff": 5000}
VOC = Cell(
    data="voc",
    split="val",
    space="voc20",
    method="maskclip",
    preset="voc",
    backbone=CLIP,
    protocol="maskclip",
)
CONTEXT = replace(VOC, data="context", space="context59", preset="context")
ADE20K = replace(VOC, data="ade20k", space="ade150", preset="ade20k")
CITYSCAPES = replace(VOC, data="cityscapes", space="cityscapes19", preset="cityscapes")
COCO27 = replace(VOC, data="cocostuff", space="coco27", preset="coco27")
COCO171 = replace(COCO27, space="cocostuff171", settings={"classes": "cocostuff171"})
REFINEMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"smooth": 1.0},
    {"denoise": 0.5},
    {"smooth": 1.0, "denoise": 0.5},
)


def voc() -> Experiment:
    """MaskCLIP and MaskCLIP+ on the 1,449 images of PASCAL VOC 2012 val, 20 classes.

    Command: `zerolabel reproduce maskclip-voc DATA`. Time: not measured, and not run with
    published weights. MaskCLIP+ learns from the 10,582 images of `trainaug`.
    Expected: MaskCLIP 49.5; MaskCLIP+ 70.0, table II of ReCLIP++, whose authors ran the code.
    """
    cells = (*plain(VOC, _readme(VOC)), plus(VOC, "trainaug"))
    return Experiment(title="MaskCLIP on VOC", cells=cells)


def context() -> Experiment:
    """MaskCLIP and MaskCLIP+ on PASCAL Context val, 59 classes.

    Command: `zerolabel reproduce maskclip-context DATA`. Time: not measured, and not run with
    published weights.
    Expected: MaskCLIP 21.7, MaskCLIP+ 31.1.
    """
    cells = (*plain(CONTEXT, _readme(CONTEXT)), plus(CONTEXT))
    return Experiment(title="MaskCLIP on PASCAL Context", cells=cells)


def coco171() -> Experiment:
    """MaskCLIP and MaskCLIP+ on the 5,000 images of COCO-Stuff val, 171 classes.

    Command: `zerolabel reproduce maskclip-coco171 DATA`. Time: not measured, and not run with
    published weights.
    Expected: MaskCLIP 12.5, MaskCLIP+ 18.0.
    """
    quote = _readme(COCO171, "MaskCLIP+")
    pupil = replace(plus(COCO171), quote=quote if student() else None)
    return Experiment(
        title="MaskCLIP on COCO-Stuff 171", cells=(*plain(COCO171, _readme(COCO171)), pupil)
    )


def refinements() -> Experiment:
    """MaskCLIP on PASCAL Context and COCO-Stuff 171 val: key smoothing and prompt denoising.

    Command: `zerolabel reproduce maskclip-refinements DATA`. Time: not measured, and not run with
    published weights.
    Expected: without both 21.7 and 12.5; with them unknown, as the paper's table was not at hand.
    Thresholds are those that its configurations name.
    """
    cells = (
        replace(
            cell,
            settings={**cell.settings, **change},
            quote=None if change else _readme(cell),
        )
        for cell in (CONTEXT, COCO171)
        for change in REFINEMENTS
    )
    return Experiment(title="MaskCLIP, refinements", cells=tuple(cells))


def bias() -> Experiment:
    """MaskCLIP on VOC and PASCAL Context val: what CLIP prefers, figure 1 of ReCLIP++.

    Command: `zerolabel reproduce maskclip-bias DATA`. Time: not measured, and not run with
    published weights. The curve over distance and the confusion matrix are in
    `runs/*/bias-*.html` of its folder.
    Expected: class preference on PASCAL Context 0.29, space preference on VOC -0.50, table VII of
    ReCLIP++; how its curve is drawn is not known, so the latter can only be compared with others
    that were measured here (docs/bias.md).
    """
    cells = (cell for part in (VOC, CONTEXT) for cell in plain(part, _readme(part)))
    return Experiment(title="What CLIP prefers", cells=tuple(cells), metrics=("miou", *PREFERENCES))


def plain(cell: Cell, quote: Quote | None = None) -> tuple[Cell, Cell]:
    """MaskCLIP on a data set, with what CLIP was trained with and as the published code runs it."""
    first = replace(cell, quote=quote or _table2(cell, "MaskCLIP"))
    return first, replace(first, settings={**cell.settings, **LEGACY})


def plus(cell: Cell, train: str = "train", **settings: Any) -> Cell:
    """MaskCLIP+ on a data set, fitted on a split of it."""
    pupil = student()
    return replace(
        cell,
        method="maskclip+",
        train=train,
        settings={**cell.settings, **pupil, **settings},
        quote=_table2(cell, "MaskCLIP+") if pupil else None,
    )


def student() -> dict[str, Any]:
    """Where the residual network lies that students start from; nothing if the user names none."""
    path = os.environ.get(STUDENT, "")
    return {"student_weights": path} if path else {}


def _readme(cell: Cell, method: str = "MaskCLIP") -> Quote:
    return Quote("maskclip", "README", method, WORDS, images=IMAGES[cell.data])


def _table2(cell: Cell, method: str) -> Quote:
    return Quote("reclip++", "Table II", method, images=IMAGES[cell.data])
