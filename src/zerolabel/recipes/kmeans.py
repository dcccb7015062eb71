"""k-means on patch tokens: the floor under every method, on every data set."""

from __future__ import annotations

from zerolabel.data.spaces import SPACES, space
from zerolabel.jobs.experiments.cells import Cell, Experiment

SPLITS = {"cocostuff": "curated-val", "suim": "test", "camvid": "test", "stanford": "all"}


def regions() -> Experiment:
    """k-means regions on the 200 test images of BSDS500, K = 2 to 32, against all annotators.

    Command: `zerolabel reproduce kmeans-regions DATA`. Time: not measured.
    Expected: unknown; it is what methods that find regions have to beat.
    """
    cells = tuple(
        Cell(
            data="bsds500",
            split="test",
            method="kmeans",
            preset="protocol",
            backbone="dino-vits8",
            settings={"k": k},
            seed=seed,
            protocol="bsds",
        )
        for k in (2, 4, 8, 16, 32)
        for seed in range(3)
    )
    metrics = ("covering", "pri", "vi", "f")
    return Experiment(title="k-means regions on BSDS500", cells=cells, metrics=metrics, x="k")


def everywhere() -> Experiment:
    """k-means on DINO tokens, every data set and label space, K = C, three seeds.

    Command: `zerolabel reproduce kmeans DATA`, DATA holding one data set or several in folders of
    any name; those that are not there are listed. Time: not measured.
    Expected: unknown; it is what others have to beat under the same protocol.
    """
    cells = tuple(
        Cell(
            data=data,
            split=SPLITS.get(data, "val"),
            space=name,
            method="kmeans",
            preset="protocol",
            backbone="dino-vits8",
            settings={"k": len(space(name).classes)},
            seed=seed,
        )
        for name, data in SPACES.items()
        for seed in range(3)
    )
    return Experiment(title="k-means on every data set", cells=cells)
