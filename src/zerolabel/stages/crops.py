"""Crops of images, sorted by attention into objects and background, each as its CLS token.

What TransFGU categorises before it discovers anything: squares of several sizes, cut where the
image is large, so that an object of any size fills one of them.
Shapes: `B` images, `n` crops, `D` channels, `H W` pixels.

Source: Yin et al., "TransFGU", ECCV 2022, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import Backbone, cache, require
from zerolabel.errors import UsageError
from zerolabel.ops import crops as geometry
from zerolabel.ops.resize import resize
from zerolabel.stages import encode
from zerolabel.store import Stage, Store
from zerolabel.types import Sample

OBJECTS, STUFF = 0, 1


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Options of the step.

    Attributes:
        zoom: crops are cut from images of so many times the size at which methods look at them.
        betas: sides of the crops, as shares of the shorter side of the image.
        windows: "paper" or "code", see `ops.crops.windows`.
        crop_size: side in pixels to which every crop is brought.
        crop_batch: crops per forward.
        prior: whether attention sorts crops into objects and background; else all are objects.
        prior_scale: attention is taken of images so many times as large as those that are cut; a
            large image costs more than its crops.
        objects: a crop is an object if a larger share of it is attended to, 0..1.
        stuff_share: a crop is background if a larger share of it is not, 0..1.
    """

    zoom: float = 2.0
    betas: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2)
    windows: str = "paper"
    crop_size: int = 224
    crop_batch: int = 32
    prior: bool = True
    prior_scale: float = 1.0
    objects: float = 0.5
    stuff_share: float = 0.8


@dataclass(frozen=True)
class Bank:
    """The crops of a batch that were kept.

    Attributes:
        cls: CLS tokens after the last norm, not normalised, float32 (n, D).
        kinds: int64 (n,), `OBJECTS` or `STUFF`.
        owners: int64 (n,), the image of the batch, among those that could be read.
        samples: these images.
        failures: id -> reason for the others.
    """

    cls: Tensor
    kinds: Tensor
    owners: Tensor
    samples: list[Sample]
    failures: dict[str, str]


def bank(
    backbone: Backbone,
    batch: Sequence[Sample],
    options: Crops,
    *,
    size: tuple[int, int],
    stuff: bool,
    store: Store,
) -> Bank:
    """Encode the crops of a batch of images, or read what was encoded before.

    Args:
        backbone: gives CLS and, for the prior, attention.
        batch: the images; crops of all of them share forwards.
        options: which crops.
        size: (H, W) in pixels at which the method looks at images.
        stuff: whether background crops are kept.
        store: keeps the tokens as float16.

    Returns:
        The crops in image order.

    Raises:
        UsageError: options that cannot be, or a backbone without CLS or attention.
    """
    check(options)
    require(backbone, "cls", *(["attention"] if options.prior else []))
    said = [getattr(options, field.name) for field in fields(Crops) if field.name != "crop_batch"]

    def work() -> Stage:
        height, width = (max(backbone.stride, round(side * options.zoom)) for side in size)
        loaded = encode.read(batch, (height, width))
        ids = {sample.id for sample in loaded.kept}
        ok = np.array([sample.id in ids for sample in batch])
        boxes, kinds = lay(backbone, loaded.images, options, stuff=stuff)
        owners, places = (kinds >= 0).nonzero(as_tuple=True)
        cut = _cut(loaded.images, boxes, kinds >= 0, options.crop_size)
        seen = (backbone.encode(x, want={"cls"}).cls for x in rebatched(cut, options.crop_batch))
        tokens = [cls.half().cpu() for cls in seen if cls is not None]  # none is: it was asked for
        cls = torch.cat(tokens) if tokens else torch.empty(0, backbone.dim, dtype=torch.half)
        arrays = {
            "cls": cls.numpy(),
            "kinds": kinds[owners, places].to(torch.uint8).numpy(),
            "owners": owners.to(torch.int32).numpy(),
            "ok": ok,
        }
        return Stage(arrays, loaded.failures)

    done = store.stage(cache.key("crops", batch, backbone.digest, size, stuff, said), work)
    return Bank(
        torch.from_numpy(done.arrays["cls"]).float(),
        torch.from_numpy(done.arrays["kinds"]).long(),
        torch.from_numpy(done.arrays["owners"]).long(),
        [sample for sample, ok in zip(batch, done.arrays["ok"], strict=True) if ok],
        done.info,
    )


