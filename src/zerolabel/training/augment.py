"""Random views of a batch, made on the device where the training runs.

Crop, flip, antialiased resizing and blur are linear and separable, so a view is two matrix
products per image; brightness, contrast, saturation, hue and grey are one 3x3 matrix per image.
All random numbers are drawn first, for the whole batch of all processes, so that a process applies
its slice and several processes see what one would have seen.

Shapes: `B` images, `S` side of the stored squares, `n` side of a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow
SOFT = 0.42  # deviation of the resampling kernel in output pixels: between bilinear and bicubic
BLUR = (0.1, 2.0)  # deviation in pixels of a view of 224 pixels (DINO)
JITTER = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation, hue (DINO)


@dataclass(frozen=True)
class View:
    """How one kind of view is drawn.

    Attributes:
        size: side n in pixels.
        scale: least and largest share of the image's area.
        blur: probability of a Gaussian blur.
        solarise: probability that bright pixels are inverted.
        colour: factor on the strength of the colour changes, 0..1.
    """

    size: int
    scale: tuple[float, float]
    blur: float = 0.5
    solarise: float = 0.0
    colour: float = 1.0


@dataclass(frozen=True)
class Draw:
    """The random numbers of one view for every image of a batch, all float32.

    Attributes:
        box: (B, 4), top, left, height and width in units of the image's side.
        flip: (B,), 1 where the view is mirrored.
        blur: (B,), deviation in pixels of the view.
        colour: (B, 3, 3), matrix on RGB without contrast.
        contrast: (B,), factor around the image's mean grey.
        solarise: (B,), 1 where bright pixels are inverted.
    """

    box: Tensor
    flip: Tensor
    blur: Tensor
    colour: Tensor
    contrast: Tensor
    solarise: Tensor

    def part(self, rows: slice) -> Draw:
        """The numbers of some images."""
        return Draw(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw(view: View, count: int, *, generator: torch.Generator) -> Draw:
    """Draw the random numbers of a view.

    Args:
        view: what is drawn.
        count: images B.
        generator: the source of all randomness; results are on its device.

    Returns:
        The numbers.

    Source:
        Caron et al. 2021, appendix C; a crop that would leave the image is cut to its side instead
        of being drawn again.
    """
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, device=device, generator=generator) * (high - low) + low

    def happens(probability: float) -> Tensor:
        return (uniform(0, 1) < probability).float()

    area, stretch = uniform(*view.scale), uniform(math.log(3 / 4), math.log(4 / 3))
    height = (area * torch.exp(-stretch)).sqrt().clamp(max=1)
    width = (area * torch.exp(stretch)).sqrt().clamp(max=1)
    top, left = uniform(0, 1) * (1 - height), uniform(0, 1) * (1 - width)
    # Published for 224 pixels; on smaller views the same blur would leave mud.
    blur = uniform(*BLUR) * min(1.0, 2 * view.size / 224) * happens(view.blur)
    jittered = happens(0.8) * view.colour
    brightness, contrast, saturation, hue = (
        1 + jittered * uniform(-reach, reach) if i < 3 else jittered * uniform(-reach, reach)
        for i, reach in enumerate(JITTER)
    )
    flip = happens(0.5)
    saturation = saturation * (1 - happens(0.2 * view.colour))
    colour = brightness[:, None, None] * colour_matrix(saturation, hue)
    box = torch.stack([top, left, height, width], dim=1)
    return Draw(box, flip, blur, colour, contrast, happens(view.solarise))


def apply(images: Tensor, drawn: Draw, *, size: int) -> Tensor:
    """Make the views.

    Args:
        images: uint8 RGB (B, 3, S, S).
        drawn: their random numbers.
        size: side n of the views.

    Returns:
        float32 (B, 3, n, n) in 0..1.
    """
    side = images.shape[-1]
    never = torch.zeros_like(drawn.flip)
    top, left, height, width = drawn.box.unbind(1)
    rows = resampling(top, height, never, drawn.blur, size=size, side=side)  # (B, n, S)
    columns = resampling(left, width, drawn.flip, drawn.blur, size=size, side=side)
    x = images.float() / 255
    x = rows[:, None] @ x @ columns[:, None].transpose(-1, -2)  # (B, 3, n, n)
    x = (drawn.colour @ x.flatten(2)).reshape(*x.shape[:2], size, size)
    grey = (x.mean(dim=(2, 3)) @ x.new_tensor(LUMA))[:, None, None, None]
    x = (grey + drawn.contrast[:, None, None, None] * (x - grey)).clamp(0, 1)
    inverted = (drawn.solarise[:, None, None, None] > 0) & (x >= 0.5)
    return torch.where(inverted, 1 - x, x)


def resampling(
    start: Tensor, length: Tensor, flip: Tensor, blur: Tensor, *, size: int, side: int
) -> Tensor:
    """Build the matrices that cut, mirror, resize and blur along one axis.

    Args:
        start: (B,), first coordinate in units of the image's side.
        length: (B,), in units of the image's side.
        flip: (B,), 1 to mirror.
        blur: (B,), deviation in output pixels.
        size: output pixels n.
        side: input pixels S.

    Returns:
        (B, n, S), rows sum to 1: Gaussians around the source of each output pixel, wide enough to
        hold every input pixel when the image shrinks.
    """
    at = (torch.arange(size, device=start.device) + 0.5) / size  # (n,)
    at = torch.where(flip[:, None] > 0, 1 - at, at)  # (B, n)
    centre = (start[:, None] + at * length[:, None]) * side - 0.5
    step = length * side / size  # input pixels per output pixel
    deviation = ((SOFT * step.clamp(min=1)) ** 2 + (blur * step) ** 2).sqrt()
    offset = torch.arange(side, device=start.device) - centre[..., None]  # (B, n, S)
    return (-0.5 * (offset / deviation[:, None, None]) ** 2).softmax(dim=-1)


def colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """Write changes of saturation and hue as matrices on RGB.

    Args:
        saturation: (B,), 0 for grey, 1 for no change.
        hue: (B,), in turns around the grey axis, 0 for no change.

    Returns:
        (B, 3, 3), hue first.
    """
    eye = torch.eye(3, device=hue.device)
    grey = hue.new_tensor(LUMA).expand(3, 3)
    angle = 2 * math.pi * hue[:, None, None]
    axis = torch.full((3, 3), 1 / 3, device=hue.device)  # projection on the grey axis
    cross = hue.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = axis + torch.cos(angle) * (eye - axis) + torch.sin(angle) * cross  # Rodrigues
    s = saturation[:, None, None]
    return s * turn + (1 - s) * grey
