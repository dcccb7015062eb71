"""Which pictures the attention viewer draws of an image, and the files they end in.

Shapes: `h w` patch grid, `H W` pixels.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from zerolabel.data.transforms import to_tensor
from zerolabel.jobs.looking.attend import Chosen, Seen
from zerolabel.jobs.looking.media import Item, Media
from zerolabel.ops.maps import Limits, combine, guided, normalise, to_pixels
from zerolabel.ops.pca import Pca
from zerolabel.outputs.heat import TILE, beside, binary, contour, heat, heat_overlay, strip
from zerolabel.outputs.overlay import thumbnail
from zerolabel.outputs.video import FORMATS, Write, open_video
from zerolabel.store import write_bytes
from zerolabel.types import Image

SHOWS = ("overlay", "heat", "contour", "mask", "side-by-side", "strip", "pca")
SAME = {"video": "mp4", "animation": "gif", "frames": "frames"}  # a clip leaves as it came
COMPRESSION = 4  # of PNG; level 9 takes ten times as long for little


@dataclass
class Ranges:
    """The values that get the first and the last colour.

    Attributes:
        fixed: for everything, if given.
        shared: by label, found by looking at all images.
    """

    fixed: Limits | None = None
    shared: dict[str, Limits] = field(default_factory=dict)

    def widen(self, label: str, values: Tensor) -> None:
        """Let the shared range of a label hold these values too."""
        low, high = self.shared.get(label, (float("inf"), float("-inf")))
        self.shared[label] = (min(low, float(values.min())), max(high, float(values.max())))

    def of(self, label: str, values: Tensor) -> Limits:
        """The range for a map: fixed, shared, or its own."""
        own = (float(values.min()), float(values.max()))
        return self.fixed or self.shared.get(label, own)


def labelled(chosen: Mapping[str, Chosen], seen: Seen, shows: Collection[str]) -> dict[str, Tensor]:
    """Collect every map that will be drawn: for a strip all heads and their mean, and those chosen.

    Args:
        chosen: from `Watcher.choose`.
        seen: from `Watcher.look`.
        shows: what is drawn.

    Returns:
        Label -> float32 (h, w).
    """
    maps: dict[str, Tensor] = {}
    if "strip" in shows and len(seen.maps) > 1:
        maps = {f"head{i}": map_ for i, map_ in enumerate(seen.maps)}
        maps["mean"] = combine(seen.maps, "mean")
    return maps | {label: one.map for label, one in chosen.items()}


class Brush:
    """Draws an image's maps."""

    def __init__(
        self, shows: Collection[str], *, ranges: Ranges, upsample: str, pca: Pca | None
    ) -> None:
        """Take what all images have in common.

        Args:
            shows: pictures out of `SHOWS`.
            ranges: of the colours.
            upsample: "nearest", "bilinear" or "guided".
            pca: needed to show "pca".
        """
        self.shows, self.ranges, self.upsample, self.pca = shows, ranges, upsample, pca

    def pictures(
        self, image: Image, seen: Seen, chosen: Mapping[str, Chosen]
    ) -> Iterator[tuple[str, Image]]:
        """Draw everything that is asked for.

        Args:
            image: uint8 (H, W, 3).
            seen: what the network said about it.
            chosen: the maps to draw.

        Yields:
            The end of a name, such as "overlay-mean", and a picture, uint8; all but "strip" and
            "side-by-side" have the size of the image.
        """
        for label, one in chosen.items():
            limits = self.ranges.of(label, one.map)
            yield from self._single(image, seen, label, one, limits)
        if "strip" in self.shows:
            yield "strip", self._strip(image, seen, labelled(chosen, seen, self.shows))
        if "pca" in self.shows and self.pca is not None and seen.tokens is not None:
            yield "pca", self._components(image, seen, self.pca, seen.tokens)

    def _single(
        self, image: Image, seen: Seen, label: str, one: Chosen, limits: Limits
    ) -> Iterator[tuple[str, Image]]:
        """Draw one map in every way that is asked for."""
        asked = [show for show in self.shows if show not in ("strip", "pca")]
        if {"overlay", "heat", "side-by-side"} & set(asked):
            values = self._wide(normalise(one.map, limits)[None], image, seen)[0].numpy()
        if {"contour", "mask"} & set(asked):
            mask = self._wide(one.mask[None].float(), image, seen)[0].numpy() > 0.5
        for show in asked:
            if show == "overlay":
                picture = heat_overlay(image, values)
            elif show == "heat":
                picture = heat(values)
            elif show == "contour":
                picture = contour(image, mask)
            elif show == "mask":
                picture = binary(mask)
            else:
                picture = beside([image, heat(values)], limits=limits)
            yield f"{show}-{label}", picture

    def _strip(self, image: Image, seen: Seen, maps: Mapping[str, Tensor]) -> Image:
        """Draw the photo and every map as small tiles."""
        small = thumbnail(image, side=TILE)
        tiles = {"photo": small}
        for label, map_ in maps.items():
            values = normalise(map_, self.ranges.of(label, map_))
            tiles[label] = heat(self._wide(values[None], small, seen)[0].numpy())
        return strip(tiles)

    def _components(self, image: Image, seen: Seen, pca: Pca, tokens: Tensor) -> Image:
        """Colour the foreground by its components; the background is black."""
        colours, inside = pca.maps(tokens)
        weight = inside.float()
        # Colours of the background mean nothing: they must not bleed over the edge.
        layers = torch.cat([(colours * weight[..., None]).permute(2, 0, 1), weight[None]])
        wide = self._wide(layers, image, seen)
        colours = torch.where(wide[3] > 0.5, wide[:3] / wide[3].clamp_min(1e-6), 0.0)
        drawn: Image = (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return np.ascontiguousarray(drawn)

    def _wide(self, maps: Tensor, image: Image, seen: Seen) -> Tensor:
        """Bring maps (C, h, w) to the pixels of the image."""
        if self.upsample == "guided":
            return guided(maps, to_tensor(image), cover=seen.cover)
        size = (image.shape[0], image.shape[1])
        return to_pixels(maps, size, cover=seen.cover, mode=self.upsample)


class Sink:
    """Where pictures go: a file each, or one clip for every kind of picture."""

    def __init__(self, root: Path, media: Media, wanted: str | None, stack: ExitStack) -> None:
        """Open nothing yet.

        Args:
            root: the folder.
            media: what is shown.
            wanted: a key of `FORMATS`; None for that of the source.
            stack: closes the clips, or drops them on an error.
        """
        self.root, self.media, self.stack = root, media, stack
        self.files: list[str] = []
        self.clips: dict[str, Write] = {}
        self.suffix = ".png"
        if media.clip is not None:
            self.suffix = FORMATS[wanted or SAME[media.clip.kind]]

    def put(self, item: Item, kind: str, picture: Image) -> None:
        """Write a picture, or add it to its clip.

        Args:
            item: the image that it shows.
            kind: the end of its name.
            picture: uint8 (H, W, 3).
        """
        path = self.root / f"{item.name}-{kind}{self.suffix}"
        if self.media.clip is None:
            flat = picture[..., 0] if kind.startswith("mask-") else picture
            buffer = io.BytesIO()
            Pillow.fromarray(flat).save(buffer, "PNG", compress_level=COMPRESSION)
            write_bytes(path, buffer.getvalue())
            self.files.append(path.relative_to(self.root).as_posix())
            return
        if kind not in self.clips:
            size = (picture.shape[0], picture.shape[1])
            clip = open_video(path, size=size, fps=self.media.clip.fps)
            self.clips[kind] = self.stack.enter_context(clip)
            self.files.append(path.name)
        self.clips[kind](picture)
