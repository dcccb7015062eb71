"""From photos to attention maps: the size they are looked at, the forward, the choice of heads.

Shapes: `heads`, `M` maps of an image, `h w` patch grid, `H W` pixels, `D` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones.vit import VitBackbone
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import ImageError, UsageError, unknown_name
from zerolabel.networks.seed_logits import seed_logits
from zerolabel.ops.maps import best_head, combine, mass_threshold, to_pixels
from zerolabel.ops.resize import resize
from zerolabel.types import IGNORE, Image, LabelMap

MODES = ("attention", "seed-logits")
HEADS = ("mean", "max", "union", "all", "best")  # or the index of one
MOST_PATCHES = 65_536  # of one image; time grows with their square
Size = int | tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """What the network said about one image, on the CPU.

    Attributes:
        maps: float32 (M, h, w): all heads, or one map where no more is needed.
        cover: shares of the image's height and width that the grid covers.
        tokens: float32 (h, w, D), if asked for.
        attention: float32 (heads, h, w), if tokens were asked for.
    """

    maps: Tensor
    cover: tuple[float, float]
    tokens: Tensor | None = None
    attention: Tensor | None = None


@dataclass(frozen=True)
class Chosen:
    """A map to draw, its mask, and, where the best head was asked for, which one it is.

    Attributes:
        map: float32 (h, w).
        mask: bool (h, w).
        best: the head and its Jaccard index, or None.
    """

    map: Tensor
    mask: Tensor
    best: tuple[int, float] | None = None


class Watcher:
    """A network and what is asked of it."""

    def __init__(
        self, backbone: backbones.Backbone, *, size: Size, mode: str, heads: str, mass: float
    ) -> None:
        """Check that the network can answer.

        Args:
            backbone: gives attention.
            size: pixels of the short side, or (H, W).
            mode: one of `MODES`.
            heads: a word of `HEADS`, or an index.
            mass: share of the mass that masks keep, 0..1.

        Raises:
            UsageError: it has no attention, no such head, or patches larger than the size.
        """
        backbones.require(backbone, "attention", "tokens")
        if not isinstance(backbone, VitBackbone):
            raise UsageError(f"The viewer needs a vision transformer, found {backbone.name!r}.")
        self.backbone, self.size, self.mode, self.mass = backbone, size, mode, mass
        self.heads: int | str = int(heads) if heads.isdecimal() else heads
        count = backbone.net.config.heads
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        if isinstance(self.heads, str) and heads not in HEADS:
            raise unknown_name("choice of heads", heads, (*HEADS, *map(str, range(count))))
        if isinstance(self.heads, int) and self.heads >= count:
            raise UsageError(f"{backbone.name} has heads 0 to {count - 1}, but no head {heads}.")
        if mode == "seed-logits" and heads != "mean":
            raise UsageError("seed-logits is a mean over all heads. Leave --heads out.")
        if min(size if isinstance(size, tuple) else (size,)) < backbone.stride:
            found = f"{backbone.name} has patches of {backbone.stride} pixels"
            raise UsageError(f"{found}; --size must be at least that, not {size}.")

    def working_size(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Find the size at which an image is looked at.

        A single number is the short side; it is rounded down to whole patches, the aspect is kept,
        and of the long side what exceeds whole patches is cut off. Two numbers stretch the image.

        Args:
            height: of the image, in pixels.
            width: likewise.

        Returns:
            (H, W) to resize to, and (H, W) to keep of that, multiples of the patch.

        Raises:
            ImageError: so long an image that it has too many patches.
        """
        patch = self.backbone.stride
        if isinstance(self.size, tuple):
            rows, columns = (side // patch * patch for side in self.size)
            whole = (rows, columns)
        else:
            scale = self.size // patch * patch / min(height, width)
            whole = (round(height * scale), round(width * scale))
        cut = (whole[0] // patch * patch, whole[1] // patch * patch)
        patches = (cut[0] // patch) * (cut[1] // patch)
        if patches > MOST_PATCHES:
            raise ImageError(
                f"{height}x{width} pixels are {patches:,} patches of {patch} pixels at this size; "
                f"at most {MOST_PATCHES:,} are allowed. Give a smaller --size"
            )
        return whole, cut

    def look(self, images: Sequence[Image], *, tokens: bool, every_head: bool) -> list[Seen]:
        """Run the network; neighbours of one size share a forward.

        Args:
            images: uint8 (H, W, 3) each.
            tokens: whether patch tokens are wanted.
            every_head: whether all heads are wanted, also where `heads` asks for fewer.

        Returns:
            What was seen, in the order of the images.
        """
        found: list[Seen] = []
        for _, group in groupby(images, key=lambda image: image.shape):
            same = list(group)
            whole, cut = self.working_size(same[0].shape[0], same[0].shape[1])
            batch = torch.cat([resize(to_tensor(image)[None], whole) for image in same])
            maps, rest = self._forward(batch[..., : cut[0], : cut[1]], tokens, every_head)
            cover = (cut[0] / whole[0], cut[1] / whole[1])
            found += [Seen(maps[i], cover, *(part[i] for part in rest)) for i in range(len(same))]
        return found

    def choose(self, seen: Seen, truth: LabelMap | None = None) -> dict[str, Chosen]:
        """Choose among the maps of an image, and threshold them.

        Args:
            seen: from `look`.
            truth: integer (H, W), 0 for background, 255 for unknown; needed for the best head.

        Returns:
            Label -> map and mask.

        Raises:
            ImageError: the ground truth holds no object.
        """
        maps, mass = seen.maps, self.mass
        if self.mode == "seed-logits":  # logits have no mass; their height above the lowest does
            return {self.mode: Chosen(maps[0], mass_threshold(maps[0] - maps[0].min(), mass))}
        if self.heads == "best":
            return {"best": self._best(seen, truth)}
        if self.heads == "union":
            mask = combine(mass_threshold(maps, mass), "union")
            return {"union": Chosen(combine(maps, "union"), mask)}
        if self.heads == "all":
            masks = mass_threshold(maps, mass)
            return {f"head{i}": Chosen(maps[i], masks[i]) for i in range(len(maps))}
        chosen = maps[0] if len(maps) == 1 else combine(maps, self.heads)
        label = self.heads if isinstance(self.heads, str) else f"head{self.heads}"
        return {label: Chosen(chosen, mass_threshold(chosen, mass))}

    def _forward(
        self, images: Tensor, tokens: bool, every_head: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return maps (B, M, h, w), and (tokens, attention) if tokens are wanted."""
        maps: Tensor | None = None
        if self.mode == "seed-logits":
            maps = seed_logits(self.backbone.net, self.backbone.prepare(images))[:, None].cpu()
            if not tokens:
                return maps, ()
        want = {"attention", "tokens"} if tokens else {"attention"}
        features = self.backbone.encode(images, want=want)
        attention = features.attention
        if attention is None:
            raise UsageError(f"{self.backbone.name} gave no attention.")
        attention = attention.cpu()
        if maps is None:
            one = isinstance(self.heads, int) or self.heads in ("mean", "max")
            reduce = one and not every_head
            maps = combine(attention, self.heads)[:, None] if reduce else attention
        return maps, () if features.tokens is None else (features.tokens.cpu(), attention)

    def _best(self, seen: Seen, truth: LabelMap | None) -> Chosen:
        """Take the head whose mask agrees best with the foreground of the ground truth."""
        if truth is None:
            raise ImageError("no ground truth, which --heads best needs")
        masks = mass_threshold(seen.maps, self.mass)
        size = (truth.shape[0], truth.shape[1])
        wide = to_pixels(masks.float(), size, cover=seen.cover) > 0.5
        labels = torch.from_numpy(truth.astype("int64"))
        try:
            best = best_head(wide, (labels > 0) & (labels != IGNORE), valid=labels != IGNORE)
        except UsageError as error:
            raise ImageError(str(error)) from None
        return Chosen(seen.maps[best[0]], masks[best[0]], best)
