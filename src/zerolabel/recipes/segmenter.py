"""Segmenter (Strudel et al., ICCV 2021), told the classes: what methods without labels stand below.

Fitted on the labels of train, scored on val, category k being class k. The published encoders were
trained on ImageNet-21k with labels and are not among the backbones; DINO's and DINOv2's take their
place, so published numbers stand in the docstrings and not in the tables. Whoever has a published
Segmenter scores it without training: `zerolabel fit --set checkpoint=FILE` with the same preset.
None of these recipes was run with published weights. Expected numbers are mIoU in percent, of one
scale, from the README of the original project unless something else is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment

SEEDS = range(3)
ADE20K = Cell(
    data="ade20k",
    split="val",
    train="train",
    space="ade150",
    method="segmenter",
    preset="official-ade20k",
    backbone="dino-vits16",
    protocol="classes",
)
CONTEXT = replace(ADE20K, data="context", space="context60", preset="official-context")
# Labels are learned in the default space of a data set.
CITYSCAPES = replace(ADE20K, data="cityscapes", space="cityscapes27", preset="official-cityscapes")
CAMVID = replace(ADE20K, data="camvid", space="camvid11", preset="protocol")
SIZES = ("dino-vits16", "dino-vitb16", "dinov2-vitl14")  # small, base, large
ENCODERS = (
    "dino-vits16",
    "dino-vits8",
    "dino-vitb16",
    "dino-vitb8",
    "dinov2-vits14",
    "dinov2-vitb14",
    "dinov2-vitl14",
)
LINEAR: dict[str, Any] = {"decoder": "linear"}
MASK: dict[str, Any] = {"decoder": "mask"}


def camvid() -> Experiment:
    """Segmenter on the 101 images of CamVid val, both decoders and a frozen encoder, three seeds.

    Command: `zerolabel reproduce segmenter-camvid DATA`. Time: not measured, and not run with
    published weights.
    Expected: unknown; the paper does not use CamVid. It is what other methods on CamVid stand
    below.
    """
    cells = (
        replace(CAMVID, settings=settings, seed=seed)
        for settings in (LINEAR, MASK, {**LINEAR, "encoder": "frozen"})
        for seed in SEEDS
    )
    return Experiment(title="Segmenter on CamVid", cells=tuple(cells))


def ade20k() -> Experiment:
    """Segmenter on the 2,000 images of ADE20K val, encoders of three sizes, three patches.

    Command: `zerolabel reproduce segmenter-ade20k DATA`. Time: not measured, and not run with
    published weights.
    Expected: tiny 38.1, small 45.3, base 48.5, large 51.3 with encoders trained on labels and
    patches of 16 pixels; of several scales 38.8, 46.9, 50.0, 53.2; base with patches of 8 and a
    linear decoder 49.5.
    """
    cells = tuple(replace(ADE20K, backbone=name) for name in ENCODERS)
    return Experiment(title="Segmenter on ADE20K", cells=cells)


def context() -> Experiment:
    """Segmenter on the images of PASCAL Context val, 60 classes, small, base and large encoders.

    Command: `zerolabel reproduce segmenter-context DATA`. Time: not measured, and not run with
    published weights.
    Expected: large 58.1 with an encoder trained on labels; of several scales 59.0.
    """
    return _sizes("Segmenter on PASCAL Context", CONTEXT)


def cityscapes() -> Experiment:
    """Segmenter on the 500 images of Cityscapes val, 27 classes, small, base and large encoders.

    Command: `zerolabel reproduce segmenter-cityscapes DATA`. Time: not measured, and not run with
    published weights.
    Expected: unknown with 27 classes, which are those that fitting on Cityscapes learns; with 19
    and an encoder trained on labels the large one has 79.1, and 81.3 of several scales.
    """
    return _sizes("Segmenter on Cityscapes", CITYSCAPES)


def decoders() -> Experiment:
    """Segmenter on ADE20K val, linear decoder and mask transformer.

    Command: `zerolabel reproduce segmenter-decoders DATA`. Time: not measured, and not run with
    published weights.
    Expected: linear 47.1 and mask transformer 48.7 with a base encoder of DeiT, trained on labels.
    """
    cells = tuple(replace(ADE20K, settings=settings) for settings in (LINEAR, MASK))
    return Experiment(title="Segmenter on ADE20K, decoders", cells=cells)


def comparison() -> Experiment:
    """Segmenter on ADE20K val as the comparison "Context is all you need" trains it.

    Command: `zerolabel reproduce segmenter-comparison DATA`. Time: not measured, and not run with
    published weights.
    Expected: unknown; the comparison shows pictures, and names about 58 images a second for its
    smallest network.
    """
    return Experiment(title="Segmenter, as compared", cells=(replace(ADE20K, preset="seed"),))


def _sizes(title: str, cell: Cell) -> Experiment:
    """A data set with every size of the encoder."""
    cells = tuple(replace(cell, backbone=name) for name in SIZES)
    return Experiment(title=title, cells=cells)
