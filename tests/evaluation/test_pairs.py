import numpy as np
import pytest
import torch

from zerolabel.data.transforms import squash
from zerolabel.evaluation.pairs import View, draw_view, show


def photo(size, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    return image, generator.integers(0, 21, size).astype(np.uint8)


def test_nothing_done_is_nothing_changed():
    image, label = photo((9, 14))
    seen, ids = show(image, label, View(), size=(9, 14))
    np.testing.assert_array_equal(seen.permute(1, 2, 0), image)
    np.testing.assert_array_equal(ids, label)
    assert (seen.dtype, ids.dtype) == (torch.uint8, torch.int64)


def test_flip_and_quarter_turn_are_those_of_numpy():
    image, label = photo((8, 8))
    seen, ids = show(image, label, View(flip=True), size=(8, 8))
    np.testing.assert_array_equal(seen.permute(1, 2, 0), image[:, ::-1])
    np.testing.assert_array_equal(ids, label[:, ::-1])
    seen, ids = show(image, label, View(flip=True, angle=90), size=(8, 8))
    np.testing.assert_array_equal(ids, np.rot90(label[:, ::-1]))
    off = np.abs(seen.permute(1, 2, 0).numpy().astype(int) - np.rot90(image[:, ::-1]))
    assert off.max() <= 1


def test_zoom_shows_the_middle_and_less_leaves_a_frame():
    image, label = photo((8, 12))
    _, ids = show(image, label, View(scale=2), size=(8, 12))
    np.testing.assert_array_equal(ids, label[2:6, 3:9].repeat(2, 0).repeat(2, 1))
    seen, ids = show(image, label, View(scale=0.5), size=(8, 12))
    frame = np.ones((8, 12), bool)
    frame[2:6, 3:9] = False
    assert (ids.numpy()[frame] == 255).all()
    assert (ids.numpy()[~frame] < 21).all()
    assert not seen[:, 0].any()
    assert not seen[:, :, 0].any()


@pytest.mark.parametrize("view", [View(angle=5, scale=0.8), View(flip=True, angle=-4, scale=1.2)])
def test_labels_are_those_of_a_loop(view):
    """From each pixel of the view back to the photo: unsquash, unturn, unzoom, unflip."""
    image, label = photo((20, 30))
    _, ids = show(image, label, view, size=(24, 24))
    a = np.radians(view.angle)
    for row in range(24):
        for column in range(24):
            y, x = (row + 0.5) * 20 / 24 - 10, (column + 0.5) * 30 / 24 - 15
            # Anticlockwise to the eye is clockwise where rows point down; this is its inverse.
            source = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ [x, y]
            x, y = source / view.scale
            x = (-x if view.flip else x) + 15
            y = y + 10
            inside = 0 <= x < 30 and 0 <= y < 20
            assert ids[row, column] == (label[int(y), int(x)] if inside else 255)


def test_photo_and_label_move_alike():
    """Where the photo is smooth and made of the label, its view is made of the label's view."""
    label = (np.indices((40, 60)).sum(0) // 25 % 2).astype(np.uint8)
    image = np.repeat(label[..., None] * 200, 3, axis=2).astype(np.uint8)
    seen, ids = show(image, label, View(flip=True, angle=5, scale=1.2), size=(48, 48))
    assert ((seen[0] > 100).long() == ids).float().mean() > 0.97


def test_squashing_is_that_of_all_other_images():
    image = np.stack(np.meshgrid(np.arange(50), np.arange(40)), -1)
    image = np.concatenate([image * 4, image[..., :1]], -1).astype(np.uint8)
    seen, _ = show(image, image[..., 0], View(), size=(64, 64))
    off = (seen.int() - squash(image, (64, 64)).int()).abs()[:, 4:-4, 4:-4]
    assert off.max() <= 2


def test_views_are_drawn_between_their_limits():
    generator = torch.Generator().manual_seed(0)
    views = [
        draw_view(flip=0.5, angle=5, scale=(0.75, 1.25), generator=generator) for _ in range(400)
    ]
    angles, scales = ([getattr(view, name) for view in views] for name in ("angle", "scale"))
    assert -5 <= min(angles) < -4.8 < 4.8 < max(angles) <= 5
    assert 0.75 <= min(scales) < 0.76 < 1.24 < max(scales) <= 1.25
    assert 160 < sum(view.flip for view in views) < 240
    still = draw_view(flip=0, angle=0, scale=(1, 1), generator=generator)
    assert still == View(flip=False, angle=0, scale=1)
