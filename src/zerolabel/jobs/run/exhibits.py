"""What the report of a run shows beside its images: how it came about, in plots and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zerolabel.errors import ImageError
from zerolabel.jobs.run.model import Model
from zerolabel.jobs.run.render import Rendered
from zerolabel.methods.base import BATCH, Method, Portrait
from zerolabel.ops.resize import resize_labels
from zerolabel.outputs.colours import palette
from zerolabel.outputs.overlay import overlay, thumbnail
from zerolabel.outputs.plots import line_chart
from zerolabel.outputs.views import SMALL, inline_view
from zerolabel.store import Store
from zerolabel.types import Exhibit, Image, LabelMap, Sample

SHOWN = 6  # images whose regions are drawn


def exhibits(
    model: Model, samples: Sequence[Sample], rendered: Rendered, *, store: Store
) -> list[Exhibit]:
    """Collect what there is to show of a run.

    Args:
        model: fitted.
        samples: all images of the run, sorted by id.
        rendered: what was written for them.
        store: of the run, which has the regions already.

    Returns:
        How the number of categories was chosen, how the training went, regions of images, and what
        the method itself draws; each only where there is such a thing.
    """
    return [
        *_choice(model),
        *_training(model),
        *_counts(rendered),
        *_regions(model, samples, rendered, store),
        *_portraits(model, rendered),
    ]


def _portraits(model: Model, rendered: Rendered) -> Iterator[Exhibit]:
    """Show what the method itself draws of some images, section by section."""
    if type(model.method).portray is Method.portray:
        return
    sections: dict[str, tuple[Portrait, list[dict[str, object]]]] = {}
    total = len(rendered.samples)
    count = min(SHOWN, total)
    for sample in [rendered.samples[i * total // count] for i in range(count)]:
        try:
            drawn, photo = model.method.portray(sample), thumbnail(sample.load(), side=SMALL)
        except ImageError:  # gone since its mask was written; its card says so
            continue
        for portrait in drawn:
            views = [
                (inline_view("photo", _drawn(picture, photo)), label)
                for label, picture in portrait.pictures.items()
            ]
            _, rows = sections.setdefault(portrait.title, (portrait, []))
            rows.append({"name": sample.id, "views": views})
    for title, (portrait, rows) in sections.items():
        kind = "slider" if portrait.slider else "images"
        yield Exhibit(kind, title, {"rows": rows, "legend": []}, portrait.caption)


def _choice(model: Model) -> Iterator[Exhibit]:
    curve = model.method.curve
    if len(curve) < 2:
        return
    chosen = max(curve, key=lambda k: curve[k])
    chart = line_chart(
        list(curve),
        list(curve.values()),
        mark=chosen,
        title="Quality of every number of categories that was tried",
        x_label="categories k",
        y_label="silhouette",
    )
    caption = (
        f"k = {chosen} has the highest silhouette, averaged over clusters: how much nearer "
        "a vector is to its own category than to the next. A flat curve means that no number "
        "stands out; --k sets another."
    )
    yield Exhibit("svg", "How many categories", {"svg": chart}, caption)


def _training(model: Model) -> Iterator[Exhibit]:
    losses = model.method.losses
    if len(losses) < 2:
        return
    chart = line_chart(
        list(losses),
        list(losses.values()),
        title="Loss of the training by step",
        x_label="step",
        y_label="loss",
    )
    caption = "A curve that is still falling at its end means that more steps would help."
    yield Exhibit("svg", "Training", {"svg": chart}, caption)


def _counts(rendered: Rendered) -> Iterator[Exhibit]:
    parts = rendered.parts[rendered.parts > 0]
    if not len(parts):
        return
    numbers, images = np.unique(parts, return_counts=True)
    rows = [
        [int(number), int(count), f"{count / len(parts):.0%}"]
        for number, count in zip(numbers, images, strict=True)
    ]
    data = {"columns": ["regions", "images", "share"], "rows": rows, "right": [2]}
    caption = f"{parts.mean():.1f} on average, before they were given categories."
    yield Exhibit("table", "Regions per image", data, caption)


def _regions(
    model: Model, samples: Sequence[Sample], rendered: Rendered, store: Store
) -> Iterator[Exhibit]:
    """Draw the regions of some images of the first batch, whose regions are known already."""
    if not rendered.parts.any():  # the method knows no regions
        return
    found, _ = model.method.evidence(samples[:BATCH], store=store)
    rows = []
    count = min(SHOWN, len(found))
    for sample, evidence in [found[i * len(found) // count] for i in range(count)]:
        if evidence.parts is None:
            return
        try:
            photo = thumbnail(sample.load(), side=SMALL)
        except ImageError:  # gone since its mask was written; its card says so
            continue
        ids = evidence.parts.numpy()
        views = [
            (inline_view("photo", photo), "photo"),
            (inline_view("mask", _drawn(ids, photo)), f"{int(ids.max()) + 1} regions"),
        ]
        rows.append({"name": sample.id, "views": views})
    if rows:
        caption = (
            "Patch by patch, as the method found them; colours mean something in one image only."
        )
        yield Exhibit("images", "Regions", {"rows": rows, "legend": []}, caption)


def _drawn(picture: Image | LabelMap, photo: Image) -> Image:
    """Make a picture small, or draw a region map over the photo."""
    if picture.ndim == 3:
        return thumbnail(np.asarray(picture, np.uint8), side=SMALL)
    colours = palette(int(picture.max()) + 1)
    ids = resize_labels(picture, photo.shape[:2])
    return overlay(photo, ids, colours=colours, alpha=0.6, outline=False)
