"""Arrays that are mostly zero, made small: one bit per entry, half precision for what is not zero.

Shapes: `B` images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Arrays of one shape, one per image.

    Attributes:
        bits: uint8 (B, bytes), which entries are not zero, the first one highest.
        values: float16 (entries that are not zero,), over the scale of their image.
        scales: float32 (B,), above 0: the largest size of an entry.
        shape: of one array.
    """

    bits: NDArray[np.uint8]
    values: NDArray[np.float16]
    scales: NDArray[np.float32]
    shape: tuple[int, ...]


def pack(x: Tensor) -> Packed:
    """Make arrays small; entries keep three digits of the largest one of their image.

    Args:
        x: finite float (B, ...).

    Returns:
        What `unpack` takes. An entry below 3e-8 of the largest becomes zero.
    """
    rows = x.detach().float().flatten(1).cpu()
    scales = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    scales.clamp_min_(torch.finfo(rows.dtype).tiny)  # nothing is divided by 0
    small = (rows / scales[:, None]).half()
    kept = small != 0
    return Packed(
        np.packbits(kept.numpy(), axis=1),
        small[kept].numpy(),
        scales.numpy(),
        tuple(x.shape[1:]),
    )


def unpack(packed: Packed) -> Tensor:
    """Turn `pack` around: float32 (B, *shape)."""
    count = int(np.prod(packed.shape))
    kept = torch.from_numpy(bits_to_mask(packed.bits, count))
    x = torch.zeros(kept.shape)
    x[kept] = torch.from_numpy(packed.values).float()
    x *= torch.from_numpy(packed.scales)[:, None]
    return x.reshape(len(x), *packed.shape)


def bits_to_mask(bits: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Unpack the first `count` bits of every row, bool (B, count)."""
    return np.unpackbits(bits, axis=1, count=count).astype(bool)
