"""The decoders of Segmenter: from patch tokens to a score for every class at every patch.

The mask transformer lets patches and one learned token per class look at each other and compares
them by cosine; TransFGU's decoder is a setting of it. State-dict names are the original project's,
without its prefix `decoder.`.
Shapes: `B` images, `h w` patch grid, `N = h*w` patches, `K` classes, `D` channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError, unknown_name
from zerolabel.networks.transformer import KEY, QUERY, Block

HEAD_DIM = 64  # of the heads where a preset does not count them


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The linear decoder.

    Attributes:
        encoder_dim: channels of the patch tokens.
        classes: K.
    """

    encoder_dim: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class MaskTransformerConfig:
    """The mask transformer; the defaults are the original project's.

    Attributes:
        encoder_dim: channels of the patch tokens that come in.
        classes: K.
        dim: D, channels inside; 0 stands for `encoder_dim`.
        depth: number of blocks.
        heads: attention heads; `dim` is a multiple of it. 0 stands for one per 64 channels.
        hidden: channels inside the MLP of a block; 0 stands for four times `dim`.
        dropout: share dropped while training, of the attention and after each linear layer of the
            blocks.
        qkv_bias: whether queries, keys and values have a bias.
        orthogonal: whether class tokens start orthogonal to each other, not merely random.
        eps: epsilon of the layer norms.
    """

    encoder_dim: int
    classes: int
    dim: int = 0
    depth: int = 2
    heads: int = 0
    hidden: int = 0
    dropout: float = 0.1
    qkv_bias: bool = True
    orthogonal: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        dim = self.dim or self.encoder_dim
        object.__setattr__(self, "dim", dim)
        object.__setattr__(self, "heads", self.heads or max(1, dim // HEAD_DIM))
        object.__setattr__(self, "hidden", self.hidden or 4 * dim)
        if dim % self.heads:
            raise UsageError(
                f"The channels are shared among the heads: expected a multiple of {self.heads}, "
                f"found dim {dim}."
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"Expected a dropout from 0 up to below 1, found {self.dropout}.")


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "official": {},  # Strudel et al. 2021 and their code
        # the comparison "Context is all you need", whose decoder is as deep as its encoder
        "seed": {"dim": 192, "depth": 12, "heads": 12, "hidden": 2048},
        "transfgu": {"qkv_bias": False, "orthogonal": True},  # Yin et al. 2022 and their code
    }
)


def mask_transformer_config(
    preset: str, *, encoder_dim: int, classes: int
) -> MaskTransformerConfig:
    """Describe a published mask transformer.

    Args:
        preset: a name in `PRESETS`.
        encoder_dim: channels of the patch tokens.
        classes: K.

    Returns:
        The configuration.

    Raises:
        UsageError: the preset is unknown.
    """
    if preset not in PRESETS:
        raise unknown_name("mask transformer", preset, PRESETS)
    return MaskTransformerConfig(encoder_dim=encoder_dim, classes=classes, **PRESETS[preset])


