"""Images of one size, whole or in squares, in an order that can be taken up anywhere."""

import numpy as np
import torch

from zerolabel.stages.pictures import Album, scale
from zerolabel.store import Store
from zerolabel.types import Sample

SIZE = (24, 32)


def samples(count: int) -> list[Sample]:
    """Every pixel tells where it lies: rows in red, columns in green; and so does its label."""
    rows, columns = np.indices(SIZE)
    image = np.stack([rows * 8, columns * 8, 0 * rows], axis=2).astype(np.uint8)
    label = (rows % 7).astype(np.uint8)
    read = {"load": lambda: image, "load_label": lambda: label, "digest": lambda: "same"}
    return [Sample(id=f"{i}.png", **read) for i in range(count)]


def album(**asked) -> Album:
    known = {"size": SIZE, "batch": 3, "flip": False, "seed": 1} | asked
    listed = samples(4)
    return Album(listed, scale(listed, store=Store()), **known)


def test_squares_are_cut_at_the_same_place_out_of_image_and_label():
    images, labels = album(crop=9).labelled(0)
    assert images.shape == (3, 3, 9, 9)
    assert labels.shape == (3, 9, 9)
    rows = torch.stack([image[0] for image in images])
    top = rows[:, :1, :1]
    assert torch.equal(rows.diff(dim=1) > 0, torch.ones(3, 8, 9, dtype=torch.bool))
    step = float(rows.diff(dim=1).mean())
    assert torch.equal((rows / step).round().long() % 7, labels)
    assert len(top.unique()) > 1, "all squares are from one place"


def test_squares_larger_than_the_image_are_what_there_is():
    assert album(crop=30).page(0).shape == (3, 3, 24, 30)


def test_without_squares_images_are_whole_and_a_step_is_the_same_whenever_it_is_asked_for():
    whole = album()
    assert whole.page(2).shape == (3, 3, *SIZE)
    for crop in (0, 9):
        again = album(crop=crop)
        first = again.page(5)
        again.page(0)
        assert torch.equal(first, album(crop=crop).page(5))
