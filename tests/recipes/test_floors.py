"""Floors: what they paint, and that they are scored as any run is."""

import numpy as np
import pytest

from zerolabel.data.benchmarks import open_dataset
from zerolabel.data.planted import plant
from zerolabel.jobs.evaluate import evaluate
from zerolabel.jobs.experiments.cells import Cell
from zerolabel.outputs.masks import read_mask
from zerolabel.recipes.floors import colour, colour_cells, one_category


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return plant("camvid", tmp_path_factory.mktemp("data"), images=3, splits=["val"])


def cell(**settings):
    return Cell(data="camvid", split="val", method="floor", backbone="", settings=settings)


def test_one_category_scores_the_share_of_the_largest_class(root, tmp_path):
    one_category(cell(k=1), root, tmp_path)
    found = evaluate(tmp_path, root, split="val")
    labels = np.concatenate([s.load_label().ravel() for s in open_dataset(root).samples])
    counts = np.bincount(labels[labels < 255])
    assert found["pixel_accuracy"] == pytest.approx(counts.max() / counts.sum())
    assert found["miou"] == pytest.approx(found["floor"]["miou"])


def test_cells_are_standardised_means(root):
    samples = open_dataset(root).samples
    x = colour_cells(samples)
    assert x.shape == (3, 28, 28, 5)
    assert x.mean((0, 1, 2)).abs().max() < 1e-4
    assert (x.std((0, 1, 2)) - 1).abs().max() < 1e-4
    rows = x[..., 3]
    assert (rows[:, 1:] > rows[:, :-1]).all()  # position, row first
    assert (rows == rows[:, :, :1]).all()


def test_colour_finds_planted_colours_better_than_one_category(root, tmp_path):
    colour(cell(k=6, position=0.0), root, tmp_path)
    found = evaluate(tmp_path, root, split="val")
    assert found["miou"] > 2 * found["floor"]["miou"]
    sample = open_dataset(root).samples[0]
    masks = list((tmp_path / "masks").rglob("*.png"))
    assert len(masks) == 3
    assert read_mask(masks[0]).shape == sample.load_label().shape
