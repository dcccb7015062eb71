"""The photos of a run beside their masks, and which of them show a category."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerolabel.errors import DataError, StoreError
from zerolabel.outputs.masks import mask_names, read_mask
from zerolabel.store import Store, read_json
from zerolabel.types import Category, LabelMap, Sample

BATCH = 64  # masks read between two signs of progress


@dataclass(frozen=True)
class Album:
    """Photos that are there and have a mask.

    Attributes:
        samples: by id.
        masks: by id.
        digests: by id, of the photos that the run was made of; empty where it does not know.
    """

    samples: Mapping[str, Sample]
    masks: Mapping[str, Path]
    digests: Mapping[str, str]

    def mask(self, name: str) -> LabelMap:
        """Read the mask of a photo, (H, W)."""
        return read_mask(self.masks[name])

    def changed(self, names: Iterable[str]) -> dict[str, str]:
        """Find the photos that are not those that their masks were made of: id -> reason."""
        reason = "is another photo than the one that the run was made of"
        return {name: reason for name in names if not self._same(name)}

    def _same(self, name: str) -> bool:
        if name in self.digests:
            return self.samples[name].digest() == self.digests[name]
        try:
            return self.samples[name].load().shape[:2] == self.mask(name).shape
        except DataError:
            return True  # whoever reads it says why it cannot be read


def open_album(run: Path, samples: Sequence[Sample]) -> Album:
    """Put the photos of a run beside its masks.

    Args:
        run: a run directory.
        samples: what is where its photos should be.

    Returns:
        Those that have a mask.

    Raises:
        DataError: there is none.
    """
    try:
        digests = read_json(run / "cache" / "data.json")
    except StoreError:
        digests = {}  # a deleted cache, or masks made elsewhere
    by_id = {sample.id: sample for sample in samples}
    names = mask_names(list(digests) or list(by_id))
    paths = {name: run / "masks" / mask for name, mask in names.items() if name in by_id}
    masks = {name: path for name, path in paths.items() if path.exists()}
    if not masks:
        first = next(iter(names.values()))
        raise DataError(
            f"No photo has a mask in {run / 'masks'}: expected photos with masks such as {first}, "
            f"found {samples[0].id}. Give --data with the folder or data set that the run was made "
            "on."
        )
    return Album({name: by_id[name] for name in masks}, masks, digests)


def choose_images(
    categories: Sequence[Category], album: Album, *, count: int, store: Store
) -> dict[str, list[int]]:
    """Choose the images in which each category is looked at.

    Args:
        categories: of the run.
        album: its photos.
        count: at most so many for each category: its exemplars, then where it covers most.
        store: is told the progress as "search", if masks must be read for that.

    Returns:
        id of an image -> the categories that it stands for.
    """
    known = any(category.image_count for category in categories)
    lists = {c.id: [name for name in c.exemplars if name in album.masks] for c in categories}
    short = [
        c.id
        for c in categories
        if len(lists[c.id]) < count and (not known or c.image_count > len(lists[c.id]))
    ]
    shares = _shares(short, album, store) if short else {}
    for k in short:
        order = sorted(shares[k], key=lambda name: (-shares[k][name], name))
        lists[k] += [name for name in order if name not in lists[k]]
    shown: dict[str, list[int]] = {}
    for k, names in lists.items():
        for name in names[:count]:
            shown.setdefault(name, []).append(k)
    return shown


def _shares(wanted: Sequence[int], album: Album, store: Store) -> dict[int, dict[str, float]]:
    """Share of every image that each of some categories covers, for the images that show it."""
    shares: dict[int, dict[str, float]] = {k: {} for k in wanted}
    for _, batch in store.track("search", sorted(album.masks), BATCH):
        for name in batch:
            try:
                mask = album.mask(name)
            except DataError:
                continue  # whoever looks at it says why it cannot be read
            counts = np.bincount(mask.ravel(), minlength=max(wanted) + 1)
            for k in wanted:
                if counts[k]:
                    shares[k][name] = float(counts[k] / mask.size)
    return shares
