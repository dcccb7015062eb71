"""One image as a fitted method sees it: its patches in a plane, in the colours of their regions.

Source of the figure: Li et al., "ACSeg", CVPR 2023, figure 1. It is drawn for every method; one
that has no concepts shows none, one that knows no regions shows categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolabel.errors import ImageError, unknown_name
from zerolabel.jobs.explaining.find import find_image
from zerolabel.jobs.explaining.maps import draw_maps, write_maps
from zerolabel.jobs.explaining.page import exhibits, plot
from zerolabel.jobs.explaining.scene import look_into, plain
from zerolabel.jobs.run.claim import mark, state
from zerolabel.jobs.run.model import Model, load
from zerolabel.ops.embedding import EMBEDDINGS
from zerolabel.outputs.overlay import jpeg
from zerolabel.outputs.report import write_exhibits
from zerolabel.outputs.scatter import as_file
from zerolabel.store import write_bytes, write_json

COMMAND = "explain"  # marks a folder of ours in its `run.json`


@dataclass(frozen=True)
class Explained:
    """What came out.

    Attributes:
        path: the folder of everything.
        page: to open in a browser.
        facts: the content of `explain.json`.
    """

    path: Path
    page: Path
    facts: dict[str, Any]


def explain(
    run: str | Path,
    image: str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    embedding: str = "pca",
    seed: int = 0,
    weights: str | Path | None = None,
    device: str = "auto",
) -> Explained:
    """Show one image as the method of a run sees it.

    Args:
        run: a folder that `fit` or `segment` wrote.
        image: a photo, of the run or not; or the id of an image of the run, or of `data`.
        out: folder for the page, made if missing; by default `explain/` and the image's name in
            the run.
        data: the folder or data set that holds the image, if it is not given as a file; None takes
            the one that the run was made on.
        split: of a data set.
        embedding: "pca", or "tsne" (needs scikit-learn).
        seed: of the embedding.
        weights: the backbone's weights file, if they are not in the cache.
        device: where the backbone runs.

    Returns:
        What was found, and where the page is.

    Raises:
        ZerolabelError: anything that a user can mend; it says how.
    """
    if embedding not in EMBEDDINGS:
        raise unknown_name("embedding", embedding, EMBEDDINGS)
    sample = find_image(Path(run), str(image), data=data, split=split)
    model = load(run, weights=weights, device=device)
    folder = Path(run, COMMAND, sample.id) if out is None else Path(out)
    try:
        photo = sample.load()
    except ImageError as error:
        raise ImageError(f"{sample.id}: {error}") from None
    method = model.method
    job = {
        "command": COMMAND,
        "image": sample.id,
        "method": method.name,
        "backbone": method.backbone.name,
        "weights": method.backbone.digest,
        "embedding": embedding,
        "seed": seed,
    }
    mark(folder, job)
    scene = look_into(model, sample.id, photo, embedding=embedding, seed=seed)
    svg = plot(scene, title=f"The patches of {sample.id} in two dimensions, by {method.name}")
    views = {
        "photo": scene.photo,
        "regions" if scene.regional else "patches": scene.regions_picture(),
        "categories": scene.categories_picture(),
    }
    for name, picture in zip(("photo", "regions", "categories"), views.values(), strict=True):
        write_bytes(folder / f"{name}.jpg", jpeg(picture))
    write_bytes(folder / "embedding.svg", as_file(svg))
    maps = draw_maps(scene.anatomy.maps, scene.photo.shape[:2])
    facts = {**job, **plain(scene), "maps": write_maps(folder, maps)}
    write_json(folder / "explain.json", facts)
    page = folder / "index.html"
    made = _made(model, facts)
    shown = exhibits(scene, name=sample.id, svg=svg, views=views, maps=maps, facts=made)
    lead = f"{method.name} on {method.backbone.name}: {in_words(facts)}."
    write_exhibits(page, title=sample.id, lead=lead, exhibits=shown)
    write_json(folder / "run.json", state("done", job))
    return Explained(folder, page, facts)


def in_words(facts: Mapping[str, Any]) -> str:
    """Say what was found: patches, regions or categories, and concepts."""
    h, w = facts["grid"]
    one = "region" if facts["parts"] == "regions" else "category"
    parts = f"{facts['count']} {one if facts['count'] == 1 else facts['parts']}"
    words = f"{h * w} {'patch' if h * w == 1 else 'patches'} in {parts}"
    if facts["too_small"]:
        words += f" and {facts['too_small']} too small to be described"
    if facts["concepts"]:
        used = len(facts["concepts"]["used"])
        words += f", {used} of {facts['concepts']['count']} concepts used"
    return words


def _made(model: Model, facts: Mapping[str, Any]) -> dict[str, object]:
    """How it was made, for the page."""
    (h, w), size = facts["grid"], getattr(model.method.config, "size", None)
    seen = "" if size is None else f", seen at {size[0]} × {size[1]} pixels"
    return {
        "method": model.method.name,
        "backbone": model.method.backbone.name,
        "patches": f"{h} × {w}{seen}",
        "embedding": "principal components" if facts["variance"] else "t-SNE",
        "categories of the model": len(model.categories),
    }
