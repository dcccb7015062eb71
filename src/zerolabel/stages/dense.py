"""The verb encode, for methods with words: dense features of whole photos, each at its own shape.

Shapes: `h w` patch grid, `P` channels of the space shared with texts, `D` channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.data.transforms import to_tensor
from zerolabel.errors import ImageError
from zerolabel.ops.resize import resize
from zerolabel.store import Arrays, Stage, Store
from zerolabel.types import Sample


@dataclass(frozen=True, kw_only=True)
class Look:
    """At which size photos are looked at.

    Attributes:
        short: pixels of the short side.
        longest: the most pixels of the long side; a longer photo is shrunk until it fits.
    """

    short: int = 336
    longest: int = 2048


@dataclass(frozen=True)
class Seen:
    """What was seen in a photo.

    Attributes:
        sample: the photo.
        dense: unit vectors, float32 (h, w, P).
        keys: of the last block, float32 (h, w, D); None where nobody asked for them.
    """

    sample: Sample
    dense: Tensor
    keys: Tensor | None = None


def whole(shape: tuple[int, int], look: Look, *, patch: int) -> tuple[int, int]:
    """Scale the size of a photo, and round it to whole patches.

    The published code pads the last patches with zeros instead; here they hold photo.

    Args:
        shape: (H, W) in pixels.
        look: the wanted size.
        patch: side of a patch in pixels.

    Returns:
        (H, W) in pixels, multiples of the patch, at least one each.
    """
    scale = min(look.short / min(shape), look.longest / max(shape))
    height, width = (max(1, round(side * scale / patch)) * patch for side in shape)
    return height, width


def photos(
    backbone: ClipBackbone,
    batch: Sequence[Sample],
    look: Look,
    *,
    keys: bool = False,
    store: Store,
) -> tuple[list[Seen], dict[str, str]]:
    """Encode whole photos, or read what was encoded before; photos of one size share a forward.

    Args:
        backbone: gives dense features.
        batch: the photos.
        look: at which size.
        keys: whether keys are wanted, too.
        store: keeps the features as float16, half a unit in the third digit.

    Returns:
        What was seen in those that could be read, in their order, and id -> reason for the others.
    """

    def work() -> Stage:
        images, failures = {}, {}
        for i, sample in enumerate(batch):
            try:
                image = sample.load()
            except ImageError as error:
                failures[sample.id] = str(error)
                continue
            size = whole((image.shape[0], image.shape[1]), look, patch=backbone.stride)
            images[i] = resize(to_tensor(image)[None], size, mode="bilinear")
        arrays: Arrays = {"kept": np.array(sorted(images), np.int64)}
        for group in _alike(images):
            pixels = torch.cat([images[i] for i in group])
            for i, found in zip(group, _encode(backbone, pixels, keys=keys), strict=True):
                arrays |= {f"{i}.{name}": value.numpy() for name, value in found.items()}
        return Stage(arrays, failures)

    kind = "dense-keys" if keys else "dense"
    done = store.stage(cache.key(kind, batch, backbone.digest, look), work)

    def read(i: int, name: str) -> Tensor:
        return torch.from_numpy(done.arrays[f"{i}.{name}"]).float()

    seen = [
        Seen(batch[i], read(i, "dense"), read(i, "keys") if keys else None)
        for i in done.arrays["kept"].tolist()
    ]
    return seen, done.info


def _alike(images: dict[int, Tensor]) -> list[list[int]]:
    """Group images (1, 3, H, W) by their size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in images.items():
        groups.setdefault(tuple(image.shape), []).append(i)
    return list(groups.values())


def _encode(backbone: ClipBackbone, pixels: Tensor, *, keys: bool) -> Iterator[dict[str, Tensor]]:
    """Encode images (B, 3, H, W) of one size: for each its features as float16, on the CPU."""
    found = backbone.encode(pixels, want={"dense", "keys"} if keys else {"dense"})
    assert found.dense is not None  # it was asked for
    named = {"dense": F.normalize(found.dense, dim=-1)}
    if found.keys is not None:
        named["keys"] = found.keys
    halves = {name: value.half().cpu() for name, value in named.items()}
    for i in range(len(pixels)):
        yield {name: value[i].contiguous() for name, value in halves.items()}
