"""Augmented squares of photos and their dense features, kept so that each is encoded once.

The published code draws a new square of every photo in every epoch and runs the frozen image tower
on it. Here a photo has a fixed number of squares, and epochs take turns.
Shapes: `B` squares, `h w` patch grid, `P` channels of the space shared with texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.backbones.clip import ClipBackbone
from zerolabel.errors import DataError, ImageError
from zerolabel.ops.draws import generator
from zerolabel.store import Stage, Store
from zerolabel.training.distort import photometric
from zerolabel.training.scenes import SceneConfig, scene
from zerolabel.types import Sample

SHELF = 16  # squares that are encoded, and lie, together
LATER = ("views", "batch")  # what a square does not depend on


@dataclass(frozen=True, kw_only=True)
class Views:
    """Options of the step.

    Attributes:
        short: pixels of the short side of a photo before the factor.
        longest: the most pixels of the long side before the factor.
        ratio: factors on the size, drawn evenly.
        crop: side of a square in pixels, a multiple of the patch.
        distort: change brightness, contrast, saturation and hue.
        views: squares of each photo; 0 draws new ones in every epoch and keeps none.
        batch: squares per step.
        seed: fixes every draw.
    """

    short: int = 336
    longest: int = 2048
    ratio: tuple[float, float] = (0.5, 2.0)
    crop: int = 336
    distort: bool = True
    views: int = 2
    batch: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Page:
    """The squares of one step.

    Attributes:
        rows: int64 (B,), the photo that each was cut from.
        dense: not normalised, float32 (B, h, w, P).
        view: which squares of these photos.
    """

    rows: Tensor
    dense: Tensor
    view: int


class Library:
    """Squares of photos, those of a step a function of the seed and the step alone.

    Attributes:
        epoch: steps in which every photo is seen once.
    """

    def __init__(
        self, backbone: ClipBackbone, samples: Sequence[Sample], views: Views, *, store: Store
    ) -> None:
        self.backbone, self.samples, self.views, self.store = backbone, samples, views, store
        self._scene = SceneConfig(
            short=views.short,
            longest=views.longest / views.short,
            ratio=views.ratio,
            crop=views.crop,
            single=1.0,
        )
        self._shelf = max(SHELF, views.batch)
        n, B = len(samples), views.batch
        ends = [min(start + self._shelf, n) for start in range(0, n, self._shelf)]
        self._places = [  # of every shelf: where the squares of a step begin and end in it
            [(i * self._shelf, j, min(j + B, end)) for j in range(i * self._shelf, end, B)]
            for i, end in enumerate(ends)
        ]
        self.epoch = sum(map(len, self._places))
        self._held: tuple[tuple[int, int], Tensor] | None = None

    def page(self, step: int) -> Page:
        """Return the squares of a step; a photo is in every epoch once.

        Raises:
            ImageError: a photo cannot be read any more.
        """
        epoch, at = divmod(step, self.epoch)
        view = epoch % self.views.views if self.views.views else epoch
        shelves = torch.randperm(len(self._places), generator=self._generator(epoch, kind=0))
        places = [place for shelf in shelves.tolist() for place in self._places[shelf]]
        start, first, last = places[at]
        # Every view has an order of its own.
        order = torch.randperm(len(self.samples), generator=self._generator(view, kind=1))
        if self._held is None or self._held[0] != (view, start):
            rows = order[start : start + self._shelf].tolist()
            self._held = (view, start), self._encoded(view, rows)
        dense = self._held[1][first - start : last - start].float()
        return Page(order[first:last], dense, view)

    def pixels(self, page: Page) -> Tensor:
        """Cut the squares of a step again: uint8 (B, 3, crop, crop)."""
        return torch.stack([self._cut(row, page.view) for row in page.rows.tolist()])

    def _encoded(self, view: int, rows: list[int]) -> Tensor:
        """Dense features of a shelf, float16, on the CPU."""

        def work() -> Stage:
            squares = torch.stack([self._cut(row, view) for row in rows])
            found = self.backbone.encode(squares, want={"dense"}).dense
            assert found is not None  # it was asked for
            return Stage({"dense": found.half().cpu().numpy()})

        if not self.views.views:
            return torch.from_numpy(work().arrays["dense"])
        drawn = [self.samples[row] for row in rows]
        facts = [getattr(self.views, f.name) for f in fields(Views) if f.name not in LATER]
        # Which number a photo has among all decides how it is cut.
        name = cache.key("views", drawn, self.backbone.digest, facts, view, rows)
        return torch.from_numpy(self.store.stage(name, work).arrays["dense"])

    def _cut(self, row: int, view: int) -> Tensor:
        """Cut a square of a photo: uint8 (3, crop, crop)."""
        image = self.samples[row].load()
        drawn = self._generator(view * len(self.samples) + row, kind=2)
        nothing = np.zeros(image.shape[:2], np.uint8)  # no label says where to cut
        square, _ = scene(image, nothing, self._scene, generator=drawn)
        if self.views.distort:
            square = photometric(square[None].float(), generator=drawn)[0]
            square = square.round().clamp(0, 255).byte()
        return square

    def _generator(self, number: int, *, kind: int) -> torch.Generator:
        """Random numbers for one thing alone."""
        return generator(self.views.seed, kind, number)


def readable(samples: Sequence[Sample], *, store: Store) -> list[Sample]:
    """Find the photos that can be read, once per run.

    Raises:
        DataError: there are none.
    """

    def work() -> Stage:
        ok = np.zeros(len(samples), np.bool_)
        for i, [sample] in store.track("read", samples, 1):
            with suppress(ImageError):
                sample.load()
                ok[i] = True
        return Stage({"ok": ok})

    found = store.stage(cache.key("readable", samples), work).arrays["ok"]
    if not found.any():
        raise DataError("None of the images could be read; failures.json lists the reasons.")
    return [sample for sample, ok in zip(samples, found, strict=True) if ok]
