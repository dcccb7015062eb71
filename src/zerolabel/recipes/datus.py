"""DatUS2 (Kumar et al., arXiv 2401.12820), up to its initial masks: the paper's tables.

The paper's final scores come after a student network (stage F), which is not built here yet; where
a recipe shows one of them, ours is the score of the masks that it would learn from. Clusters are
found on the images that are scored, as the published code does.
"""

from __future__ import annotations

from dataclasses import replace

from zerolabel.jobs.experiments.cells import Cell, Experiment, Quote

METRICS = ("miou", "pixel_accuracy", "mf1")
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
    """DatUS2 on the 110 test images of SUIM, 6 and 8 classes.

    Command: `zerolabel reproduce datus-suim DATA`. Time: not measured.
    Expected: 28.48 mIoU, 64.67 pixel accuracy, 39.52 mF1 with 6 classes after the student network,
    of which we have the masks before; from a table of its successor GraPix. 8 classes: no number.
    """
    six = replace(SUIM, quote=Quote("grapix", "Table 1", "DatUS", images=110))
    eight = replace(SUIM, space="suim8", settings={"k": 8})
    return Experiment(title="DatUS2 on SUIM", cells=(six, eight), metrics=METRICS)


def suim_train() -> Experiment:
    """DatUS2, initial masks of the 1,525 training images of SUIM, DINO and DINOv2.

    Command: `zerolabel reproduce datus-suim-train DATA`. Time: not measured.
    Expected: DINOv2 24.90 mIoU and 36.3 mF1, DINO 62.18 pixel accuracy, each the best of the
    backbones that the paper compares; abstract of the journal version.
    """
    name = "DatUS2, initial masks"
    rows = (("dino-vitb8", "DINO"), ("dinov2-vitb14", "DINOv2"))
    cells = (
        replace(SUIM, split="train", backbone=b, quote=Quote("datus2", "abstract", name, q, 1525))
        for b, q in rows
    )
    return Experiment(
        title="DatUS2, initial masks on SUIM train", cells=tuple(cells), metrics=METRICS
    )


def suim_patches() -> Experiment:
    """DatUS2 on SUIM with patches of 8, 14 and 16 pixels.

    Command: `zerolabel reproduce datus-suim-patches DATA`. Time: not measured.
    Expected: smaller patches score higher in every metric (seen in the paper, numbers not known).
    """
    names = ("dino-vits8", "dinov2-vits14", "dino-vits16", "dino-vitb8", "dinov2-vitb14")
    cells = tuple(replace(SUIM, backbone=name) for name in (*names, "dino-vitb16"))
    return Experiment(title="DatUS2 on SUIM, size of the patches", cells=cells, metrics=METRICS)


def suim_clusters() -> Experiment:
    """DatUS2 on SUIM with 6 to 18 clusters for 6 classes.

    Command: `zerolabel reproduce datus-suim-clusters DATA`. Time: not measured.
    Expected: scores rise with the clusters, and so does noise (review of the paper, figure 2);
    pixels of clusters without a class are not counted, so that this is no surprise.
    """
    cells = tuple(replace(SUIM, settings={"k": k}) for k in range(6, 19))
    return Experiment(title="DatUS2 on SUIM, over-clustering", cells=cells, metrics=METRICS, x="k")


def suim_starts() -> Experiment:
    """DatUS2 on SUIM, how k-means starts, three seeds.

    Command: `zerolabel reproduce datus-suim-starts DATA`. Time: not measured.
    Expected: k-means++ best and most even, random starts worst (review of the paper; no numbers).
    """
    cells = tuple(
        replace(SUIM, settings={"k": 6, "init": init, "restarts": 1}, seed=seed)
        for init in ("k-means++", "random")
        for seed in range(3)
    )
    return Experiment(title="DatUS2 on SUIM, starts of k-means", cells=cells, metrics=METRICS)


def coco() -> Experiment:
    """DatUS2 on the 2,175 curated images of COCO-Stuff val, 27 classes.

    Command: `zerolabel reproduce datus-coco DATA`. Time: not measured.
    Expected: 14.45 mIoU, 25.05 pixel accuracy after the student network (summary of the paper; a
    copy of a leader board has 15.97 mIoU); ours are the masks before it.
    """
    cell = replace(COCO, quote=Quote("datus2", "", "DatUS2", images=2175))
    return Experiment(title="DatUS2 on COCO-Stuff 27", cells=(cell,), metrics=METRICS)


def coco_clusters() -> Experiment:
    """DatUS2 on COCO-Stuff with 27 to 63 clusters for 27 classes.

    Command: `zerolabel reproduce datus-coco-clusters DATA`. Time: not measured.
    Expected: as on SUIM (review of the paper, figure 2, in steps of 4; no numbers).
    """
    cells = tuple(replace(COCO, settings={"k": k}) for k in range(27, 64, 4))
    return Experiment(
        title="DatUS2 on COCO-Stuff 27, over-clustering", cells=cells, metrics=METRICS, x="k"
    )
