"""The pre-norm transformer block whose queries, keys and values can be computed one by one.

Attention is fused (`scaled_dot_product_attention`), so no T x T matrix is held unless a caller asks
for `Attention.weights`. State-dict names are those of DINO and timm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.ops.activations import Activation, activate

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
        """Attend with queries (B, S, D) to keys and values (B, T, D), and project: (B, S, D).

        `mask` as in `gather`.
        """
        return self.project(self.gather(q, k, v, mask=mask))

    def gather(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Mix values (B, T, D) by what queries (B, S, D) find in keys (B, T, D): (B, S, D).

        `mask`, bool (S, T) or (B, 1, S, T), says which keys a query sees; every query sees at least
        one. `causal`, instead of a mask, lets every token see itself and those before it.
        """
        q, k, v = self.split(q), self.split(k), self.split(v)
        rate = self.drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal
        )
        return mixed.transpose(1, 2).flatten(2)

    def project(self, mixed: Tensor) -> Tensor:
        """Bring the heads of mixed values (..., D) together: (..., D)."""
        out: Tensor = self.drop(self.proj(mixed))
        return out

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Softmaxed attention of queries (B, S, D) over keys (B, T, D): (B, heads, S, T)."""
        head_dim = q.shape[-1] // self.heads
        scores = self.split(q * head_dim**-0.5) @ self.split(k).transpose(-2, -1)
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        """Self-attention of (B, T, D); `causal` as in `gather`."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.project(self.gather(q, k, v, causal=causal))


class Mlp(nn.Module):
    """Two linear layers with an activation between, and dropout after both while training."""

    def __init__(
        self, dim: int, hidden: int, *, dropout: float = 0.0, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.drop(self.fc2(self.drop(activate(self.fc1(x), self.activation))))
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
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.drop_path = DropPath()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, dropout=dropout, activation=activation)
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def finish(
        self, z: Tensor, attended: Tensor, *, residual: bool = True, mlp: bool = True
    ) -> Tensor:
        """Add the attention's result to the same rows of z, then the MLP's.

        Without `residual` the attention's result replaces z, without `mlp` nothing is added.
        """
        attended = self.drop_path(self.ls1(attended))
        z = z + attended if residual else attended
        return z + self.drop_path(self.ls2(self.mlp(self.norm2(z)))) if mlp else z

    def forward(self, z: Tensor, *, causal: bool = False) -> Tensor:
        """(B, T, D) -> (B, T, D); `causal` lets every token see itself and those before it."""
        return self.finish(z, self.attn(self.norm1(z), causal=causal))


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


Net = TypeVar("Net", bound=nn.Module)


def draw_weights(net: Net, *, seed: int) -> Net:
    """Fill a network with random weights under which different inputs stay different.

    Weights are truncated normal with a deviation of 1/sqrt(inputs of a unit), so that every layer
    keeps the scale of what enters it; norms start at 1 and biases at 0. Queries and keys get twice
    that: attention is then to a few tokens, where it would be close to the mean of all, and texts
    that differ in one word would come out alike: "a photo of a {}." of ten words, byte by byte,
    has a mean cosine of 0.96 between words without the two at CLIP's size, and 0.69 with it.

    Args:
        net: the network, on the CPU; changed in place.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The network.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim == 1:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            inputs = len(value) if name == "proj" else value[0].numel()
            nn.init.trunc_normal_(value, std=inputs**-0.5, generator=generator)
            if name.endswith("attn.qkv.weight"):
                value[: VALUE * value.shape[1]] *= 2
    return net
