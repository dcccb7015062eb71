"""The student and its teacher: a backbone with the heads that it needs while it learns."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.networks.heads import ProjectionHead, reset_head
from zerolabel.networks.transformer import Block
from zerolabel.networks.vit import ViT, VitConfig, random_vit, vit_config
from zerolabel.training.config import Pretrain


class Twin(nn.Module):
    """A vision transformer with one head for images and one for patches.

    Attributes:
        backbone: what is kept in the end.
        head: from a token that stands for the image to what the objective compares.
        dense_head: the same for patch tokens; None without a dense objective.
        mask_token: (D,), stands for a hidden patch.
    """

    def __init__(self, backbone: ViT, config: Pretrain) -> None:
        super().__init__()
        dim = backbone.config.dim
        count = config.prototypes if config.objective == "dino" else 0

        def head(prototypes: int) -> ProjectionHead:
            return ProjectionHead(
                dim, hidden=config.hidden, bottleneck=config.bottleneck, prototypes=prototypes
            )

        self.backbone = backbone
        self.head = head(count)
        self.dense_head = head(count // 2) if config.dense != "none" else None
        self.mask_token = nn.Parameter(torch.zeros(dim))

    def rows(self, cls: Tensor, tokens: Tensor, which: str) -> list[Tensor]:
        """Project what stands for an image, CLS, the mean patch, or both: (B, K or d) each."""
        chosen = [cls] if which in ("cls", "both") else []
        if which in ("mean", "both"):
            chosen.append(tokens.mean(dim=(1, 2)))
        return [self.head(x) for x in chosen]


def make_twins(config: Pretrain, *, start: ViT | None = None) -> tuple[Twin, Twin]:
    """Build a student and a teacher that is its copy.

    Args:
        config: the settings.
        start: a backbone to go on from; random weights by default.

    Returns:
        Student, trainable, and teacher, frozen; both on the CPU.
    """
    net = start if start is not None else random_vit(network(config), seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed + 1)
    student = Twin(deepcopy(net), config)
    reset_head(student.head, generator=generator)
    if student.dense_head is not None:
        reset_head(student.dense_head, generator=generator)
    teacher = deepcopy(student).requires_grad_(False).eval()
    depth = len(student.backbone.blocks)
    for i, block in enumerate(student.backbone.blocks):
        cast(Block, block).drop_path.rate = config.drop_path * i / max(1, depth - 1)
    return student.train(), teacher


def network(config: Pretrain) -> VitConfig:
    """The network that the settings describe; positions are learned on the global views' grid."""
    grid = config.global_size // config.patch
    return vit_config(config.arch, config.patch, grid=grid, conv_stem=config.conv_stem)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Move the teacher towards the student: an exponential moving average of all parameters.

    Source:
        Caron et al. 2021, section 3.1.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
