"""Colours and sharpness, changed at random: for whole batches, or for every image on its own.

All random numbers are drawn first and on the CPU, the same number of them whatever happens, so that
a seed means the same on every device. Values are clamped after every step and never rounded.
Shapes: `B` images, `H W` pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.errors import UsageError
from zerolabel.training.augment import LUMA, colour_matrix

# TransFGU: probabilities, and how far numbers stray from the ones that change nothing
JITTER, GREY, BLUR = 0.3, 0.2, 0.2
REACH, HUE = 0.8, 0.2  # of brightness, contrast and saturation around 1; of hue in turns
DEVIATION = (1.0, 2.0)  # of the blur, in pixels

# Segmenter: half of the images each
BRIGHTNESS = 32.0  # grey levels
FACTOR = 0.5  # of contrast and saturation, around 1
TURN = 0.1  # of hue, in turns: mmsegmentation's 18 are steps of OpenCV, of which 180 make a turn


def jitter(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation, hue and sharpness, one decision for the whole batch.

    With probability .3 brightness, contrast and saturation are multiplied by factors of .2 to 1.8
    and hue turns by up to .2, in this order, not in a random one; then follows grey, with
    probability .2, and with .2 a blur over 3 x 3 pixels. Hue turns around the grey axis, as in
    `augment`, which keeps luma only nearly; there is no detour over HSV.

    Args:
        images: float32 RGB (B, 3, H, W), 0..255.
        generator: source of all randomness, on the CPU.

    Returns:
        Same shape, type and range; `images` itself if nothing happens.

    Raises:
        UsageError: images of another shape or type, or a generator elsewhere.

    Source: Yin et al. 2022 (TransFGU), the authors' code.
    """
    _check(images, generator)
    coins = torch.rand(3, generator=generator).tolist()
    numbers = torch.rand(5, generator=generator)
    if coins[0] < JITTER:
        around = (2 * numbers[:4] - 1) * torch.tensor([REACH, REACH, REACH, HUE])
        brightness, contrast = (1 + around[:2]).tolist()
        images = (images * brightness).clamp_(0, 255)
        mean = _grey(images).mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
        images = torch.lerp(mean, images, contrast).clamp_(0, 255)
        matrix = colour_matrix(1 + around[2:3], around[3:])[0].to(images)  # (3, 3)
        images = (matrix @ images.flatten(2)).reshape(images.shape).clamp_(0, 255)
    if coins[1] < GREY:
        images = _grey(images).clamp(0, 255).expand(-1, 3, -1, -1).clone()
    if coins[2] < BLUR:
        low, high = DEVIATION
        images = _blur(images, low + (high - low) * float(numbers[4])).clamp(0, 255)
    return images


def photometric(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of half of the images each.

    Brightness moves by up to 32 grey levels, contrast (around black) and HSV's saturation change by
    factors of .5 to 1.5, and HSV's hue moves by up to 36 degrees. Brightness comes first; a coin
    puts contrast before saturation and hue, or after them.

    Args:
        images: float32 RGB (B, 3, H, W), 0..255.
        generator: source of all randomness, on the CPU.

    Returns:
        Same shape, type and range, a new tensor; images that no coin fell for stay as they are.

    Raises:
        UsageError: images of another shape or type, or a generator elsewhere.

    Source: Strudel et al. 2021 (Segmenter), who take mmsegmentation's distortion. There, values are
    rounded down to whole grey levels after each step, and hue to whole steps of 2 degrees.
    """
    _check(images, generator)
    coins = torch.rand(5, len(images), generator=generator) < 0.5
    late = coins[4]
    numbers = 2 * torch.rand(4, len(images), generator=generator) - 1  # (4, B)
    images = images.clone()
    steps = (
        (_brighten, coins[0], BRIGHTNESS * numbers[0]),
        (_multiply, coins[1] & ~late, 1 + FACTOR * numbers[1]),
        (_saturate, coins[2], 1 + FACTOR * numbers[2]),
        (_turn, coins[3], TURN * numbers[3]),
        (_multiply, coins[1] & late, 1 + FACTOR * numbers[1]),
    )
    for change, coin, number in steps:
        which = coin.nonzero()[:, 0]
        by = number[which, None, None, None].to(images)
        which = which.to(images.device)
        images[which] = change(images[which], by).clamp_(0, 255)
    return images


def _brighten(images: Tensor, by: Tensor) -> Tensor:
    return images + by


def _multiply(images: Tensor, by: Tensor) -> Tensor:
    return images * by


def _saturate(images: Tensor, by: Tensor) -> Tensor:
    """Multiply HSV's saturation, at most up to 1: what a channel lacks of the brightest one."""
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    most = value / (value - least)  # brings the weakest channel to 0; infinite for grey
    return value - (value - images) * torch.where(value > least, by.minimum(most), by)


def _turn(images: Tensor, by: Tensor) -> Tensor:
    """Move HSV's hue by turns: along the hexagon of colours with one value and saturation."""
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.chunk(3, dim=1)
    safe = torch.where(chroma > 0, chroma, 1)  # grey has no hue, and needs none
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )  # (B, 1, H, W), in sixths of a turn
    corner = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    away = (corner + hue + 6 * by).remainder(6)  # (B, 3, H, W)
    return value - chroma * away.minimum(4 - away).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W)."""
    weights = images.new_tensor(LUMA)[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def _blur(images: Tensor, deviation: float) -> Tensor:
    """Blur with a Gaussian of 3 x 3 pixels; the border mirrors the row or column beside it."""
    side = math.exp(-0.5 / deviation**2)
    side, middle = side / (1 + 2 * side), 1 / (1 + 2 * side)
    mode = "reflect" if min(images.shape[2:]) > 1 else "replicate"
    x = F.pad(images, (1, 1, 1, 1), mode=mode)
    x = side * (x[:, :, :-2] + x[:, :, 2:]) + middle * x[:, :, 1:-1]
    return side * (x[..., :-2] + x[..., 2:]) + middle * x[..., 1:-1]


def _check(images: Tensor, generator: torch.Generator) -> None:
    """Complain of other images, and of numbers that would differ between devices."""
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise UsageError(f"Expected float32 images (B, 3, H, W) in 0..255, found {found}.")
    if generator.device.type != "cpu":
        raise UsageError(f"Expected a generator on the CPU, found one on {generator.device}.")
