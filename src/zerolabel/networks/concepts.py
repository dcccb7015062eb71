"""The concept generator of ACSeg: a few learned prototypes that adapt to the patches of an image.

Shapes: `B` images, `N` patches, `K` concepts, `D` channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerolabel.errors import UsageError

SHARP = 2.0  # slope of the first attention in the product of prototype and patch
HEAD = 64  # channels of an attention head, as in the transformers that give the features


@dataclass(frozen=True, kw_only=True)
class ConceptConfig:
    """Settings; K and the number of steps are the paper's, the rest is not published.

    Attributes:
        dim: D, channels of patches and concepts.
        concepts: K, the most that an image can have.
        steps: updates of the prototypes.
        heads: of both attentions; `dim` is a multiple of it. 0 stands for one per 64 channels, or
            as many as divide `dim`.
        hidden: channels inside the feed-forward network; 0 stands for four times `dim`.
        norm_first: normalise before each part of a step instead of after it.
        share_steps: use the same weights in every step.
    """

    dim: int
    concepts: int = 5
    steps: int = 6
    heads: int = 0
    hidden: int = 0
    norm_first: bool = False
    share_steps: bool = False

    def __post_init__(self) -> None:
        most = max(1, self.dim // HEAD)
        heads = self.heads or next(n for n in range(most, 0, -1) if not self.dim % n)
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "hidden", self.hidden or 4 * self.dim)
        if self.dim % self.heads:
            raise UsageError(
                f"The channels are shared among the heads: expected a multiple of {self.heads}, "
                f"found dim {self.dim}."
            )


class FewToMany(nn.Module):
    """Multi-head attention of a few queries to many patches.

    Keys and values of all patches would cost 2 N D^2. Instead the queries go through the key
    projection backwards, and what they gather goes through the value projection: with q W the same
    dot products, in about 2 K heads / D of the work. The key's bias adds the same to all logits of
    a query, which the softmax does not see, so there is none.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, few: Tensor, many: Tensor) -> Tensor:
        """Attend with (B, K, D) to (B, N, D): (B, K, D)."""
        B, K, D = few.shape
        h, d = self.heads, D // self.heads
        q = self.query(few).reshape(B, K, h, d) * d**-0.5
        key, value = (layer.weight.reshape(h, d, D) for layer in (self.key, self.value))
        q = torch.einsum("bkhd,hdc->bhkc", q, key).flatten(1, 2)  # (B, h K, D)
        weights = (q @ many.transpose(1, 2)).softmax(dim=2)  # (B, h K, N)
        seen = (weights @ many).reshape(B, h, K, D)
        mixed = torch.einsum("bhkc,hdc->bkhd", seen, value).flatten(2)
        out: Tensor = self.proj(mixed + self.value.bias)  # weights sum to 1
        return out


class Step(nn.Module):
    """One update: from the patches, from each other, through a feed-forward network."""

    def __init__(self, config: ConceptConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm_first = config.norm_first
        self.cross = FewToMany(dim, config.heads)
        self.mutual = FewToMany(dim, config.heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, concepts: Tensor, patches: Tensor) -> Tensor:
        """Update concepts (B, K, D) by patches (B, N, D)."""
        c: Tensor = concepts
        norm1, norm2, norm3 = self.norms
        if self.norm_first:
            c = c + self.cross(norm1(c), patches)
            n = norm2(c)
            c = c + self.mutual(n, n)
            c = c + self.mlp(norm3(c))
        else:
            c = norm1(c + self.cross(c, patches))
            c = norm2(c + self.mutual(c, c))
            c = norm3(c + self.mlp(c))
        return c


class ConceptGenerator(nn.Module):
    """Prototypes that become the concepts of an image.

    Attributes:
        config: the settings.
        prototypes: (K, D), the same for all images; their length does not count.

    Source:
        Li et al., "ACSeg", CVPR 2023, the adaptive concept generator; order of the parts as in its
        figure 2.
    """

    def __init__(self, config: ConceptConfig) -> None:
        super().__init__()
        self.config = config
        self.prototypes = nn.Parameter(torch.zeros(config.concepts, config.dim))
        count = 1 if config.share_steps else config.steps
        self.steps = nn.ModuleList(Step(config) for _ in range(count))

    def forward(self, patches: Tensor) -> Tensor:
        """Adapt the prototypes to patches (B, N, D): concepts (B, K, D), not normalised.

        Only the directions of patches count: like the prototypes, and like what leaves a layer
        norm, they get the length sqrt(D), whatever the backbone.
        """
        length = math.sqrt(self.config.dim)
        patches = F.normalize(patches, dim=2) * length
        concepts = (F.normalize(self.prototypes, dim=1) * length).expand(len(patches), -1, -1)
        for i in range(self.config.steps):
            concepts = self.steps[i % len(self.steps)](concepts, patches)
        return concepts


def concept_generator(config: ConceptConfig, *, seed: int = 0) -> ConceptGenerator:
    """Build a generator with random weights: truncated normal of deviation 0.02, zero biases.

    Queries and keys of the attention to patches start near a multiple of the identity, so that a
    prototype looks first at patches like itself; where it looks everywhere at first, training needs
    several times the steps (docs/methods/acseg.md).

    Args:
        config: the settings.
        seed: fixes every weight.

    Returns:
        The generator, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    made = ConceptGenerator(config)
    with torch.no_grad():
        made.prototypes.normal_(generator=generator)
        for module in made.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        for module in made.modules():
            if isinstance(module, Step):
                module.cross.query.weight += math.sqrt(SHARP) * torch.eye(config.dim)
                module.cross.key.weight += math.sqrt(SHARP) * torch.eye(config.dim)
    return made
