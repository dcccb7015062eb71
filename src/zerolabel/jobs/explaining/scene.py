"""One image, what a method sees in it, and the colours in which both are shown.

Shapes: `h w` patch grid, `H W` pixels of the picture, `R` regions, `K` categories, `C` concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zerolabel.data.folder import from_arrays
from zerolabel.jobs.run.model import Model
from zerolabel.methods.base import Anatomy
from zerolabel.ops.embedding import Plane, embed
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.colours import palette
from zerolabel.outputs.overlay import overlay, thumbnail
from zerolabel.store import Store
from zerolabel.types import Category, Image, LabelMap

SIDE = 800  # longest side of a picture, pixels
GREY = (128, 128, 128)  # a concept whose region is too small
NOBODY = -1  # no category; a patch of a region that is too small


@dataclass(frozen=True)
class Part:
    """A region of the image, or a category where the method knows no regions.

    Attributes:
        id: of the region or category in the anatomy.
        name: of the category; regions are numbered by their size.
        patches: how many it has.
        share: of all patches, 0..1.
        valid: False for a region that was too small to be described.
        category: id of the category of most of its patches; `NOBODY` for none.
        concepts: those whose patches it has.
    """

    id: int
    name: str
    patches: int
    share: float
    valid: bool
    category: int
    concepts: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """An image that was looked into.

    Attributes:
        photo: uint8 (H, W, 3), at most `SIDE` pixels long.
        labels: integer, of the size of the image: category of every pixel after refinement.
        cells: int64 (h, w), category of every patch before it, `NOBODY` for none.
        anatomy: what the method sees.
        plane: its patches, row by row, and then its concepts.
        categories: of the model, index = id.
    """

    photo: Image
    labels: LabelMap
    cells: NDArray[np.int64]
    anatomy: Anatomy
    plane: Plane
    categories: Sequence[Category]

    @cached_property
    def regional(self) -> bool:
        """Whether parts are regions."""
        return self.anatomy.valid is not None

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Part of every patch, int64 (h, w)."""
        return self.anatomy.parts.cpu().numpy().astype(np.int64)

    @cached_property
    def homes(self) -> list[int]:
        """Part of every concept; -1 for one that is not used."""
        return [] if self.anatomy.homes is None else list(map(int, self.anatomy.homes))

    @cached_property
    def parts(self) -> list[Part]:
        """Parts that have patches, the largest first, those too small last."""
        counts = np.bincount(self.ids.ravel())
        valid = np.ones(len(counts), bool) if self.anatomy.valid is None else self.anatomy.valid
        order = sorted(counts.nonzero()[0].tolist(), key=lambda i: (not valid[i], -counts[i], i))
        found = []
        for rank, i in enumerate(order):
            name = f"region {rank}" if self.regional else self.categories[i].name
            cells, votes = np.unique(self.cells[self.ids == i], return_counts=True)
            own = tuple(c for c, home in enumerate(self.homes) if home == i)
            share, most = float(counts[i] / self.ids.size), int(cells[votes.argmax()])
            found.append(Part(i, name, int(counts[i]), share, bool(valid[i]), most, own))
        return found

    @cached_property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """RGB of the valid parts; no region has the colour of a category in the picture."""
        if not self.regional:
            return {part.id: self.categories[part.id].colour for part in self.parts}
        taken = {self.categories[i].colour for i in self.shares}
        shown = [part.id for part in self.parts if part.valid]
        free = [(r, g, b) for r, g, b in palette(len(shown) + len(taken)).tolist()]
        return dict(zip(shown, [rgb for rgb in free if rgb not in taken], strict=False))

    @cached_property
    def shares(self) -> dict[int, float]:
        """Share of the pixels by category, for the categories in the picture."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.categories))
        present = counts[: len(self.categories)].nonzero()[0].tolist()
        shares = {i: float(counts[i] / self.labels.size) for i in present}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def regions_picture(self) -> Image:
        """The photo with the colours of the parts over it, patch by patch; (H, W, 3)."""
        order = list(self.colours)
        table = np.full(self.ids.max() + 1, NOBODY)
        table[order] = np.arange(len(order))
        colours = np.array([self.colours[i] for i in order], np.uint8).reshape(-1, 3)
        shown = resize_labels(table[self.ids], self.photo.shape[:2])
        return overlay(self.photo, shown, colours=colours)

    def categories_picture(self) -> Image:
        """The photo with the colours of the categories over it; (H, W, 3)."""
        colours = np.array([category.colour for category in self.categories], np.uint8)
        shown = resize_labels(self.labels, self.photo.shape[:2])
        return overlay(self.photo, shown, colours=colours)


def look_into(model: Model, name: str, image: Image, *, embedding: str, seed: int) -> Scene:
    """Look into one image with a model.

    Args:
        model: fitted.
        name: of the image.
        image: uint8 (H, W, 3).
        embedding: a key of EMBEDDINGS.
        seed: of the embedding.

    Returns:
        The scene.
    """
    sample, store = from_arrays(name, image), Store()
    anatomy = model.method.look_into(sample, store=store)
    [(_, evidence)], _ = model.method.evidence([sample], store=store)
    cells = evidence.scores.argmax(0)
    if evidence.covered is not None:
        cells = torch.where(evidence.covered, cells, NOBODY)
    rows = [anatomy.tokens.flatten(0, 1)]  # (N, D)
    if anatomy.concepts is not None:
        rows.append(anatomy.concepts)
    plane = embed(torch.cat(rows), name=embedding, seed=seed)
    photo, labels = thumbnail(image, side=SIDE), model.label_map(evidence, image)
    height, width = anatomy.parts.shape
    shown = resize_labels(cells.cpu().numpy(), (height, width))  # where scores are finer than parts
    return Scene(photo, labels, shown.astype(np.int64), anatomy, plane, model.categories)


def plain(scene: Scene) -> dict[str, Any]:
    """The facts of a scene as they are written to `explain.json`."""
    h, w = scene.ids.shape
    used = [c for c, home in enumerate(scene.homes) if home >= 0]
    return {
        "grid": [h, w],
        "parts": "regions" if scene.regional else "categories",
        "count": sum(part.valid for part in scene.parts),
        "too_small": sum(not part.valid for part in scene.parts),
        "concepts": {"count": len(scene.homes), "used": used} if scene.homes else None,
        "variance": scene.plane.shares,
        "regions": [
            {
                "id": i if scene.regional else part.id,
                "patches": part.patches,
                "share": part.share,
                "too_small": not part.valid,
                "category": None if part.category == NOBODY else part.category,
                "category_name": name_of(scene, part.category),
                "concepts": list(part.concepts),
            }
            for i, part in enumerate(scene.parts)
        ],
        "categories": [
            {"id": i, "name": name_of(scene, i), "share": share}
            for i, share in scene.shares.items()
        ],
    }


def name_of(scene: Scene, category: int) -> str | None:
    """The name of a category; None for none."""
    return None if category == NOBODY else scene.categories[category].name
