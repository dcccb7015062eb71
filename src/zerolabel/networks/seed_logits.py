"""The attention viewer's second reading: raw logits of the last block, averaged over all queries.

Shapes: `B` images, `h w` patch grid, `T` tokens, `D` channels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from zerolabel.networks.transformer import KEY, QUERY, Block
from zerolabel.networks.vit import ViT

FLOOR = -4.0  # lower values are cut off


def seed_logits(net: ViT, x: Tensor, *, floor: float = FLOOR) -> Tensor:
    """Average the last block's q.k over all queries and heads, for every patch.

    Queries and keys are taken from the block's input *without* its norm; the products are neither
    scaled nor softmaxed; CLS and registers ask, but are not asked. The mean of q.k over the
    queries is (mean of q).k, so no T x T matrix is needed.

    Args:
        net: the network.
        x: normalised images, float32 (B, 3, H, W).
        floor: values below become this one.

    Returns:
        float32 (B, h, w), `floor` or more; logits, not shares of anything.

    No paper defines this map; viewers that store q and k of the last block draw it. Caron et al.
    2021 draw the softmaxed row of CLS instead.
    """
    with torch.no_grad():
        z, grid = net.trunk(x)
        attention = cast(Block, net.blocks[-1]).attn
        q = attention.part(z, QUERY).mean(1, keepdim=True)  # (B, 1, D)
        k = attention.part(z[:, 1 + net.config.registers :], KEY)  # (B, h*w, D)
        # the sum over D runs over the channels of all heads, one after the other
        logits = (k @ q.transpose(1, 2))[..., 0] / attention.heads
    return logits.clamp_min(floor).reshape(len(x), *grid)