class LinearDecoder(nn.Module):
    """One linear layer from a patch token to the scores of its classes."""

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(config.encoder_dim, config.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score patch tokens (B, h, w, encoder_dim): logits (B, K, h, w)."""
        _check(tokens, self.config.encoder_dim)
        return cast(Tensor, self.head(tokens)).permute(0, 3, 1, 2)


class MaskTransformer(nn.Module):
    """Transformer blocks over patches and class tokens, compared by cosine in the end.

    Source:
        Strudel et al., "Segmenter", ICCV 2021, section 3.2. As in their code, the scores are
        normalised over the classes at the patches' resolution, before any upsampling or softmax;
        so with one class they are its bias alone.
    """

    def __init__(self, config: MaskTransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim, eps = config.dim, config.eps
        self.cls_emb = nn.Parameter(torch.zeros(1, config.classes, dim))
        self.proj_dec = nn.Linear(config.encoder_dim, dim)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.heads,
                config.hidden,
                eps=eps,
                qkv_bias=config.qkv_bias,
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.decoder_norm = nn.LayerNorm(dim, eps=eps)
        self.proj_patch = nn.Parameter(torch.zeros(dim, dim))
        self.proj_classes = nn.Parameter(torch.zeros(dim, dim))
        self.mask_norm = nn.LayerNorm(config.classes, eps=eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score patch tokens (B, h, w, encoder_dim): logits (B, K, h, w)."""
        return self.decode(tokens)[0]

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Score every class at every patch, and say what the classes have become in each image.

        Args:
            tokens: patch tokens after the encoder's last norm, float32 (B, h, w, encoder_dim).

        Returns:
            Logits (B, K, h, w), and class embeddings (B, K, D) of length 1; float32 under mixed
            precision, too.

        Raises:
            UsageError: tokens of another width.
        """
        z = self._enter(tokens)
        for block in self.blocks:
            z = block(z)
        z = self.decoder_norm(z)
        cells = z.shape[1] - self.config.classes
        patches, classes = z[:, :cells] @ self.proj_patch, z[:, cells:] @ self.proj_classes
        exact = torch.promote_types(z.dtype, torch.float32)
        # the norm enlarges small differences of cosines, which half precision would not hold
        with torch.autocast(z.device.type, enabled=False):
            patches, classes = (F.normalize(x.to(exact), dim=2) for x in (patches, classes))
            scores: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))  # (B, N, K)
        B, h, w, _ = tokens.shape
        return scores.transpose(1, 2).reshape(B, -1, h, w), classes  # (B, K, h, w)

    def attention(self, tokens: Tensor, *, block: int = -1) -> Tensor:
        """Say how much every class looks at every patch within a block.

        Args:
            tokens: patch tokens, float32 (B, h, w, encoder_dim).
            block: which one; negative ones count from the last.

        Returns:
            float32 (B, heads, K, h, w), 0..1; the sum over patches is what the class leaves to
            other class tokens short of 1.

        Raises:
            UsageError: no such block, or tokens of another width.
        """
        depth = len(self.blocks)
        if not -depth <= block < depth:
            raise UsageError(f"Expected a block from {-depth} to {depth - 1}, found {block}.")
        blocks = cast("list[Block]", list(self.blocks))
        z = self._enter(tokens)
        for before in blocks[: block % depth]:
            z = before(z)
        asked = blocks[block]
        normed = asked.norm1(z)
        cells = z.shape[1] - self.config.classes
        q, k = asked.attn.part(normed[:, cells:], QUERY), asked.attn.part(normed, KEY)
        weights = asked.attn.weights(q, k)[..., :cells]  # (B, heads, K, N)
        return weights.reshape(*weights.shape[:3], *tokens.shape[1:3])

    def _enter(self, tokens: Tensor) -> Tensor:
        """Put the class tokens behind the patches: (B, N + K, D)."""
        _check(tokens, self.config.encoder_dim)
        patches = self.proj_dec(tokens.flatten(1, 2))
        return torch.cat([patches, self.cls_emb.expand(len(tokens), -1, -1)], dim=1)


def decoder(
    config: LinearConfig | MaskTransformerConfig, *, seed: int
) -> LinearDecoder | MaskTransformer:
    """Build a decoder with random weights that depend on the seed alone.

    Args:
        config: which one.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The decoder on the CPU, trainable.
    """
    made: LinearDecoder | MaskTransformer
    with torch.device("meta"):  # so that no constructor draws from the global generator
        made = (
            LinearDecoder(config) if isinstance(config, LinearConfig) else MaskTransformer(config)
        )
    made = made.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    orthogonal = isinstance(config, MaskTransformerConfig) and config.orthogonal
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "norm" in name or name.endswith("bias"):
                value.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name in ("proj_patch", "proj_classes"):
                value.normal_(std=len(value) ** -0.5, generator=generator)
            elif name == "cls_emb" and orthogonal:
                nn.init.orthogonal_(value[0], generator=generator)  # of one image: rows are classes
            else:
                nn.init.trunc_normal_(value, std=0.02, generator=generator)
    return made


def _check(tokens: Tensor, dim: int) -> None:
    """Complain of tokens of another encoder."""
    if tokens.ndim != 4 or tokens.shape[3] != dim:
        raise UsageError(
            f"The decoder expects patch tokens (B, h, w, {dim}), found {tuple(tokens.shape)}. Use "
            "the backbone that it was trained with."
        )