def check(options: Crops) -> None:
    """Refuse options that cannot be, before any work is done.

    Raises:
        UsageError: the first one that is found.
    """
    scales = options.zoom, options.prior_scale
    if min(options.crop_batch, options.crop_size) < 1 or min(scales) <= 0:
        found = f"{options.crop_batch}, {options.crop_size}, {scales[0]} and {scales[1]}"
        raise UsageError(
            f"crop_batch, crop_size, zoom and prior_scale must be positive, got {found}."
        )
    geometry.windows((64, 64), options.betas, rule=options.windows)
    shares = torch.empty(0, 0, dtype=torch.float64)
    geometry.sort_crops(shares, foreground=options.objects, background=options.stuff_share)


def lay(
    backbone: Backbone, images: Tensor, options: Crops, *, stuff: bool
) -> tuple[Tensor, Tensor]:
    """Lay windows over a batch of images, and say what each shows.

    Args:
        backbone: gives attention.
        images: uint8 (B, 3, H, W).
        options: which windows, and from which share on they show an object or background.
        stuff: whether background counts.

    Returns:
        int64 (n, 4), the windows in pixels, beta by beta, and int64 (B, n): `OBJECTS`, `STUFF`, or
        -1 for crops that are dropped.
    """
    H, W = images.shape[2:]
    grid = H // backbone.stride, W // backbone.stride
    boxes = geometry.windows(grid, options.betas, rule=options.windows)
    pixels = geometry.in_pixels(boxes, backbone.stride, rule=options.windows)
    if not options.prior or not len(images):
        return pixels, torch.zeros(len(images), len(boxes), dtype=torch.int64)
    side = max(backbone.stride, round(H * options.prior_scale))
    small = side, max(backbone.stride, round(W * options.prior_scale))
    seen = torch.cat([_attention(backbone, resize(image[None], small)) for image in images])
    mask = geometry.foreground(seen)[None].float()  # (1, B, h, w)
    mask = F.interpolate(mask, size=grid, mode="nearest-exact")[0] > 0
    shares = geometry.shares(mask, boxes)
    found = geometry.sort_crops(shares, foreground=options.objects, background=options.stuff_share)
    kinds = torch.full(shares.shape, -1)
    kinds[found.foreground] = OBJECTS
    if stuff:
        kinds[found.background] = STUFF
    return pixels, kinds


def _attention(backbone: Backbone, image: Tensor) -> Tensor:
    """Attention of CLS, mean over heads, (1, h, w); images this large are looked at one by one."""
    seen = backbone.encode(image, want={"attention"}).attention
    assert seen is not None  # it was asked for
    return seen.mean(1).cpu()


def _cut(images: Tensor, boxes: Tensor, kept: Tensor, side: int) -> Iterator[Tensor]:
    """Cut the kept windows (B, n) out, and bring them to a side: uint8 (m, 3, side, side).

    Windows of one image and one side are resized together; their order is that of the windows.
    """
    for image, mine in zip(images, kept, strict=True):
        own = boxes[mine]
        sides = own[:, 2:] - own[:, :2]
        breaks = (sides[1:] != sides[:-1]).any(1).nonzero().flatten() + 1
        for alike in own.tensor_split(breaks):
            if len(alike):
                windows = torch.stack(
                    [
                        image[:, top:bottom, left:right]
                        for top, left, bottom, right in alike.tolist()
                    ]
                )
                # the fast kernel for bytes wants channels last
                last = windows.contiguous(memory_format=torch.channels_last)
                yield resize(last, (side, side), mode="bilinear")


def rebatched(parts: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Join and cut parts (m, ...) so that all but the last have `size` rows."""
    held: list[Tensor] = []
    rows = 0
    for part in parts:
        held.append(part)
        rows += len(part)
        if rows < size:
            continue
        *full, rest = torch.split(torch.cat(held), size)
        if len(rest) == size:
            full, rest = [*full, rest], rest[:0]
        yield from full
        held, rows = [rest], len(rest)
    if rows:
        yield torch.cat(held)
