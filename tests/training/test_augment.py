from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import augment as slow

from zerolabel.training import augment
from zerolabel.training.augment import Draw, View

VIEW = View(16, (0.25, 1.0), blur=0.5, solarise=0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count, side=24, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), generator=generator(seed)).byte()


def plain(count, **changes):
    """Draws that change nothing, but for what is given."""
    numbers = {
        "box": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, -1),
        "flip": torch.zeros(count),
        "blur": torch.zeros(count),
        "colour": torch.eye(3).expand(count, -1, -1),
        "contrast": torch.ones(count),
        "solarise": torch.zeros(count),
    }
    return Draw(**{**numbers, **changes})


def matrix(start, length, *, flip=0.0, blur=0.0, size=16, side=24):
    numbers = [torch.tensor([x], dtype=torch.float32) for x in (start, length, flip, blur)]
    return augment.resampling(*numbers, size=size, side=side)[0]


@settings(max_examples=40, deadline=None)
@given(
    start=st.floats(0, 1),
    length=st.floats(0.05, 1),
    flip=st.sampled_from([0.0, 1.0]),
    blur=st.floats(0, 2),
    size=st.integers(1, 40),
    side=st.integers(1, 40),
)
def test_every_pixel_is_a_mean_of_pixels(start, length, flip, blur, size, side):
    found = matrix(start * (1 - length), length, flip=flip, blur=blur, size=size, side=side)
    assert found.shape == (size, side)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(size))


def test_the_whole_image_at_its_own_size_stays_nearly_as_it_is():
    found = matrix(0, 1, size=24)
    assert (found.argmax(1) == torch.arange(24)).all()
    assert found.diagonal().min() > 0.88
    smooth = torch.linspace(0, 1, 24).square()
    assert (found @ smooth - smooth).abs().max() < 0.005


def test_a_flip_mirrors():
    torch.testing.assert_close(matrix(0.2, 0.5, flip=1.0), matrix(0.2, 0.5).flip(0))


def test_shrinking_reads_every_pixel_and_blur_spreads():
    shrunk = matrix(0, 1, size=4)
    assert shrunk.sum(0).min() > 0.5 * 4 / 24  # nothing falls between two output pixels
    around = torch.arange(24) - 11.5
    widths = []
    for blur in (0.0, 1.0, 2.0):
        row = matrix(0, 1, blur=blur, size=25)[12]  # the middle pixel
        widths.append((row * around**2).sum().sqrt().item())
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] == pytest.approx(2, rel=0.1)  # in pixels of the view, here those of the image


def test_equals_the_slow_reference():
    images, drawn = photos(5), augment.draw(VIEW, 5, generator=generator(3))
    found = augment.apply(images, drawn, size=9)
    for i, image in enumerate(images.numpy()):
        x = slow.resample(
            image / 255,
            drawn.box[i].tolist(),
            flip=drawn.flip[i] > 0,
            blur=drawn.blur[i].item(),
            size=9,
            soft=augment.SOFT,
        )
        x = np.einsum("cd,dij->cij", drawn.colour[i].numpy(), x)
        x = slow.recolour(
            x,
            brightness=1,
            saturation=1,
            hue=0,
            contrast=drawn.contrast[i].item(),
            solarise=drawn.solarise[i] > 0,
        )
        close = np.abs(found[i].numpy() - x) < 1e-5
        # a value at solarisation's threshold may fall on either side of it
        assert (close | (np.abs(found[i].numpy() + x - 1) < 1e-5)).all()
        assert close.mean() > 0.99


@pytest.mark.parametrize("saturation", [0.0, 0.7, 1.4])
@pytest.mark.parametrize("hue", [0.0, 0.1, -0.25])
def test_the_matrix_does_what_each_colour_change_does(saturation, hue):
    numbers = torch.tensor([saturation]), torch.tensor([hue])
    colour = 0.8 * augment.colour_matrix(*numbers)
    images = photos(1, side=6)
    found = augment.apply(images, plain(1, colour=colour, contrast=torch.tensor([1.3])), size=6)
    seen = augment.apply(images, plain(1), size=6)[0].numpy()
    expected = slow.recolour(
        seen, brightness=0.8, saturation=saturation, hue=hue, contrast=1.3, solarise=False
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_without_colour_changes_the_colours_stay():
    drawn = augment.draw(View(16, (0.5, 1.0), colour=0.0), 50, generator=generator())
    torch.testing.assert_close(drawn.colour, torch.eye(3).expand(50, -1, -1), atol=1e-6, rtol=0)
    assert (drawn.contrast == 1).all()
    assert (drawn.solarise == 0).all()


def test_some_views_are_grey():
    images, drawn = photos(300, side=6), augment.draw(VIEW, 300, generator=generator())
    views = augment.apply(images, drawn, size=4)
    grey = (views.amax(1) - views.amin(1)).amax((1, 2)) < 1e-5
    assert 0.1 < grey.float().mean() < 0.3  # published: 0.2
    for probability, numbers in ((0.5, drawn.flip), (0.5, drawn.solarise), (0.5, drawn.blur > 0)):
        assert abs(numbers.float().mean() - probability) < 0.12
    jittered = (drawn.contrast != 1).float().mean()
    assert abs(jittered - 0.8) < 0.1


def test_values_stay_colours():
    images = photos(64, side=8)
    images[0], images[1] = 0, 255
    views = augment.apply(images, augment.draw(VIEW, 64, generator=generator()), size=5)
    assert views.dtype == torch.float32
    assert views.shape == (64, 3, 5, 5)
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("scale", [(0.08, 0.35), (0.35, 1.0), (0.7, 1.0), (1.0, 1.0)])
def test_boxes_lie_in_the_image_and_have_the_wanted_area(scale):
    drawn = augment.draw(View(16, scale), 4000, generator=generator())
    top, left, height, width = drawn.box.unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    area = height * width
    # Sides longer than the image are cut, which can only happen to areas above 3/4, and leaves them
    # above it.
    assert area.min() >= min(scale[0], 0.75) - 1e-5
    assert area.max() <= scale[1] + 1e-5
    aspect = (width / height).log()
    assert aspect.abs().max() <= np.log(4 / 3) + 1e-5
    if scale[1] < 0.75:
        assert abs(area.mean() - sum(scale) / 2) < 0.01  # uniform
        assert aspect.abs().max() > 0.27


def test_blur_follows_the_size_of_the_view():
    for size, largest in ((224, 2.0), (112, 2.0), (56, 1.0), (28, 0.5)):
        blur = augment.draw(View(size, (0.5, 1), blur=1.0), 500, generator=generator()).blur
        assert largest * 0.95 < blur.max() <= largest


def test_draws_follow_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (augment.draw(VIEW, 7, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for field in fields(Draw):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
        assert not torch.equal(getattr(first, field.name), getattr(other, field.name))


def test_a_part_of_the_batch_is_seen_as_in_the_whole():
    images, drawn = photos(8), augment.draw(VIEW, 8, generator=generator())
    whole = augment.apply(images, drawn, size=16)
    parts = [
        augment.apply(images[rows], drawn.part(rows), size=16)
        for rows in (slice(0, 3), slice(3, 8))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
