"""What can be read from the last block of a vision transformer, and no more work than that takes.

For keys only the key projection runs, for the CLS attention only one query, for the CLS token only
its own row. No N x N matrix is ever held: attention is fused, the row of CLS is h x N, and what
patches receive is summed over tiles of queries.
Shapes: `B` images, `T` tokens (CLS, registers, patches), `D` channels, `h w` patch grid,
`R` regions of one image.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.networks.gradcam import cls_row
from zerolabel.networks.transformer import KEY, QUERY, VALUE, Attention, Block
from zerolabel.types import Features

NEEDS = {  # projections that each feature is made of
    "tokens": {QUERY, KEY, VALUE},
    "keys": {KEY},
    "queries": {QUERY},
    "values": {VALUE},
    "cls": {QUERY, KEY, VALUE},
    "attention": {QUERY, KEY},
    "received": {QUERY, KEY},
    "context": set[int](),
    "slopes": set[int](),
}
OUTPUTS = tuple(NEEDS)
OF_PATCHES = {"queries": QUERY, "keys": KEY, "values": VALUE}  # no other token has a part in them


def read(
    block: Block, norm: nn.Module, z: Tensor, *, grid: tuple[int, int], want: frozenset[str]
) -> Features:
    """Run as much of the last block as `want` needs.

    Args:
        block: the last block.
        norm: the network's last norm.
        z: tokens that enter the block, float32 (B, T, D).
        grid: the patch grid (h, w); the last h*w tokens are the patches.
        want: names out of `OUTPUTS`.

    Returns:
        The features asked for; the others are None.
    """
    cells = grid[0] * grid[1]
    parts = _project(block, z, cells=cells, want=want)

    def patches(rows: Tensor) -> Tensor:
        return rows[:, -cells:].reshape(len(z), *grid, -1)  # (B, h, w, D)

    found = {name: patches(parts[which]) for name, which in OF_PATCHES.items() if name in want}
    if "context" in want:
        found["context"] = z
    if "attention" in want:
        paid = block.attn.weights(parts[QUERY][:, :1], parts[KEY])[:, :, 0, -cells:]
        found["attention"] = paid.reshape(*paid.shape[:2], *grid)  # (B, heads, h, w)
    if "slopes" in want:
        row = cls_row(block, cast(nn.LayerNorm, norm), z, grid=grid)
        found["slopes"] = row.slopes().permute(0, 2, 3, 1)  # (B, h, w, D)
    if "received" in want:
        found["received"] = patches(received(block.attn, parts[QUERY], parts[KEY]))[..., 0]
    if want & {"tokens", "cls"}:
        rows = z if "tokens" in want else z[:, :1]  # whose results are needed: all, or CLS
        mixed = block.attn.mix(parts[QUERY][:, : rows.shape[1]], parts[KEY], parts[VALUE])
        out = norm(block.finish(rows, mixed))
        found |= {"cls": out[:, 0]} if "cls" in want else {}
        found |= {"tokens": patches(out)} if "tokens" in want else {}
    return Features(**found)


def _project(block: Block, z: Tensor, *, cells: int, want: frozenset[str]) -> dict[int, Tensor]:
    """Compute the queries, keys and values (B, T, D) that are needed, of the rows that are."""
    needed: set[int] = set().union(*(NEEDS[name] for name in want))
    if not needed:
        return {}
    normed = block.norm1(z[:, -cells:] if want <= {*OF_PATCHES, "context"} else z)
    asking = normed if want & {"tokens", "received", "queries"} else normed[:, :1]
    return {
        which: block.attn.part(asking if which == QUERY else normed, which)
        for which in sorted(needed)
    }


def received(attn: Attention, q: Tensor, k: Tensor) -> Tensor:
    """Sum up the attention that every token receives in all heads at once.

    Args:
        attn: the attention of a block.
        q: queries, float32 (B, S, D), heads concatenated.
        k: keys, float32 (B, T, D).

    Returns:
        float32 (B, T), 0..S: minimum over heads of the softmaxed attention, summed over queries.

    Source:
        Li et al. 2023 (ACSeg) sum the last layer's self-attention to tell objects from background.
        How pairs of patches become a map they do not say; this is how a public re-implementation
        reads them.
    """
    total = torch.zeros_like(k[..., 0])
    tile = 4 * k.shape[-1] // attn.heads  # heads x tile = 4 D: as many numbers as the MLP holds
    for start in range(0, q.shape[1], tile):
        weights = attn.weights(q[:, start : start + tile], k)  # (B, heads, tile, T)
        total = total + weights.amin(1).sum(1)
    return total


def within(block: Block, norm: nn.Module, z: Tensor, masks: Tensor) -> Tensor:
    """Let CLS attend to itself and one region's patches in the last block, for every region.

    Args:
        block: the last block.
        norm: the network's last norm.
        z: tokens of one image that enter the block, float32 (T, D).
        masks: patches of every region, bool (R, h, w); the last h*w tokens are the patches.

    Returns:
        CLS token of every region after the last norm, float32 (R, D). Registers are hidden, and an
        empty region leaves CLS to itself. Costs one row per region: keys and values are shared.
    """
    regions, h, w = masks.shape
    normed = block.norm1(torch.cat([z[:1], z[-h * w :]]))[None]  # (1, 1 + h*w, D)
    q = block.attn.part(normed[:, :1], QUERY).expand(-1, regions, -1)
    k, v = (block.attn.part(normed, which) for which in (KEY, VALUE))
    seen = torch.cat([masks.new_ones(regions, 1), masks.flatten(1)], 1)  # (R, 1 + h*w)
    attended = block.attn.mix(q, k, v, mask=seen)
    out: Tensor = norm(block.finish(z[:1].expand(1, regions, -1), attended))
    return out[0]
