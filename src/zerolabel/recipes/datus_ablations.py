"""DatUS2 (Kumar et al., arXiv 2401.12820): sweeps and ablations of its initial masks.

Data, protocol, weights and student as in `recipes/datus.py`. What the paper and the authors'
answers to its reviewers say of these is qualitative; no numbers are known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zerolabel.jobs.experiments.cells import Cell, Experiment
from zerolabel.recipes.datus import COCO, METRICS, SUIM, taught

RULES = ("datus", "datus-nearest", "datus-majority")  # for more clusters than classes
STARTS = ("k-means++", "uniform", "random")
SIZES = (50, 100, 200, 400, 800, None)  # images that clusters are found in; None for all
LEAST = (1, 3, 6, 9, 12)  # patches of a valid segment
PARTS: tuple[dict[str, Any], ...] = (
    {},
    {"features": "tokens"},
    {"features": "tokens", "centre": "dataset"},
    {"centre": "dataset"},
    {"weighted": True},
    {"self_loops": False},
    {"discover": "kmeans"},  # no graph: k-means on the patches of every image
    {"split": False},  # communities are not cut into connected parts
    {"describe": "pool"},  # no crops: the mean patch of a segment
    {"describe": "masked-cls"},
    {"fill": "mean"},
    {"fill": "none"},
    {"crop_fit": "pad"},
    {"categorise": "minibatch"},
    {"noise": "nearest"},
)


def suim_clusters() -> Experiment:
    """DatUS2 on SUIM with 6 to 18 clusters for 6 classes, under three rules.

    Command: `zerolabel reproduce datus-suim-clusters DATA`. Time: not measured.
    Expected: scores rise with the clusters, and so does noise (review of the paper, figure 2).
    Under `datus`, the published code's rule, pixels of clusters without a class are not counted, so
    that this is no surprise; under `datus-majority` it is none either.
    """
    return _clusters("DatUS2 on SUIM, over-clustering", SUIM, range(6, 19))


def coco_clusters() -> Experiment:
    """DatUS2 on COCO-Stuff with 27 to 81 clusters for 27 classes, under three rules.

    Command: `zerolabel reproduce datus-coco-clusters DATA`. Time: not measured.
    Expected: as on SUIM (review of the paper, figure 2, 27 to 63 in steps of 4; no numbers).
    """
    return _clusters("DatUS2 on COCO-Stuff 27, over-clustering", COCO, (*range(27, 80, 4), 81))


def suim_starts() -> Experiment:
    """DatUS2 on SUIM, how k-means starts, three seeds.

    Command: `zerolabel reproduce datus-suim-starts DATA`. Time: not measured.
    Expected: k-means++ best and most even, uniform near it, random worst (review of the paper; no
    numbers). Here "random" draws vectors, as the published code does, and "uniform" points between
    the extremes; how the review draws is not said.
    """
    cells = tuple(
        replace(SUIM, settings={"k": 6, "init": init, "restarts": 1}, seed=seed)
        for init in STARTS
        for seed in range(3)
    )
    return Experiment(title="DatUS2 on SUIM, starts of k-means", cells=cells, metrics=METRICS)


def suim_sizes() -> Experiment:
    """DatUS2 on the test images of SUIM, clusters found in 50 to all 1,525 training images.

    Command: `zerolabel reproduce datus-suim-sizes DATA`. Time: not measured.
    Expected: more images and more complex ones are harder for k-means (summary of the paper; no
    numbers, nor on which images it scores).
    """
    cells = (
        replace(SUIM, train="train" if n is None else f"train:{n}", seed=seed)
        for n in SIZES
        for seed in range(3)
    )
    return Experiment(title="DatUS2 on SUIM, images", cells=tuple(cells), metrics=METRICS)


def suim_parts() -> Experiment:
    """DatUS2 on SUIM, something else in the place of each part: features to student.

    Command: `zerolabel reproduce datus-suim-parts DATA`. Time: not measured.
    Expected: every part as published is the best one (the paper's ablations; numbers not known).
    Rows: features, graph, crops, k-means, noise; the last one is the published setting and a
    student that learned its masks.
    """
    cells = (*(replace(SUIM, settings={**SUIM.settings, **part}) for part in PARTS), taught(SUIM))
    return Experiment(title="DatUS2 on SUIM, its parts", cells=cells, metrics=METRICS)


def suim_valid() -> Experiment:
    """DatUS2 on SUIM along the patches that a valid segment has at least.

    Command: `zerolabel reproduce datus-suim-valid DATA`. Time: not measured.
    Expected: with 6 patches 25 to 30 % of the segments are valid for the best backbones (summary of
    the paper), three valid segments in an image or more (review).
    """
    cells = (
        replace(SUIM, backbone=backbone, settings={**SUIM.settings, "minimum": least})
        for backbone in ("dino-vitb8", "dinov2-vitb14", "dino-vitb16")
        for least in LEAST
    )
    return Experiment(
        title="DatUS2 on SUIM, valid segments",
        cells=tuple(cells),
        metrics=("valid_share", *METRICS),
        x="minimum",
    )


def _clusters(title: str, start: Cell, counts: range | tuple[int, ...]) -> Experiment:
    cells = (replace(start, settings={"k": k}, protocol=rule) for rule in RULES for k in counts)
    return Experiment(title=title, cells=tuple(cells), metrics=METRICS, x="k")
