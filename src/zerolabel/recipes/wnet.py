"""W-Net (Xia and Kulis, 2017), as "Context is all you need" trains it, and on BSDS.

No weights are needed: the network learns from nothing. None of these recipes was run at length, and
no published number was reproduced.
"""

from __future__ import annotations

from dataclasses import replace

from zerolabel.jobs.experiments.cells import Cell, Experiment

STANFORD = Cell(
    data="stanford", split="all", method="wnet", preset="seed-mp4", backbone="none", protocol="full"
)
ADE20K = Cell(
    data="ade20k",
    split="val",
    train="train",
    space="ade150",
    method="wnet",
    preset="seed-ade20k",
    backbone="none",
    protocol="full",
)
REGIONS = Cell(
    data="bsds500",
    split="test",
    train="train",
    method="wnet",
    preset="original",
    backbone="none",
    protocol="bsds",
)
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def stanford() -> Experiment:
    """U-Net beside W-Net on the Stanford background set, nine channels against eight classes.

    Command: `zerolabel reproduce wnet-stanford DATA`; the reports of the W-Net runs show what is
    reconstructed. Time: not measured.
    Expected: unknown; the comparison shows pictures of both.
    """
    labelled = replace(STANFORD, method="unet", preset="protocol", protocol="classes")
    return Experiment(title="U-Net beside W-Net", cells=(STANFORD, labelled))


def ade20k() -> Experiment:
    """W-Net on ADE20K val, nine channels, and 150 as the comparison leaves open.

    Command: `zerolabel reproduce wnet-ade20k DATA`. Time: not measured.
    Expected: unknown; the comparison shows pictures, and names 150 channels as future work.
    """
    more = replace(ADE20K, preset="seed-ade20k-150")
    return Experiment(title="W-Net on ADE20K", cells=(ADE20K, more))


def regions() -> Experiment:
    """W-Net, CRF and merging at seven levels on the 200 test images of BSDS500.

    Command: `zerolabel reproduce wnet-regions DATA`; then `zerolabel evaluate RUN RUN ...
    --protocol bsds` takes the runs in `runs` as levels of one segmentation. Time: not measured.
    Learned from the 200 images of train; the paper learns from PASCAL VOC 2012.
    Expected: covering .59 (one level for all images) and .64 (the best of each), PRI .82 and .85,
    variation of information 1.67 and 1.47; without merging .57, .62, .81, .84, 1.76 and 1.60.
    """
    cells = tuple(replace(REGIONS, settings={"level": level}) for level in LEVELS)
    metrics = ("covering", "pri", "vi", "f")
    return Experiment(title="W-Net on BSDS500", cells=cells, metrics=metrics, x="level")
