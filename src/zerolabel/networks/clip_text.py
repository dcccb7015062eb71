"""The text tower of CLIP: a causal transformer, read at the end of the text.

Texts that begin alike can share that beginning: no token sees what comes after it, so the tokens of
a common prefix are the same for all texts, and `ClipText.after` computes them once. That is how a
learned prompt of 74 tokens before 150 words is affordable.
Shapes: `n` texts, `L` tokens of a text, `S0` tokens of a prefix, `S` tokens of a suffix, `P`
channels of the space shared with images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.errors import UsageError
from zerolabel.networks.transformer import KEY, QUERY, VALUE, Attention, Block, draw_weights
from zerolabel.ops.activations import Activation


@dataclass(frozen=True)
class ClipTextConfig:
    """What fixes a text tower, apart from its weights; by default that of CLIP ViT-B.

    Attributes:
        vocabulary: number of token ids; the end of a text has the highest.
        context: most tokens of a text.
        dim: channels of a token.
        depth: number of blocks.
        heads: attention heads; `dim` is a multiple of it.
        activation: of the MLPs, see `ops.activations`.
        eps: epsilon of the layer norms.
    """

    vocabulary: int = 49408
    context: int = 77
    dim: int = 512
    depth: int = 12
    heads: int = 8
    activation: Activation = "quick"
    eps: float = 1e-5


class ClipText(nn.Module):
    """A causal transformer over tokens, with a projection to the space of images.

    Of the last block only the row that is read is finished, and no token after the last that is
    read is computed at all.

    Source: Radford et al. 2021 (CLIP).
    """

    def __init__(self, config: ClipTextConfig, projection: int) -> None:
        """Build the tower; `projection` is the number of channels P shared with images."""
        super().__init__()
        self.config = config
        dim = config.dim
        self.token_embedding = nn.Embedding(config.vocabulary, dim)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context, dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, 4 * dim, eps=config.eps, activation=config.activation)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.proj = nn.Parameter(torch.zeros(dim, projection))

    def forward(self, ids: Tensor) -> Tensor:
        """Compute the features of texts.

        Args:
            ids: of tokens, int64 (n, L), 0..vocabulary - 1; a text ends where its highest id is
                first, and what comes after that does not matter.

        Returns:
            float32 (n, P), not normalised.

        Raises:
            UsageError: more tokens than the context holds.
        """
        return self.from_vectors(self.embed(ids), ids.argmax(-1))

    def embed(self, ids: Tensor) -> Tensor:
        """Look tokens up: int64 (...) -> float32 (..., dim), without positions."""
        found: Tensor = self.token_embedding(ids)
        return found

    def from_vectors(self, x: Tensor, at: Tensor) -> Tensor:
        """Compute the features of texts whose tokens are given as vectors.

        Args:
            x: tokens without positions, float32 (n, L, dim).
            at: token of each text that is read, int64 (n,), 0..L-1.

        Returns:
            float32 (n, P), not normalised.

        Raises:
            UsageError: more tokens than the context holds.
        """
        self._check(x.shape[1])
        length = int(at.max()) + 1  # causal: later tokens reach no row that is read
        z = x[:, :length] + self.positional_embedding[:length]
        *inner, last = cast("list[Block]", list(self.blocks))
        for block in inner:
            z = block(z, causal=True)
        row, seen = _rows(z, at), _up_to(at, length)
        normed = last.norm1(z)
        q = last.attn.part(_rows(normed, at), QUERY)[:, None]
        k, v = (last.attn.part(normed, which) for which in (KEY, VALUE))
        mixed = last.attn.mix(q, k, v, mask=seen[:, None, None])[:, 0]
        return self._project(last.finish(row, mixed))

    def after(self, prefix: Tensor, suffix: Tensor, at: Tensor) -> Tensor:
        """Compute the features of texts that share their beginning, which is run once.

        The same as `from_vectors` of prefix and suffix, in value and gradient.

        Args:
            prefix: tokens without positions, float32 (S0, dim).
            suffix: what follows in each text, float32 (n, S, dim).
            at: token of each suffix that is read, int64 (n,), 0..S-1.

        Returns:
            float32 (n, P), not normalised.

        Raises:
            UsageError: more tokens than the context holds.
        """
        start, texts = len(prefix), len(suffix)
        self._check(start + suffix.shape[1])
        length = int(at.max()) + 1
        pos = self.positional_embedding
        own = suffix[:, :length] + pos[start : start + length]
        z = torch.cat([prefix + pos[:start], own.flatten(0, 1)])  # (S0 + n*S, dim)
        *inner, last = cast("list[Block]", list(self.blocks))
        for block in inner:
            z = _continue(block, z, texts=texts, length=length)
        read = start + length * torch.arange(texts, device=z.device) + at
        normed = last.norm1(z)
        q = last.attn.part(normed[read], QUERY)[:, None]
        k, v = (last.attn.part(normed, which) for which in (KEY, VALUE))
        mixed = _follow(last.attn, q, k, v, seen=_up_to(at, length)[:, None])[:, 0]
        return self._project(last.finish(z[read], last.attn.project(mixed)))

    def _project(self, row: Tensor) -> Tensor:
        """What is read of each text, (n, dim) -> (n, P)."""
        found: Tensor = self.norm(row) @ self.proj
        return found

    def _check(self, length: int) -> None:
        if length > self.config.context:
            raise UsageError(
                f"Expected texts of at most {self.config.context} tokens, found {length}; shorten "
                "the texts, or the prompt before them."
            )


def _rows(z: Tensor, at: Tensor) -> Tensor:
    """One token of each text: (n, L, dim) -> (n, dim)."""
    return z[torch.arange(len(z), device=z.device), at]


def _up_to(at: Tensor, length: int) -> Tensor:
    """Which tokens of each text come no later than `at`: bool (n, L)."""
    return torch.arange(length, device=at.device) <= at[:, None]


def _continue(block: Block, z: Tensor, *, texts: int, length: int) -> Tensor:
    """Run a block on a prefix and on what follows it in every text, (S0 + n*S, dim).

    All but the attention takes every token by itself, and runs on all of them together.
    """
    attn, start = block.attn, len(z) - texts * length
    q, k, v = attn.qkv(block.norm1(z)).chunk(3, -1)
    prefix = attn.gather(*(x[None, :start] for x in (q, k, v)), causal=True)[0]
    causal = torch.ones(length, length, dtype=torch.bool, device=z.device).tril()
    rest = _follow(attn, q[start:].reshape(texts, length, -1), k, v, seen=causal)
    return block.finish(z, attn.project(torch.cat([prefix, rest.flatten(0, 1)])))


def _follow(attn: Attention, q: Tensor, k: Tensor, v: Tensor, *, seen: Tensor) -> Tensor:
    """Let suffixes attend to the whole prefix and to their own tokens.

    Args:
        attn: the attention of a block; only its number of heads counts.
        q: queries, float32 (n, A, dim); A = S, or 1 if one token of each text is read.
        k: keys of the prefix, then of all suffixes, float32 (S0 + n*S, dim).
        v: values, likewise.
        seen: which own tokens a query sees, bool (A, S) or (n, A, S).

    Returns:
        Mixed values, heads concatenated, float32 (n, A, dim).
    """
    texts, asking, dim = q.shape
    own = seen.shape[-1]
    start, heads, size = len(k) - texts * own, attn.heads, dim // attn.heads
    q = (q * size**-0.5).reshape(texts * asking, heads, size).transpose(0, 1)
    shared_k, shared_v = (x[:start].reshape(start, heads, size).transpose(0, 1) for x in (k, v))
    own_k, own_v = (  # (heads, n, S, size)
        x[start:].reshape(texts, own, heads, size).permute(2, 0, 1, 3) for x in (k, v)
    )
    # One product of all queries with the prefix, whose keys are not repeated for every text.
    before = q @ shared_k.transpose(1, 2)  # (heads, n*A, S0)
    among = q.reshape(heads, texts, asking, size) @ own_k.transpose(2, 3)
    among = among.masked_fill(~seen, -torch.inf).flatten(1, 2)  # (heads, n*A, S)
    weights = torch.cat([before, among], -1).softmax(-1)
    before, among = weights[..., :start], weights[..., start:]
    mixed = before @ shared_v  # (heads, n*A, size)
    mixed = mixed + (among.reshape(heads, texts, asking, own) @ own_v).flatten(1, 2)
    return mixed.transpose(0, 1).reshape(texts, asking, dim)


def random_clip_text(config: ClipTextConfig, projection: int, *, seed: int) -> ClipText:
    """Build a tower with random weights that depend on the seed alone.

    Different words get clearly different features, see `networks.transformer.draw_weights`.

    Args:
        config: the tower.
        projection: channels P of the space shared with images.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The tower on the CPU, trainable.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = ClipText(config, projection)
    return draw_weights(net.to_empty(device="cpu"), seed=seed)
