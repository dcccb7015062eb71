"""Before and after in the report: photos with both masks, and what changed in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import ZerolabelError
from zerolabel.jobs.refining.changes import Changes
from zerolabel.jobs.refining.initial import Initial
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.masks import read_mask
from zerolabel.outputs.overlay import colourise, thumbnail
from zerolabel.outputs.views import SMALL, inline_view
from zerolabel.types import Category, Exhibit, Image, LabelMap

SHOWN = 6  # photos in the report
PALE, KEPT = 235, 0.35  # unchanged pixels fade to this grey, of which so much is the photo
NONE = {"name": "no category", "colour": (0, 0, 0)}


def exhibits(
    initial: Initial,
    changes: Changes,
    categories: Sequence[Category],
    masks: Mapping[str, Path],
    *,
    student: str,
    trust: float,
    seconds: float,
) -> list[Exhibit]:
    """Show what a student changed.

    Args:
        initial: the run before.
        changes: what differs.
        categories: of the new run.
        masks: id -> mask of the student.
        student: its name.
        trust: weight of the masks before.
        seconds: that the whole job took.

    Returns:
        Photos with both masks, the numbers over all photos, and those of every category.
    """
    facts = changes.facts()
    return [
        _pictures(initial, changes, categories, masks),
        _numbers(initial, facts, student=student, trust=trust, seconds=seconds),
        _categories(facts, categories),
    ]


def _pictures(
    initial: Initial,
    changes: Changes,
    categories: Sequence[Category],
    masks: Mapping[str, Path],
) -> Exhibit:
    colours = np.array([category.colour for category in categories], np.uint8)
    rows: list[dict[str, object]] = []
    seen: set[int] = set()
    for i in _chosen(changes):
        name = changes.ids[i]
        try:
            photo = thumbnail(initial.album.samples[name].load(), side=SMALL)
            maps = [initial.label(name), read_mask(masks[name])]
        except ZerolabelError:  # gone since its mask was written; its card says so
            continue
        before, after = (resize_labels(ids, photo.shape[:2]) for ids in maps)
        seen |= {int(k) for ids in maps for k in np.unique(ids)}
        share = changes.changed[i] / changes.pixels[i]
        views = [
            (inline_view("photo", photo), "photo"),
            (inline_view("mask", colourise(before, colours)), "before"),
            (inline_view("mask", colourise(after, colours)), "after"),
            (
                inline_view("photo", _difference(photo, before, after, colours)),
                f"{share:.1%} changed",
            ),
        ]
        rows.append({"name": name, "views": views})
    legend = [_key(category) for category in categories if category.id in seen]
    legend += [NONE] if any(k >= len(categories) for k in seen) else []
    caption = (
        "From the photo that changed most to the one that changed least. Last in a row: the pixels "
        "that changed, in the colour of what they are now."
    )
    return Exhibit("images", "Before and after", {"rows": rows, "legend": legend}, caption)


def _key(category: Category) -> dict[str, Any]:
    """A category as the report links to it."""
    return {"id": category.id, "name": category.name, "colour": category.colour}


def _chosen(changes: Changes) -> list[int]:
    """Places of the photos to show: evenly from the most to the least changed."""
    order = np.argsort(-changes.changed / changes.pixels, kind="stable")
    count = min(SHOWN, len(order))
    places = np.linspace(0, len(order) - 1, count).round().astype(np.int64)
    chosen: list[int] = order[places].tolist()
    return chosen


def _difference(
    photo: Image, before: LabelMap, after: LabelMap, colours: NDArray[np.uint8]
) -> Image:
    """Fade a photo where nothing changed, and paint the rest: all (H, W), of one size."""
    grey = photo.mean(2, keepdims=True)
    pale = np.broadcast_to(KEPT * grey + (1 - KEPT) * PALE, photo.shape).astype(np.uint8)
    changed: Image = np.where((before != after)[..., None], colourise(after, colours), pale)
    return changed


def _numbers(
    initial: Initial, facts: Mapping[str, Any], *, student: str, trust: float, seconds: float
) -> Exhibit:
    method = (initial.made or {}).get("method")
    data = {
        "refined": f"{initial.run.name}{f', of {method}' if method else ''}",
        "student": student,
        "weight of the old masks": trust,
        "photos learned from": facts["photos"],
        "pixels changed": f"{facts['changed']:.1%}",
        "without category before": f"{facts['none']:.1%}",
        "and with one now": f"{facts['filled']:.1%}",
        "connected pieces before": facts["pieces_before"],
        "connected pieces after": facts["pieces_after"],
        "seconds": round(seconds, 1),
    }
    caption = (
        "Shares are of all pixels of the photos that were learned from; pixels that had no "
        "category and have one now count as changed, too. Pieces hang together over edges or "
        "corners; many small ones are noise."
    )
    return Exhibit("facts", "What the student changed", data, caption)


def _categories(facts: Mapping[str, Any], categories: Sequence[Category]) -> Exhibit:
    rows = [
        [
            _key(category),
            f"{entry['share_before']:.1%}",
            f"{entry['share_after']:.1%}",
            entry["pieces_before"],
            entry["pieces_after"],
        ]
        for category, entry in zip(categories, facts["categories"], strict=True)
    ]
    columns = ["category", "pixels before", "pixels after", "pieces before", "pieces after"]
    caption = (
        "A category that the masks hardly hold may vanish: a student learns what is frequent first."
    )
    data = {"columns": columns, "rows": rows, "right": [1, 2]}
    return Exhibit("table", "Categories before and after", data, caption)
