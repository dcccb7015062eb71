"""Distortions of colour and sharpness against one pixel after another, and how often they come."""

import colorsys
import math

import numpy as np
import pytest
import torch
from reference import augment as slow

from zerolabel.errors import UsageError
from zerolabel.training import distort
from zerolabel.training.distort import jitter, photometric


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count, side=6, seed=0):
    """Random colours, and the ones at which hue and saturation are special."""
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator(seed)).float()
    special = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 200, 0), (0, 0, 7)]
    for i, colour in enumerate([*special, (80, 80, 10), (10, 80, 80), (80, 10, 80)]):
        images[:, :, i // side, i % side] = torch.tensor(colour).float()
    return images


def numbers_of_jitter(seed):
    """The coins and numbers of a seed, in the order of drawing."""
    source = generator(seed)
    coins, raw = torch.rand(3, generator=source), torch.rand(5, generator=source).double()
    factors = (0.2 + 1.6 * raw[:3]).tolist()
    return coins.tolist(), factors, float(0.4 * raw[3] - 0.2), float(1 + raw[4])


def slow_jitter(image, seed):
    coins, (brightness, contrast, saturation), hue, deviation = numbers_of_jitter(seed)
    x = image.double().numpy()
    _, H, W = x.shape
    if coins[0] < 0.3:
        x = np.clip(x * brightness, 0, 255)
        mean = np.mean([slow.LUMA @ x[:, i, j] for i in range(H) for j in range(W)])
        x = np.clip(mean + contrast * (x - mean), 0, 255)
        for i in range(H):
            for j in range(W):
                turned = slow.turn(x[:, i, j], 2 * math.pi * hue)
                grey = slow.LUMA @ x[:, i, j]
                x[:, i, j] = np.clip(saturation * turned + (1 - saturation) * grey, 0, 255)
    if coins[1] < 0.2:
        x = np.stack([np.einsum("c,cij->ij", slow.LUMA, x)] * 3)
    return slow_blur(x, deviation) if coins[2] < 0.2 else x


def slow_blur(x, deviation):
    """The border mirrors the pixels beside it."""
    _, H, W = x.shape

    def inside(i, n):
        return abs(i) if i < n else 2 * (n - 1) - i

    out, total = np.zeros_like(x), 0.0
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            weight = math.exp(-(a**2 + b**2) / (2 * deviation**2))
            total += weight
            for i in range(H):
                for j in range(W):
                    out[:, i, j] += weight * x[:, inside(i + a, H), inside(j + b, W)]
    return out / total


def numbers_of_photometric(seed, count):
    source = generator(seed)
    coins = torch.rand(5, count, generator=source) < 0.5
    return coins, 2 * torch.rand(4, count, generator=source).double() - 1


def slow_photometric(image, coins, numbers):
    """The published order, pixel by pixel, with the HSV of Python's library."""
    brightness, contrast, saturation, hue = numbers.tolist()
    out = np.zeros(image.shape)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            pixel = image[:, i, j].double().numpy() / 255
            if coins[0]:
                pixel = np.clip(pixel + 32 / 255 * brightness, 0, 1)
            if coins[1] and not coins[4]:
                pixel = np.clip(pixel * (1 + contrast / 2), 0, 1)
            if coins[2]:
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                pixel = np.array(colorsys.hsv_to_rgb(h, min(1, s * (1 + saturation / 2)), v))
            if coins[3]:
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                pixel = np.array(colorsys.hsv_to_rgb((h + hue / 10) % 1, s, v))
            if coins[1] and coins[4]:
                pixel = np.clip(pixel * (1 + contrast / 2), 0, 1)
            out[:, i, j] = 255 * pixel
    return out


def test_jitter_against_single_pixels():
    images, kinds = photos(2), set()
    for seed in range(80):
        coins = numbers_of_jitter(seed)[0]
        kind = (coins[0] < 0.3, coins[1] < 0.2, coins[2] < 0.2)
        if kind in kinds:
            continue
        kinds.add(kind)
        found = jitter(images, generator=generator(seed))
        for image, expected in zip(found, images, strict=True):
            np.testing.assert_allclose(image, slow_jitter(expected, seed), atol=2e-3)
    assert len(kinds) >= 7  # all three at once are one batch in 83


def test_photometric_against_single_pixels():
    images = photos(160, side=4)
    found = photometric(images, generator=generator(3))
    coins, numbers = numbers_of_photometric(3, 160)
    assert len({tuple(c) for c in coins.T.tolist()}) > 28  # of 32
    for b in range(160):
        expected = slow_photometric(images[b], coins[:, b], numbers[:, b])
        np.testing.assert_allclose(found[b], expected, atol=5e-3)


def test_images_without_a_coin_stay_exactly_and_the_input_always():
    images = photos(200, side=4)
    kept = images.clone()
    found = photometric(images, generator=generator(1))
    assert torch.equal(images, kept)
    coins, _ = numbers_of_photometric(1, 200)
    untouched = ~coins[:4].any(0)
    assert 3 < untouched.sum() < 30  # published: 1 in 16
    assert torch.equal(found[untouched], images[untouched])
    changed = (found != images).flatten(1).any(1)
    assert torch.equal(changed, ~untouched)
    for seed in range(20):
        jitter(images, generator=generator(seed))
    assert torch.equal(images, kept)


def test_photometric_changes_as_often_and_as_much_as_published():
    coins, numbers = numbers_of_photometric(0, 4000)
    assert (coins.float().mean(1) - 0.5).abs().max() < 0.04
    assert numbers.abs().max() <= 1
    # what the images say: of a single red pixel, too dark for any channel to be clamped
    images = torch.tensor([120.0, 60.0, 60.0])[None, :, None, None].expand(4000, 3, 1, 1)
    found = photometric(images, generator=generator())[:, :, 0, 0]
    hues = np.array([colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in found.numpy()])
    degrees = 360 * ((hues + 0.5) % 1 - 0.5)
    assert abs((np.abs(degrees) > 1e-3).mean() - 0.5) < 0.04
    assert 34 < np.abs(degrees).max() < 36.01
    values = found.amax(1)
    assert (120 - 32) * 0.5 - 1e-3 <= values.min() < 50
    assert (120 + 32) * 1.5 + 1e-3 >= values.max() > 210


def test_jitter_changes_as_often_as_published():
    draws = torch.stack([jitter(photos(1, side=3), generator=generator(s)) for s in range(600)])
    same = (draws == photos(1, side=3)).flatten(1).all(1)
    assert abs(same.float().mean() - 0.7 * 0.8 * 0.8) < 0.06
    grey = (draws.amax(2) - draws.amin(2)).flatten(1).amax(1) < 1e-3
    assert abs(grey.float().mean() - 0.2) < 0.05
    means, mean = draws.mean((1, 2, 3, 4)), photos(1, side=3).mean()
    for moved in (means < 0.8 * mean, means > 1.2 * mean):  # 0.3 times 3 eighths
        assert abs(moved.float().mean() - 0.11) < 0.05


def test_jitter_is_one_decision_for_the_batch():
    images = photos(1).expand(3, -1, -1, -1)
    for seed in range(30):
        found = jitter(images, generator=generator(seed))
        torch.testing.assert_close(found, found[:1].expand(3, -1, -1, -1), atol=1e-3, rtol=0)
    found = photometric(photos(1).expand(8, -1, -1, -1), generator=generator())
    assert len({tuple(image.flatten().tolist()) for image in found}) > 5


@pytest.mark.parametrize("function", [jitter, photometric])
def test_a_seed_and_nothing_else_decides(function):
    images, states = photos(4), []
    before = torch.get_rng_state()
    for seed in range(12):
        first = generator(seed)
        one, two = function(images, generator=first), function(images, generator=generator(seed))
        assert torch.equal(one, two)
        other = generator(seed)
        function(torch.zeros_like(images), generator=other)
        assert torch.equal(first.get_state(), other.get_state())  # whatever happens
        states.append(one)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(state.flatten().tolist()) for state in states}) > 3


