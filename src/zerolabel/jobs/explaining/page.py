"""What a page shows of an image that was looked into: plot, pictures, table, facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zerolabel.jobs.explaining.maps import Drawn, maps_exhibit
from zerolabel.jobs.explaining.scene import GREY, Scene, name_of
from zerolabel.outputs.scatter import Dots, Mark, scatter
from zerolabel.outputs.views import inline_view
from zerolabel.types import Exhibit, Image

DOTS = "Every dot is a patch of the image, in the colour of its {word}. "
CONCEPTS = (
    "Every diamond is a concept, in the colour of the region that holds most of the patches "
    "nearest to it; to an unused one no patch is nearest. "
)
AXES = {
    "pca": (
        "Dots that are near each other look alike to the method, as far as two principal "
        "components show it: they hold {held:.0f} % of what sets the patches apart."
    ),
    "tsne": (
        "t-SNE keeps neighbours together; how far apart two groups lie, and how large they are, "
        "means nothing."
    ),
}
SMALL = (
    "Too small to be described, and not listed: {}. Their patches have the category of the regions "
    "that are most like them, or none."
)


def plot(scene: Scene, *, title: str) -> str:
    """Draw the patches and concepts of a scene in their plane.

    Args:
        scene: that was looked into.
        title: what it shows, for readers who cannot see it.

    Returns:
        An `<svg>` element.
    """
    ids, points = scene.ids.ravel(), scene.plane.points
    patches, concepts = points[: len(ids)], points[len(ids) :]
    dots, valid = [], {part.id: part for part in scene.parts if part.valid}
    for i, part in valid.items():
        name = f"{part.name}, {_percent(part.share)}"
        dots.append(Dots(name, scene.colours[i], patches[ids == i]))
    small = ~np.isin(ids, list(valid))
    if small.any():
        dots.append(Dots(f"too small, {_percent(float(small.mean()))}", None, patches[small]))
    marks = []
    for c, (home, point) in enumerate(zip(scene.homes, concepts, strict=True)):
        colour = scene.colours.get(home, GREY)
        marks.append(Mark("unused", None, point) if home < 0 else Mark(str(c), colour, point))
    shares = scene.plane.shares
    labels = [
        f"{word} component, {_percent(share)} of the variance"
        for word, share in zip(("first", "second"), shares or (), strict=False)
    ]
    x_label, y_label = labels or ("", "")
    return scatter(dots, marks, title=title, x_label=x_label, y_label=y_label, mark_label="concept")


def exhibits(
    scene: Scene,
    *,
    name: str,
    svg: str,
    views: Mapping[str, Image],
    maps: Sequence[Drawn],
    facts: Mapping[str, object],
) -> list[Exhibit]:
    """Lay a scene out for a page.

    Args:
        scene: that was looked into.
        name: of the image.
        svg: from `plot`.
        views: label -> picture, uint8 (H, W, 3).
        maps: what else there is to draw.
        facts: how it was made.

    Returns:
        The plot, the pictures beside it, maps if there are any, the parts and the facts.
    """
    word = "region" if scene.regional else "category"
    shares = scene.plane.shares
    words = AXES["tsne"] if shares is None else AXES["pca"].format(held=100 * sum(shares))
    caption = DOTS.format(word=word) + (CONCEPTS if scene.homes else "") + words
    legend = [
        {"name": f"{name_of(scene, i)}, {_percent(share)}", "colour": scene.categories[i].colour}
        for i, share in scene.shares.items()
    ]
    pictures = [(inline_view("photo", picture), label) for label, picture in views.items()]
    height, width = scene.photo.shape[:2]
    layout = "tall" if height > width else "broad"  # beside each other, or the first one above
    data = {"rows": [{"name": name, "views": pictures}], "legend": legend, "narrow": layout}
    return [
        Exhibit("svg", "Patches in two dimensions", {"svg": svg}, caption),
        Exhibit("images", "The photo", data, _below(scene)),
        *maps_exhibit(maps, name=name, total=len(scene.anatomy.maps)),
        _table(scene),
        Exhibit("facts", "How it was made", facts),
    ]


def _below(scene: Scene) -> str:
    if not scene.regional:
        return "Patches have the colours of their dots; categories are refined along the photo."
    return (
        "Regions have the colours of their dots, patch by patch, and mean something in this image "
        "only. Categories are named above and mean the same in every image."
    )


def _table(scene: Scene) -> Exhibit:
    columns = ["region" if scene.regional else "category", "patches", "share"]
    columns += ["concepts"] * bool(scene.homes) + ["category"] * scene.regional
    rows: list[Sequence[object]] = []
    for part in (part for part in scene.parts if part.valid):
        row: list[object] = [part.name, part.patches, _percent(part.share)]
        row += [", ".join(map(str, part.concepts)) or None] * bool(scene.homes)
        row += [name_of(scene, part.category) or "none"] * scene.regional
        rows.append(row)
    small = [part for part in scene.parts if not part.valid]
    data = {"columns": columns, "rows": rows, "right": [2]}
    title = "Regions" if scene.regional else "Categories"
    return Exhibit("table", title, data, SMALL.format(len(small)) if small else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 or share == 0 else "< 1 %"
