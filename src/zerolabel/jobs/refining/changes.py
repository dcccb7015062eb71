"""Before and after: what a student changed in the masks of a run, counted.

Shapes: `n` photos, `K` categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.backbones import cache
from zerolabel.data.folder import file_digest
from zerolabel.errors import DataError
from zerolabel.jobs.refining.initial import Initial
from zerolabel.outputs.exports.items import cut
from zerolabel.outputs.masks import read_mask
from zerolabel.store import Arrays, Stage, Store
from zerolabel.types import IGNORE, LabelMap

BATCH = 16  # pairs of masks between two signs of progress


@dataclass(frozen=True)
class Changes:
    """Pairs of masks of the photos that were learned from, counted.

    Attributes:
        ids: of n photos.
        pixels: int64 (n,), all of a photo.
        changed: int64 (n,), pixels whose category is another one than before, or the first one.
        none: int64 (n,), pixels that had no category.
        filled: int64 (n,), those of them that have one now.
        before, after: int64 (n, K), pixels of each category.
        pieces_before, pieces_after: int64 (n, K), connected pieces of each.
    """

    ids: tuple[str, ...]
    pixels: NDArray[np.int64]
    changed: NDArray[np.int64]
    none: NDArray[np.int64]
    filled: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    pieces_before: NDArray[np.int64]
    pieces_after: NDArray[np.int64]

    def shares(self) -> dict[str, float]:
        """Shares of all pixels, 0..1: changed, none (had no category), filled (have one now)."""
        total = int(self.pixels.sum())
        counts = {"changed": self.changed, "none": self.none, "filled": self.filled}
        return {name: int(count.sum()) / total for name, count in counts.items()}

    def facts(self) -> dict[str, Any]:
        """Everything over all photos, as `run.json` keeps it."""
        total = int(self.pixels.sum())
        numbers = {
            "share_before": self.before.sum(0) / total,
            "share_after": self.after.sum(0) / total,
            "pieces_before": self.pieces_before.sum(0),
            "pieces_after": self.pieces_after.sum(0),
        }
        categories = [
            {"id": k, **{name: values[k].item() for name, values in numbers.items()}}
            for k in range(self.before.shape[1])
        ]
        return {
            "photos": len(self.ids),
            **self.shares(),
            "pieces_before": int(self.pieces_before.sum()),
            "pieces_after": int(self.pieces_after.sum()),
            "categories": categories,
        }


def count(
    initial: Initial, ids: Sequence[str], masks: Mapping[str, Path], *, store: Store
) -> Changes:
    """Count what differs between two masks of each photo.

    Args:
        initial: the run before.
        ids: of the photos that were learned from.
        masks: id -> mask of the student; photos without one are left out.
        store: of the new run; keeps what was counted.

    Returns:
        The counts.

    Raises:
        DataError: a mask cannot be read, or no photo is left.
    """
    ids = [name for name in ids if name in masks]
    if not ids:
        raise DataError("None of the photos that were learned from can be read any more.")
    parts: list[Arrays] = []
    before = initial.digest
    for _, batch in store.track("compare", ids, BATCH):
        photos = [initial.album.samples[name] for name in batch]
        name = cache.key("changes", photos, before, [file_digest(masks[name]) for name in batch])
        parts.append(store.stage(name, partial(_count, initial, batch, masks)).arrays)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Changes(tuple(ids), **joined)


def pieces(mask: LabelMap, count: int) -> NDArray[np.int64]:
    """Count the connected pieces of every category in a mask.

    Args:
        mask: uint8 or uint16 (H, W); 255 or 65535, if not below `count`, are no category.
        count: K.

    Returns:
        int64 (K,), pieces that hang together over edges or corners.
    """
    return np.bincount(cut(mask, count, parts=True).categories, minlength=count)


def _count(initial: Initial, ids: Sequence[str], masks: Mapping[str, Path]) -> Stage:
    """Count one batch; the arrays are those of `Changes`."""
    K = len(initial.categories)
    rows: dict[str, list[Any]] = {}
    for name in ids:
        before, after = initial.label(name), read_mask(masks[name])
        none = before == IGNORE
        row = {
            "pixels": before.size,
            "changed": (before != after).sum(),
            "none": none.sum(),
            "filled": (none & (after < K)).sum(),
            "before": np.bincount(before[~none], minlength=K),
            "after": np.bincount(after[after < K], minlength=K),
            "pieces_before": pieces(before, K),
            "pieces_after": pieces(after, K),
        }
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    return Stage({key: np.array(values, np.int64) for key, values in rows.items()})
