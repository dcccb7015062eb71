"""What knows nothing of objects: one category everywhere, and k-means on colour and position."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.transforms import squash
from zerolabel.errors import DataError
from zerolabel.jobs.experiments.cells import Cell
from zerolabel.jobs.run.model import new_categories
from zerolabel.jobs.run.render import write_categories
from zerolabel.ops.cluster import kmeans
from zerolabel.outputs.colours import palette
from zerolabel.outputs.masks import mask_names, write_mask
from zerolabel.types import Sample

SIDE, CELL = 224, 8  # pixels to which images are squashed, and of a cell's side
RESTARTS = 3


def one_category(cell: Cell, root: Path, out: Path) -> None:
    """Call everything category 0, which will be matched to the class it covers best."""
    samples = _open(cell, root)
    _write(out, samples, torch.zeros(len(samples), 1, 1), k=1)


def colour(cell: Cell, root: Path, out: Path) -> None:
    """Cluster cells of 8x8 pixels by mean colour and weighted position; nearest neighbours paint.

    The settings of the cell are `k` and `position`, the weight of a standardised coordinate beside
    a standardised colour.
    """
    samples, weight = _open(cell, root), cell.settings["position"]
    cells = colour_cells(samples) * torch.tensor([1, 1, 1, weight, weight])
    k = cell.settings["k"]
    labels = kmeans(cells.flatten(0, 2), k, seed=cell.seed, restarts=RESTARTS).labels
    _write(out, samples, labels.reshape(cells.shape[:3]).float(), k=k)


def colour_cells(samples: tuple[Sample, ...]) -> Tensor:
    """Standardised mean colour (3) and position (2) of every cell, float32 (n, h, w, 5)."""
    squashed = (squash(sample.load(), (SIDE, SIDE)) for sample in samples)
    pooled = torch.stack([F.avg_pool2d(image.float(), CELL) for image in squashed])
    colours = pooled.permute(0, 2, 3, 1)  # (n, h, w, 3)
    n, h, w, _ = colours.shape
    place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
    x = torch.cat([colours, place.float().expand(n, h, w, 2)], -1)
    return (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))


def _open(cell: Cell, root: Path) -> tuple[Sample, ...]:
    dataset = open_dataset(root, split=cell.split)
    if dataset is None:
        raise DataError(f"{root} is not a labelled data set.")
    return dataset.samples


def _write(out: Path, samples: tuple[Sample, ...], grids: Tensor, *, k: int) -> None:
    """Write grids of category ids (n, h, w) as masks of the images' own sizes."""
    names, colours = mask_names([sample.id for sample in samples]), palette(k)
    for sample, grid in zip(samples, grids, strict=True):
        size = sample.load().shape[:2]
        mask = F.interpolate(grid[None, None], size=size)[0, 0].byte().numpy()
        write_mask(out / "masks" / names[sample.id], mask, colours=colours)
    write_categories(out, new_categories(k))
