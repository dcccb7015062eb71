"""DINO (Caron et al., ICCV 2021): what its attention and its features know."""

from __future__ import annotations

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote
from zerolabel.recipes.places import CLASSIFIED

ARCHITECTURES = {"vits16": "ViT-S/16", "vits8": "ViT-S/8"}
LARGER = {"vitb16": "ViT-B/16", "vitb8": "ViT-B/8"}


def jaccard() -> Experiment:
    """DINO's attention against the objects of PASCAL VOC 2012 val, figure 4.

    Command: `zerolabel reproduce dino-jaccard DATA`. Time: not measured.
    Expected: 45.9 (ViT-S/16) and 44.7 (ViT-S/8), random weights 22.0 and 21.8, all four from
    memory and not checked against the paper; so they do not stand in the table.
    """
    cells = tuple(
        Cell(data="voc", split="val", backbone=f"{weights}-{arch}", protocol="jaccard")
        for weights in ("dino", "random")
        for arch in ARCHITECTURES
    )
    return Experiment(title="DINO attention on VOC", cells=cells, metrics=("jaccard",))


def knn() -> Experiment:
    """DINO's k-NN accuracy on ImageNet, k = 20.

    Command: `zerolabel reproduce dino-knn DATA`, DATA holding `train` and `val` with one folder
    per class. Time: not measured.
    Expected: 74.5 (ViT-S/16), 78.3 (S/8), 76.1 (B/16), 77.4 (B/8); README of its repository.
    """
    cells = tuple(
        Cell(
            data=CLASSIFIED,
            backbone=f"dino-{arch}",
            settings={"k": (20,)},
            protocol="knn",
            quote=Quote("dino", "README", "DINO", words, images=50_000),
        )
        for arch, words in (ARCHITECTURES | LARGER).items()
    )
    return Experiment(title="DINO k-NN on ImageNet", cells=cells, metrics=("top1",))


def attention() -> Experiment:
    """Categories from DINO's attention on PASCAL VOC 2012 val, three seeds.

    Command: `zerolabel reproduce dino-attention DATA`. Time: not measured.
    Expected: unknown; the paper stops at masks per image.
    """
    cells = tuple(
        Cell(
            data="voc",
            split="val",
            method="dino-attention",
            preset="paper",
            backbone=f"dino-{arch}",
            settings={"k": 21},
            seed=seed,
        )
        for arch in ARCHITECTURES
        for seed in range(3)
    )
    return Experiment(title="dino-attention on VOC", cells=cells)
