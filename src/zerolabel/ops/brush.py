"""Run lengths as Label Studio keeps the strokes of a brush: a stream of bits.

The stream packs the red, green, blue and alpha values of all pixels, row by row; a mask has 255 in
all four inside a region and 0 outside. It begins with the number of values (32 bits), bits per
value less 1 (5), and four sizes less 1 (4 bits each). Each block says whether it repeats one value
(1 bit), which of the sizes its length has (2), and its length less 1; then comes the value, or all
of them. Source of the format: rle-pack of thi.ng/umbrella, which Label Studio reads with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zerolabel.ops.rle import Counts

CHANNELS = 4
VALUE_BITS = 8
SIZES = np.array([3, 4, 8, 16])  # bits for the length of a block, as Label Studio itself writes
LONGEST = 1 << 16


def pack(counts: Sequence[Counts]) -> list[NDArray[np.uint8]]:
    """Pack the masks of an image's regions, all regions at once.

    Args:
        counts: one array per region, runs along the rows as `rle.encode` returns them: they
            alternate between outside and inside, and add up to H * W.

    Returns:
        The bytes of each region's stream, uint8 (n,).
    """
    if not counts:
        return []
    runs = np.array([len(one) for one in counts])
    lengths = CHANNELS * np.concatenate(counts)
    place = np.arange(len(lengths)) - np.repeat(np.cumsum(runs) - runs, runs)
    blocks = -(-lengths // LONGEST)  # a run longer than a block can be is several; 0 for none
    less1 = np.full(blocks.sum(), LONGEST - 1)
    less1[np.cumsum(blocks)[blocks > 0] - 1] = (lengths[blocks > 0] - 1) % LONGEST
    value = np.repeat(np.where(place % 2, 255, 0), blocks)
    owners = np.repeat(np.repeat(np.arange(len(counts)), runs), blocks)
    kind = np.searchsorted(1 << SIZES, less1, side="right")
    # 1 for a repeated value, which size, the length, the value
    codes = (((0b100 | kind) << SIZES[kind]) | less1) << VALUE_BITS | value
    return _streams(_header(int(counts[0].sum())), codes, 3 + SIZES[kind] + VALUE_BITS, owners)


def _header(pixels: int) -> NDArray[np.uint8]:
    """The bits in front of every stream."""
    fields = [(CHANNELS * pixels, 32), (VALUE_BITS - 1, 5), *((size - 1, 4) for size in SIZES)]
    return np.array([int(bit) for number, width in fields for bit in f"{number:0{width}b}"], "u1")


def _streams(
    header: NDArray[np.uint8],
    codes: NDArray[np.int64],
    widths: NDArray[np.int64],
    owners: NDArray[np.int64],
) -> list[NDArray[np.uint8]]:
    """Write numbers one behind the other, the highest bit first; every stream fills its bytes."""
    used = np.bincount(owners, widths).astype(np.int64)
    sizes = -(-(len(header) + used) // 8)
    starts = 8 * (np.cumsum(sizes) - sizes)
    shifts = starts + len(header) - (np.cumsum(used) - used)
    ends = np.cumsum(widths) + shifts[owners]
    bits = np.zeros(8 * sizes.sum(), np.uint8)
    bits[starts[:, None] + np.arange(len(header))] = header
    for place in range(int(widths.max())):  # from the lowest bit up
        has = widths > place
        bits[ends[has] - 1 - place] = codes[has] >> place & 1
    return np.split(np.packbits(bits), np.cumsum(sizes)[:-1])