@pytest.mark.parametrize("function", [jitter, photometric])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 2)])
def test_values_stay_colours_at_any_size(function, size):
    images = torch.zeros(6, 3, *size)
    images[1], images[2], images[3, 0], images[4, 1:] = 255, 128, 255, 30
    for seed in range(40):
        found = function(images, generator=generator(seed))
        assert found.shape == images.shape
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 255
    assert function(images[:0], generator=generator()).shape == images[:0].shape


def test_grey_levels_have_no_hue_and_no_saturation():
    grey = torch.tensor([0.0, 60.0, 255.0])[None, None, :].expand(1, 3, 3)[..., None]
    by = torch.full((1, 1, 1, 1), 1.4)
    assert torch.equal(distort._saturate(grey, by), grey)
    assert torch.equal(distort._turn(grey, by), grey)


def test_a_blur_keeps_the_mean_of_a_plane():
    plane = torch.full((1, 3, 4, 5), 77.0)
    torch.testing.assert_close(distort._blur(plane, 1.5), plane)


def test_what_does_not_fit():
    for images in (torch.zeros(2, 4, 3, 3), torch.zeros(3, 8, 8), photos(1).byte()):
        for function in (jitter, photometric):
            with pytest.raises(UsageError, match="float32 images"):
                function(images, generator=generator())
