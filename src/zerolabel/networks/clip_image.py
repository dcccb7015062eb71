"""The image tower of CLIP: a vision transformer that ends in the space it shares with texts.

Besides all features of `networks.vit` it gives the image in that space (`joint`), and the patches
(`dense`), read the way of MaskCLIP: in the last block every patch keeps its own value, as if it
attended to nothing but itself. That takes no query, no key and no attention.
Shapes: `B` images, `D` channels of the tower, `P` channels shared with texts, `h w` patch grid.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from zerolabel.errors import unknown_name
from zerolabel.networks.reading import OUTPUTS, read
from zerolabel.networks.transformer import Block, draw_weights
from zerolabel.networks.vit import ViT, VitConfig
from zerolabel.ops.position import interpolate_positions
from zerolabel.types import Features

CLIP_OUTPUTS = (*OUTPUTS, "dense", "joint")


@dataclass(frozen=True)
class Reading:
    """What follows the values in the last block; as published, both.

    Attributes:
        residual: whether a patch's token is added to its projected value.
        mlp: whether the MLP follows, with its residual.

    Source: Zhou et al. 2022 (MaskCLIP) drop query and key; that residual and MLP stay, their code
        says.
    """

    residual: bool = True
    mlp: bool = True


PUBLISHED = Reading()


class ClipImage(ViT):
    """A vision transformer with a projection to the space of texts.

    Source: Radford et al. 2021 (CLIP), Zhou et al. 2022 (MaskCLIP, section 3.2).
    """

    def __init__(self, config: VitConfig, projection: int) -> None:
        """Build the tower.

        Args:
            config: published ones have `pre_norm`, activation "quick", epsilon 1e-5 and positions
                by the rule "size".
            projection: channels P of the space shared with texts.
        """
        super().__init__(config)
        self.proj = nn.Parameter(torch.zeros(config.dim, projection))

    def forward(
        self, x: Tensor, want: Collection[str], *, reading: Reading = PUBLISHED
    ) -> Features:
        """Compute features of a batch, and nothing that was not asked for.

        Args:
            x: normalised images, float32 (B, 3, H, W), H and W at least one patch; what exceeds a
                multiple of the patch is cut off at the bottom and the right.
            want: names out of `CLIP_OUTPUTS`.
            reading: how `dense` is read.

        Returns:
            The features asked for; the others are None. Gradients flow through all of them.

        Raises:
            UsageError: an unknown name in `want`.
        """
        for name in want:
            if name not in CLIP_OUTPUTS:
                raise unknown_name("feature", name, CLIP_OUTPUTS)
        asked = frozenset(want) & frozenset(OUTPUTS)
        made_of = {"dense": "values", "joint": "cls"}
        needed = asked | {part for name, part in made_of.items() if name in want}
        z, grid = self.trunk(x)
        found = read(cast(Block, self.blocks[-1]), self.norm, z, grid=grid, want=needed)
        given: dict[str, Tensor | None] = dict.fromkeys(needed - asked)
        if "dense" in want:
            given["dense"] = self._dense(z, cast(Tensor, found.values), reading)
        if "joint" in want:
            given["joint"] = cast(Tensor, found.cls) @ self.proj
        return replace(found, **given)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Carry the position embeddings over to a patch grid.

        Args:
            grid: rows and columns (h, w).

        Returns:
            float32 (h, w, D), without that of CLS.
        """
        rows = interpolate_positions(self.pos_embed[:, 1:], grid, rule=self.config.pos_interp)
        return rows.reshape(*grid, -1)

    def _dense(self, z: Tensor, values: Tensor, reading: Reading) -> Tensor:
        """Send values (B, h, w, D) of the last block, which tokens z entered, on: (B, h, w, P)."""
        block, cells = cast(Block, self.blocks[-1]), values.shape[1:3]
        own = block.attn.project(values.flatten(1, 2))  # (B, h*w, D)
        patches = z[:, -own.shape[1] :]
        out = block.finish(patches, own, residual=reading.residual, mlp=reading.mlp)
        found: Tensor = self.norm(out) @ self.proj
        return found.reshape(len(z), *cells, -1)


def random_clip_image(config: VitConfig, projection: int, *, seed: int) -> ClipImage:
    """Build a tower with random weights that depend on the seed alone.

    Unlike with `networks.vit.random_vit`, different images and patches get clearly different
    features, see `networks.transformer.draw_weights`: at the size of ViT-B/16 the mean cosine is
    0.5 between photos (`joint`), and 0.6 between the patches of one (`dense`).

    Args:
        config: the tower.
        projection: channels P of the space shared with texts.
        seed: of the generator; the global random state is neither used nor changed.

    Returns:
        The tower on the CPU, trainable.
    """
    with torch.device("meta"):  # so that no constructor draws from the global generator
        net = ClipImage(config, projection)
    return draw_weights(net.to_empty(device="cpu"), seed=seed)
