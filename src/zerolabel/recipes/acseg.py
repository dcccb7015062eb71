"""ACSeg (Li et al., CVPR 2023): the numbers known of its tables, and its ablations.

The generator and the clusters are found on `train`, and other images are scored: the paper trains
on images of VOC train, and does not say where its regions are clustered. None of these recipes was
run with published weights. All expected numbers are from a digest of the paper; its tables were not
at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote

SEEDS, FEWER = range(5), range(3)
VOC = Cell(
    data="voc",
    split="val",
    train="train",
    space="voc21",
    method="acseg",
    preset="voc",
    backbone="dino-vits16",
    settings={"k": 21},
)
COCO = replace(
    VOC,
    data="cocostuff",
    split="curated-val",
    train="curated-train",
    space="coco27",
    preset="coco",
    settings={"k": 27},
)
CHANGES: tuple[dict[str, Any], ...] = (  # from the preset, one at a time
    {},
    {"fill": "none"},
    {"fill": "black"},
    {"describe": "masked-cls"},
    {"describe": "concept"},
    {"describe": "pool"},
    {"background": "border"},
    {"background": "none"},
    {"importance": "received"},
    {"area": "mean"},
    {"grouping": "dataset"},
)
GROUPS = 5  # per image, for what is told how many: as many as there are concepts
DISCOVER: tuple[dict[str, Any], ...] = (
    {"discover": "concepts"},
    {"discover": "kmeans", "segments": GROUPS},
    {"discover": "spectral", "segments": GROUPS},
    {"discover": "affinity-propagation"},  # finds their number
    {"discover": "agglomerative", "segments": GROUPS},
)


def voc() -> Experiment:
    """ACSeg on the 1,449 images of PASCAL VOC 2012 val, 20 clusters and a background, five seeds.

    Command: `zerolabel reproduce acseg-voc DATA`. Time: not measured, and not run with published
    weights.
    Expected: 47.1 +- 2.4 mIoU, no retraining; a digest of the paper. Two re-implementations say of
    themselves that they fall short: 21.7 mIoU in one, no number in the other.
    """
    cell = replace(VOC, quote=Quote("acseg", "", "ACSeg", images=1449))
    return Experiment(title="ACSeg on VOC", cells=_seeded([cell], SEEDS))


def coco() -> Experiment:
    """ACSeg on the 2,175 curated images of COCO-Stuff val, 27 classes, five seeds.

    Command: `zerolabel reproduce acseg-coco DATA`. Time: not measured, and not run with published
    weights.
    Expected: 16.4 +- 0.9 mIoU; a digest of the paper. Which training images it used is not known;
    here it is the curated list.
    """
    cell = replace(COCO, quote=Quote("acseg", "", "ACSeg", images=2175))
    return Experiment(title="ACSeg on COCO-Stuff 27", cells=_seeded([cell], SEEDS))


def voc_retrieval() -> Experiment:
    """ACSeg's regions on VOC val, named by the 1 and 5 nearest regions of train, three seeds.

    Command: `zerolabel reproduce acseg-voc-retrieval DATA`. Time: not measured, and not run with
    published weights.
    Expected: concepts 57.8 and 61.0, k-means of every image 45.1 and 49.1, spectral clustering 43.0
    and 47.3; a digest of the paper, which does not name the metric, so that they do not stand in
    the table. The labels of train name the regions: no score without labels.
    """
    cells = (
        replace(
            VOC,
            settings={**found, "classify": "retrieve", "neighbours": neighbours},
            protocol="classes",
        )
        for found in DISCOVER[:3]
        for neighbours in (1, 5)
    )
    return Experiment(title="ACSeg on VOC, regions retrieved", cells=_seeded(cells, FEWER))


def text() -> Experiment:
    """ACSeg's regions, named by words through CLIP, on VOC val and COCO-Stuff 27, three seeds.

    Command: `zerolabel reproduce acseg-text DATA`. Time: not measured, and not run with published
    weights.
    Expected: 53.9 mIoU on VOC and 28.1 on COCO-Stuff; a digest of the paper, which names neither
    the CLIP nor its prompts; here these are ViT-B/16 and the 85 of MaskCLIP. CLIP learned from
    captions: this is no score without labels, and stands apart.
    """
    cells = (
        replace(
            cell,
            settings={"classify": "text", "classes": words},
            protocol="classes",
            quote=Quote("acseg", "Table 4", "ACSeg + text", images=images),
        )
        for cell, words, images in ((VOC, "voc20", 1449), (COCO, "coco27", 2175))
    )
    return Experiment(title="ACSeg, regions named by text", cells=_seeded(cells, FEWER))


def prototypes() -> Experiment:
    """ACSeg on VOC val with 2 to 8 prototypes, three seeds.

    Command: `zerolabel reproduce acseg-prototypes DATA`. Time: not measured, and not run with
    published weights.
    Expected: 5 best; with 2 a sharp drop, foreground and background only; from 7 on images fall
    into too many parts; a digest of the paper, no numbers.
    """
    cells = (replace(VOC, settings={**VOC.settings, "concepts": n}) for n in range(2, 9))
    return Experiment(title="ACSeg on VOC, prototypes", cells=_seeded(cells, FEWER), x="concepts")


def classifiers() -> Experiment:
    """ACSeg on VOC val, how regions are described and the background is told, three seeds.

    Command: `zerolabel reproduce acseg-classifiers DATA`. Time: not measured, and not run with
    published weights.
    Expected: no number of the paper's is known. A re-implementation that falls short of it has 21.7
    mIoU where crops keep their surroundings, 9.0 where those are black and 9.07 with the concepts
    themselves.
    """
    cells = (replace(VOC, settings={**VOC.settings, **change}) for change in CHANGES)
    return Experiment(title="ACSeg on VOC, classifiers", cells=_seeded(cells, FEWER))


def baselines() -> Experiment:
    """ACSeg on VOC val, its concepts beside four clusterings of every image, three seeds.

    Command: `zerolabel reproduce acseg-baselines DATA`. Time: not measured, and not run with
    published weights.
    Expected: concepts best; a digest of the paper, with numbers for retrieval only. Regions were
    found in 149.2 images a second with concepts, 2.4 with k-means, 3.4 with spectral clustering and
    6.8 with affinity propagation, on a machine that it does not name.
    """
    cells = (replace(VOC, settings={**VOC.settings, **found}) for found in DISCOVER)
    return Experiment(title="ACSeg on VOC, how regions are found", cells=_seeded(cells, FEWER))


def _seeded(cells: Iterable[Cell], seeds: Iterable[int]) -> tuple[Cell, ...]:
    return tuple(replace(cell, seed=seed) for cell in cells for seed in seeds)
