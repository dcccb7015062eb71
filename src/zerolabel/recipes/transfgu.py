"""TransFGU (Yin et al., ECCV 2022): its tables, as far as they are about TransFGU itself.

Fitted on the training images and scored on others, as in the published code, whose choices the
presets hold. Crops are cut from images as the protocol shows them, enlarged, while the code cuts
them from the originals; and the last epoch is kept, while the code keeps the best by labels of the
images that are scored. None of these recipes was run with published weights. Expected numbers are
mIoU / pixel accuracy, percent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote

VITS8 = "DINO ViT-S/8"
COCO_IMAGES, CURATED, CITYSCAPES, VOC_IMAGES, LIP_IMAGES = 4952, 2175, 500, 1449, 10_000
COCO27 = Cell(
    data="cocostuff",
    split="val",
    train="train",
    space="coco27",
    geometry="transfgu",
    method="transfgu",
    preset="coco27",
    backbone="dino-vits8",
    protocol="transfgu",
)
COCO171 = replace(COCO27, space="cocostuff171", preset="coco171")
COCO80 = replace(COCO27, space="coco80", preset="coco80")
VOC = replace(COCO27, data="voc", space="voc21", preset="voc")
LIP5 = replace(COCO27, data="lip", space="lip5", preset="lip5")
LIP16 = replace(LIP5, space="lip16", preset="lip16")
LIP19 = replace(LIP5, space="lip19", preset="lip19")
BACKBONES = ("dino-vits8", "dino-vits16", "dino-vitb8", "dino-vitb16")
STAGES = ("initial", "trained", "bootstrapped")
LOSSES: tuple[tuple[str, dict[str, Any]], ...] = (  # empty: which of two numbers cannot be read
    ("TransFGU, loss CE", {"peer": False, "uncertainty": 0.0, "diversity": 0.0}),
    ("TransFGU, loss peer", {"uncertainty": 0.0, "diversity": 0.0}),
    ("", {"diversity": 0.0}),
    ("", {"uncertainty": 0.0}),
    ("TransFGU, loss peer + unc + div", {}),
)
STUDENTS: tuple[tuple[str, str, dict[str, Any]], ...] = (  # empty: other weights than published
    ("TransFGU, encoder None, decoder None", VITS8, {"train": "initial"}),
    ("", "", {"student": "r50-fpn-segmenter"}),
    ("TransFGU, encoder ViT+FPN, decoder classifier", "DINO ViT-S", {"student": "conv"}),
    ("", "", {"student": "r50-fpn-conv"}),
)


def coco27() -> Experiment:
    """TransFGU on COCO-Stuff val, 27 classes, all images.

    Command: `zerolabel reproduce transfgu-coco27 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 16.19 / 44.52, table 1; IIC 2.36 / 21.02, PiCIE 11.88 / 37.20. The code scores the
    4,952 images that have an instance.
    """
    # Table 1 has two rows of this name, so the one of table 3 is shown.
    quote = _quote("Table 3", "TransFGU, bootstrapped", COCO_IMAGES)
    return _one("TransFGU on COCO-Stuff 27", COCO27, quote)


def coco27_curated() -> Experiment:
    """TransFGU on the 2,175 curated images of COCO-Stuff val, 27 classes.

    Command: `zerolabel reproduce transfgu-coco27-curated DATA`. Time: not measured, and not run
    with published weights.
    Expected: 17.47 / 52.66, table 1; IIC 6.71 / 21.79, PiCIE 13.84 / 48.09.
    """
    cell = replace(COCO27, preset="coco27-curated", split="curated-val", train="curated-train")
    return _one("TransFGU on the curated images of COCO-Stuff 27", cell, None)


def coco171() -> Experiment:
    """TransFGU on COCO-Stuff val, 171 classes.

    Command: `zerolabel reproduce transfgu-coco171 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 11.93 / 34.32, table 1; IIC 0.64 / 8.67, PiCIE 4.56 / 24.66.
    """
    return _one("TransFGU on COCO-Stuff 171", COCO171, _table1(COCO_IMAGES))


def coco80() -> Experiment:
    """TransFGU on the 80 things of COCO val and a background.

    Command: `zerolabel reproduce transfgu-coco80 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 12.69 / 64.31, table 1; MaskContrast 3.73 / 8.81. The code takes the categories of
    things that its run with 171 found; here they are found anew, from the same crops.
    """
    return _one("TransFGU on COCO 80", COCO80, _table1(COCO_IMAGES))


def cityscapes() -> Experiment:
    """TransFGU on the 500 images of Cityscapes val, 27 classes.

    Command: `zerolabel reproduce transfgu-cityscapes DATA`. Time: not measured, and not run with
    published weights.
    Expected: 16.83 / 77.92, table 1; IIC 6.35 / 47.88.
    """
    cell = replace(COCO27, data="cityscapes", space="cityscapes27", preset="cityscapes")
    return _one("TransFGU on Cityscapes", cell, _table1(CITYSCAPES))


def voc() -> Experiment:
    """TransFGU on the 1,449 images of PASCAL VOC 2012 val, 20 classes and a background.

    Command: `zerolabel reproduce transfgu-voc DATA`. Time: not measured, and not run with
    published weights.
    Expected: 37.15 / 83.59, table 1; MaskContrast 35.00 / 79.84.
    """
    return _one("TransFGU on VOC", VOC, _table1(VOC_IMAGES))


def lip5() -> Experiment:
    """TransFGU on LIP val, 5 parts of people and a background.

    Command: `zerolabel reproduce transfgu-lip5 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 25.16 / 65.76, table 1.
    """
    return _one("TransFGU on LIP 5", LIP5, _table1(LIP_IMAGES))


def lip16() -> Experiment:
    """TransFGU on LIP val, 16 parts of people and a background.

    Command: `zerolabel reproduce transfgu-lip16 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 15.49 / 60.08, table 1.
    """
    return _one("TransFGU on LIP 16", LIP16, _table1(LIP_IMAGES))


def lip19() -> Experiment:
    """TransFGU on LIP val, 19 parts of people and a background.

    Command: `zerolabel reproduce transfgu-lip19 DATA`. Time: not measured, and not run with
    published weights.
    Expected: 12.24 / 42.52, table 1.
    """
    return _one("TransFGU on LIP 19", LIP19, _table1(LIP_IMAGES))


def granularity() -> Experiment:
    """TransFGU on LIP val, from 5 to 19 parts of people.

    Command: `zerolabel reproduce transfgu-granularity DATA`. Time: not measured, and not run with
    published weights.
    Expected: 25.16 / 65.76, 15.49 / 60.08 and 12.24 / 42.52, table 1: the finer, the harder.
    """
    cells = tuple(replace(cell, quote=_table1(LIP_IMAGES)) for cell in (LIP5, LIP16, LIP19))
    return Experiment(title="TransFGU on LIP, granularity", cells=cells)


def weights() -> Experiment:
    """TransFGU on COCO-Stuff 171 and VOC val, backbones of DINO of two sizes and patches.

    Command: `zerolabel reproduce transfgu-weights DATA`. Time: not measured, and not run with
    published weights.
    Expected: ViT-S/8 11.93 / 34.32 and 37.15 / 83.59, table 2; others are not published. Its other
    rows are other people's methods: with DINO ViT-S, PiCIE 3.02 / 18.45 on COCO-Stuff 171 and
    MaskContrast 31.24 / 79.18 on VOC.
    """
    cells = (
        replace(
            cell,
            backbone=name,
            quote=_quote("Table 2", "TransFGU†", images) if name == BACKBONES[0] else None,
        )
        for cell, images in ((COCO171, COCO_IMAGES), (VOC, VOC_IMAGES))
        for name in BACKBONES
    )
    return Experiment(title="TransFGU, backbones", cells=tuple(cells))


def rounds() -> Experiment:
    """TransFGU on COCO-Stuff val with 27, 171 and 80 classes: responses, a student, rounds of it.

    Command: `zerolabel reproduce transfgu-rounds DATA`. Time: not measured, and not run with
    published weights.
    Expected: mIoU 8.95, 13.19, 16.19 with 27 classes, 5.05, 8.66, 11.93 with 171 and 4.23, 8.28,
    12.69 with 80, table 3.
    """
    cells = (
        replace(
            cell,
            settings={"train": stage},
            quote=_quote("Table 3", f"TransFGU, {stage}", COCO_IMAGES),
        )
        for cell in (COCO27, COCO171, COCO80)
        for stage in STAGES
    )
    return Experiment(title="TransFGU, responses and what learns from them", cells=tuple(cells))


def students() -> Experiment:
    """TransFGU on COCO-Stuff val, 171 classes: no student, and four of them.

    Command: `zerolabel reproduce transfgu-students DATA`. Time: not measured, and not run with
    published weights.
    Expected: none 5.05 / 17.33; ResNet-50 with FPN 9.21 / 26.17 under the mask transformer and 8.33
    / 25.35 under convolutions; ViT under convolutions 7.96 / 24.17, table 4, and under the mask
    transformer 11.93 / 34.32. The residual network was DINO's; here it starts from random weights,
    so its numbers do not stand in the table: `zerolabel fit --set student_weights=FILE` takes a
    file. The convolutions are not described.
    """
    cells = [
        replace(
            COCO171,
            settings=change,
            quote=_quote("Table 4", method, COCO_IMAGES, name) if method else None,
        )
        for method, name, change in STUDENTS
    ]
    own = replace(COCO171, settings={"student": "segmenter"}, quote=_table1(COCO_IMAGES))
    return Experiment(title="TransFGU, students", cells=(*cells, own))


def losses() -> Experiment:
    """TransFGU on COCO-Stuff 171 and VOC val, its losses one after another.

    Command: `zerolabel reproduce transfgu-losses DATA`. Time: not measured, and not run with
    published weights.
    Expected: cross-entropy 10.49 / 29.72 and 34.24 / 79.85; less agreement with wrong labels 10.54
    / 30.46 and 35.08 / 80.92; all 11.93 / 34.32 and 37.15 / 83.59, table 5. It has 11.24 / 33.03
    and 10.96 / 32.45, and 36.46 / 82.36 and 35.97 / 82.03, too, with uncertainty or diversity
    besides: which is which could not be read.
    """
    cells = (
        replace(
            cell,
            settings=change,
            quote=_quote("Table 5", method, images) if method else None,
        )
        for cell, images in ((COCO171, COCO_IMAGES), (VOC, VOC_IMAGES))
        for method, change in LOSSES
    )
    return Experiment(title="TransFGU, losses", cells=tuple(cells))


def selection() -> Experiment:
    """TransFGU on VOC val: the last epoch, and the one that labels of the training images choose.

    Command: `zerolabel reproduce transfgu-selection DATA`. Time: not measured, and not run with
    published weights.
    Expected: 37.15 / 83.59, table 1, for an epoch that the labels of val itself chose. How much
    that gives is not known.
    """
    cells = (
        replace(VOC, settings={"select": name}, quote=_table1(VOC_IMAGES))
        for name in ("last", "labels")
    )
    return Experiment(title="TransFGU, which epoch is kept", cells=tuple(cells))


def _one(title: str, cell: Cell, quote: Quote | None) -> Experiment:
    return Experiment(title=title, cells=(replace(cell, quote=quote),))


def _table1(images: int) -> Quote:
    return _quote("Table 1", "TransFGU", images)


def _quote(table: str, method: str, images: int, backbone: str = VITS8) -> Quote:
    return Quote("transfgu", table, method, backbone, images=images)
