"""The pre-norm transformer block whose queries, keys and values can be computed one by one.

Attention is fused (`scaled_dot_product_attention`), so no T x T matrix is held unless a caller asks
for `Attention.weights`. State-dict names are those of DINO and timm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUERY, KEY, VALUE = 0, 1, 2  # order inside `Attention.qkv`


class LayerScale(nn.Module):
    """A learned scale per channel (Touvron et al. 2021, CaiT, eq. 2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Scale (..., D)."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention whose queries, keys and values can be computed one by one.

    Dropout, of a share of the attention and of what is returned, acts while training only.
    """

    def __init__(
        self, dim: int, heads: int, *, qkv_bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def part(self, x: Tensor, which: int) -> Tensor:
        """Compute only the queries, keys or values of (B, T, D): (B, T, D), heads concatenated."""
        dim = x.shape[-1]
        rows = slice(which * dim, (which + 1) * dim)
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(x, self.qkv.weight[rows], bias)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D/heads)."""
        batch, length, dim = x.shape
        return x.reshape(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Attend with queries (B, S, D) to keys and values (B, T, D): (B, S, D).

        `mask`, bool (S, T), says which keys a query sees; every query sees at least one.
        """
        q, k, v = self.split(q), self.split(k), self.split(v)
        rate = self.drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        out: Tensor = self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return out

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Softmaxed attention of queries (B, S, D) over keys (B, T, D): (B, heads, S, T)."""
        head_dim = q.shape[-1] // self.heads
        scores = self.split(q * head_dim**-0.5) @ self.split(k).transpose(-2, -1)
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention of (B, T, D)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.mix(q, k, v)


class Mlp(nn.Module):
    """Two linear layers with a GELU between, and dropout after both while training."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))
        return out


class DropPath(nn.Module):
    """Drops a residual branch of whole images while training (Huang et al. 2016).

    Attributes:
        rate: share of the images whose branch is dropped.
        generator: source of the random numbers, on the images' device; None for torch's own.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), with the same expectation."""
        if not self.training or not self.rate:
            return x
        noise = torch.rand(len(x), 1, 1, device=x.device, generator=self.generator)
        keep = noise >= self.rate
        return x * keep / (1 - self.rate)


class Block(nn.Module):
    """A pre-norm transformer block; `drop_path` may be set for training."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        eps: float = 1e-6,
        scaled: bool = False,
        qkv_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, dropout=dropout)
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def finish(self, z: Tensor, attended: Tensor) -> Tensor:
        """Add the attention's result to the same rows of z, then the MLP's."""
        z = z + self.drop_path(self.ls1(attended))
        out: Tensor = z + self.drop_path(self.ls2(self.mlp(self.norm2(z))))
        return out

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.finish(z, self.attn(self.norm1(z)))


def regularise(
    blocks: Sequence[nn.Module], *, drop_path: float = 0.0, dropout: float = 0.0
) -> None:
    """Set what blocks drop while they are trained; none of it is a weight.

    Args:
        blocks: of one network, in their order; changed in place.
        drop_path: share of the images whose residual branches the last block drops, 0..1; it rises
            linearly from 0 in the first one (Huang et al. 2016, section 3).
        dropout: share dropped of the attention and after each linear layer, 0..1.
    """
    deepest = max(1, len(blocks) - 1)
    for depth, block in enumerate(cast("Sequence[Block]", blocks)):
        block.drop_path.rate = drop_path * depth / deepest
        block.attn.drop.p = block.mlp.drop.p = dropout


@contextmanager
def seeded(seed: int, *, device: torch.device) -> Iterator[None]:
    """Let dropout draw from a seed, and leave torch's own random state as it was.

    Fused attention takes no generator: what it drops comes from torch's own state alone.

    Args:
        seed: fixes what is drawn inside the block.
        device: where the network is.
    """
    place = None if device.type == "cpu" else torch.get_device_module(device)
    before = torch.get_rng_state()
    before_there = place.get_rng_state() if place else None
    try:
        torch.default_generator.manual_seed(seed)
        if place:
            place.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(before)
        if place:
            place.set_rng_state(before_there)
