"""From samples to batches of one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zerolabel.errors import ImageError
from zerolabel.ops.resize import resize
from zerolabel.types import Image, Sample


def to_tensor(image: Image) -> Tensor:
    """Turn uint8 (H, W, 3) into uint8 (3, H, W) without copying."""
    return torch.from_numpy(image.copy() if not image.flags.writeable else image).permute(2, 0, 1)


def squash(image: Image, size: tuple[int, int]) -> Tensor:
    """Resize one image to a size, whatever its aspect (bicubic, antialiased).

    Args:
        image: uint8 (H, W, 3).
        size: (H, W) in pixels.

    Returns:
        uint8 (3, *size).
    """
    return resize(to_tensor(image)[None], size)[0].contiguous()


def load_batch(
    samples: Sequence[Sample], size: tuple[int, int]
) -> tuple[Tensor, list[Sample], dict[str, str]]:
    """Read and resize a batch; images that cannot be read are left out and reported.

    Args:
        samples: the samples of one batch.
        size: (H, W) in pixels.

    Returns:
        uint8 (B, 3, *size), the B samples that could be read, and id -> reason for the others.
    """
    images, kept, failures = [], [], {}
    for sample in samples:
        try:
            images.append(squash(sample.load(), size))
            kept.append(sample)
        except ImageError as error:
            failures[sample.id] = str(error)
    batch = torch.stack(images) if images else torch.empty(0, 3, *size, dtype=torch.uint8)
    return batch, kept, failures
