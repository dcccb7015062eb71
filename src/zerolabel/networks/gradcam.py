"""How the CLS token changes with the attention that the last block pays to each patch, exactly.

Attention is taken after the softmax, as if it could be chosen freely. From the last block only the
row of CLS is computed. Keys and values are never formed: a projection that meets a single query, or
a few gradients, is applied to these instead of to all tokens, so nothing costs N x D x D.
Shapes: `B` images, `T` tokens (CLS, registers, patches), `D` channels, `K` centres, `h w` patch
grid.

Source: Yin et al., "TransFGU", ECCV 2022, equations 5 and 6, whose K backward passes through the
network this replaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zerolabel.networks.transformer import KEY, QUERY, VALUE, Attention, Block
from zerolabel.ops.activations import activate
from zerolabel.ops.gradcam import cls_gradients, layer_norm_pull, mlp_pull


@dataclass(frozen=True)
class ClsRow:
    """The CLS token's way through the last block.

    Attributes:
        cls: CLS token after the last norm, float32 (B, D).
        attention: softmaxed attention from CLS to the patches, mean over heads, float32 (B, h, w).
        normed: patch tokens after the block's first norm, float32 (B, h, w, D).
        attended: CLS after attention, where the MLP begins, float32 (B, D).
        hidden: what enters the MLP's activation, float32 (B, E).
        left: CLS as it leaves the block, before the last norm, float32 (B, D).
        block: the last block.
        norm: the network's last norm.
    """

    cls: Tensor
    attention: Tensor
    normed: Tensor
    attended: Tensor
    hidden: Tensor
    left: Tensor
    block: Block
    norm: nn.LayerNorm

    def gradients(self, centres: Tensor, *, loss: str = "cosine") -> Tensor:
        """Differentiate the loss of every centre with respect to the attention to every patch.

        Args:
            centres: of clusters of CLS tokens, float32 (K, D), on the network's device.
            loss: "cosine" or "dot", see `ops.gradcam.cls_gradients`.

        Returns:
            Mean over heads, float32 (B, K, h, w); one image's do not depend on the others.

        Raises:
            UsageError: as `ops.gradcam.cls_gradients`.
        """
        return self._to_attention(cls_gradients(self.cls, centres, loss=loss))

    def slopes(self) -> Tensor:
        """Differentiate every channel of the CLS token with respect to the attention.

        For many sets of centres: `gradients` is `cls_gradients` times this, one product per set.

        Returns:
            Mean over heads, float32 (B, D, h, w).
        """
        eye = torch.eye(self.cls.shape[1], dtype=self.cls.dtype, device=self.cls.device)
        return self._to_attention(eye.expand(len(self.cls), -1, -1))

    def _to_attention(self, upstream: Tensor) -> Tensor:
        """Pull gradients with respect to the CLS token, (B, K, D), back to (B, K, h, w)."""
        block, attn = self.block, self.block.attn
        back = layer_norm_pull(upstream, self.left, self.norm.weight, eps=self.norm.eps)
        # a layer scale is its own transpose
        mlp = block.mlp
        inner = mlp_pull(
            block.ls2(back),
            self.hidden,
            mlp.fc1.weight,
            mlp.fc2.weight,
            activation=mlp.activation,
        )
        norm = block.norm2
        back = back + layer_norm_pull(inner, self.attended, norm.weight, eps=norm.eps)
        # Heads are concatenated, so a sum over all D channels is the sum over heads.
        back = block.ls1(back) @ attn.proj.weight / attn.heads
        weight, bias = _projection(attn, VALUE)
        found: Tensor = (back @ weight) @ self.normed.flatten(1, 2).transpose(1, 2)  # (B, K, h*w)
        found = found + (back @ bias)[..., None]
        return found.reshape(*upstream.shape[:2], *self.normed.shape[1:3])


def cls_row(block: Block, norm: nn.LayerNorm, z: Tensor, *, grid: tuple[int, int]) -> ClsRow:
    """Send the CLS token through the last block, and keep what its derivatives need.

    Args:
        block: the last block, its projections with bias; nothing is dropped, even in training.
        norm: the network's last norm.
        z: tokens that enter the block, float32 (B, T, D).
        grid: the patch grid (h, w); the last h*w tokens are the patches.

    Returns:
        The row, with the CLS token and the attention that `networks.reading.read` would give.
    """
    attn, cells, (batch, _, dim) = block.attn, grid[0] * grid[1], z.shape
    normed = block.norm1(z)
    weights = _attend(attn, normed)
    weight, bias = _projection(attn, VALUE)
    seen = weights @ normed  # (B, heads, D); attention sums to 1, so it passes the bias by
    mixed = torch.einsum("bmd,med->bme", seen, weight.reshape(attn.heads, -1, dim)).flatten(1)
    attended = z[:, 0] + block.ls1(attn.proj(mixed + bias))
    hidden = block.mlp.fc1(block.norm2(attended))
    left = attended + block.ls2(block.mlp.fc2(activate(hidden, block.mlp.activation)))
    return ClsRow(
        cls=norm(left),
        attention=weights[..., -cells:].mean(1).reshape(batch, *grid),
        normed=normed[:, -cells:].reshape(batch, *grid, dim),
        attended=attended,
        hidden=hidden,
        left=left,
        block=block,
        norm=norm,
    )


def _attend(attn: Attention, normed: Tensor) -> Tensor:
    """Softmaxed attention of CLS to all tokens (B, T, D): (B, heads, T)."""
    batch, _, dim = normed.shape
    q = attn.part(normed[:, 0], QUERY).reshape(batch, attn.heads, -1)  # (B, heads, D/heads)
    keys = _projection(attn, KEY)[0].reshape(attn.heads, -1, dim)  # (heads, D/heads, D)
    asked = torch.einsum("bme,med->bmd", q * q.shape[-1] ** -0.5, keys)
    # The bias of the keys adds the same to every score of a head, which the softmax does not see.
    return (asked @ normed.transpose(1, 2)).softmax(-1)


def _projection(attn: Attention, which: int) -> tuple[Tensor, Tensor]:
    """Weight (D, D) and bias (D,) that make queries, keys or values."""
    dim = attn.proj.in_features
    rows = slice(which * dim, (which + 1) * dim)
    return attn.qkv.weight[rows], attn.qkv.bias[rows]
