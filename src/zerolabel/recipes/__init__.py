"""Published settings as code: a function for every published number or table, one file per method.

A recipe takes nothing and returns an experiment. The first line of its docstring is what
`zerolabel reproduce` lists; the rest has the command, the time, the expected score and its source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zerolabel.errors import unknown_name

if TYPE_CHECKING:
    from zerolabel.jobs.experiments.cells import Experiment
    from zerolabel.jobs.experiments.table import Row

RECIPES = {
    "acseg-voc": "zerolabel.recipes.acseg:voc",
    "acseg-coco": "zerolabel.recipes.acseg:coco",
    "acseg-voc-retrieval": "zerolabel.recipes.acseg:voc_retrieval",
    "acseg-text": "zerolabel.recipes.acseg:text",
    "acseg-prototypes": "zerolabel.recipes.acseg:prototypes",
    "acseg-classifiers": "zerolabel.recipes.acseg:classifiers",
    "acseg-baselines": "zerolabel.recipes.acseg:baselines",
    "datus-suim": "zerolabel.recipes.datus:suim",
    "datus-suim-train": "zerolabel.recipes.datus:suim_train",
    "datus-suim-patches": "zerolabel.recipes.datus:suim_patches",
    "datus-suim-crops": "zerolabel.recipes.datus:suim_crops",
    "datus-suim-clusters": "zerolabel.recipes.datus_ablations:suim_clusters",
    "datus-suim-starts": "zerolabel.recipes.datus_ablations:suim_starts",
    "datus-suim-sizes": "zerolabel.recipes.datus_ablations:suim_sizes",
    "datus-suim-parts": "zerolabel.recipes.datus_ablations:suim_parts",
    "datus-suim-valid": "zerolabel.recipes.datus_ablations:suim_valid",
    "datus-coco": "zerolabel.recipes.datus:coco",
    "datus-coco-clusters": "zerolabel.recipes.datus_ablations:coco_clusters",
    "datus-light": "zerolabel.recipes.datus:light",
    "dino-jaccard": "zerolabel.recipes.dino:jaccard",
    "dino-knn": "zerolabel.recipes.dino:knn",
    "dino-attention": "zerolabel.recipes.dino:attention",
    "kmeans": "zerolabel.recipes.kmeans:everywhere",
    "kmeans-regions": "zerolabel.recipes.kmeans:regions",
    "maskclip-voc": "zerolabel.recipes.maskclip:voc",
    "maskclip-context": "zerolabel.recipes.maskclip:context",
    "maskclip-coco171": "zerolabel.recipes.maskclip:coco171",
    "maskclip-refinements": "zerolabel.recipes.maskclip:refinements",
    "maskclip-bias": "zerolabel.recipes.maskclip:bias",
    "reclip-voc": "zerolabel.recipes.reclip:voc",
    "reclip-context": "zerolabel.recipes.reclip:context",
    "reclip-ade20k": "zerolabel.recipes.reclip:ade20k",
    "reclip-cityscapes": "zerolabel.recipes.reclip:cityscapes",
    "reclip-coco27": "zerolabel.recipes.reclip:coco27",
    "reclip-probe": "zerolabel.recipes.reclip:probe",
    "reclip-refined": "zerolabel.recipes.reclip:refined",
    "reclip-legacy": "zerolabel.recipes.reclip:legacy",
    "reclip-parts": "zerolabel.recipes.reclip_ablations:parts",
    "reclip-changes": "zerolabel.recipes.reclip_ablations:changes",
    "reclip-bias": "zerolabel.recipes.reclip_ablations:bias",
    "reclip-losses": "zerolabel.recipes.reclip_ablations:losses",
    "reclip-heads": "zerolabel.recipes.reclip_ablations:heads",
    "reclip-shares": "zerolabel.recipes.reclip_ablations:shares",
    "reclip-windows": "zerolabel.recipes.reclip_ablations:windows",
    "results": "zerolabel.recipes.results:results",
    "segmenter-camvid": "zerolabel.recipes.segmenter:camvid",
    "segmenter-ade20k": "zerolabel.recipes.segmenter:ade20k",
    "segmenter-context": "zerolabel.recipes.segmenter:context",
    "segmenter-cityscapes": "zerolabel.recipes.segmenter:cityscapes",
    "segmenter-decoders": "zerolabel.recipes.segmenter:decoders",
    "segmenter-comparison": "zerolabel.recipes.segmenter:comparison",
    "transfgu-coco27": "zerolabel.recipes.transfgu:coco27",
    "transfgu-coco27-curated": "zerolabel.recipes.transfgu:coco27_curated",
    "transfgu-coco171": "zerolabel.recipes.transfgu:coco171",
    "transfgu-coco80": "zerolabel.recipes.transfgu:coco80",
    "transfgu-cityscapes": "zerolabel.recipes.transfgu:cityscapes",
    "transfgu-voc": "zerolabel.recipes.transfgu:voc",
    "transfgu-lip5": "zerolabel.recipes.transfgu:lip5",
    "transfgu-lip16": "zerolabel.recipes.transfgu:lip16",
    "transfgu-lip19": "zerolabel.recipes.transfgu:lip19",
    "transfgu-granularity": "zerolabel.recipes.transfgu:granularity",
    "transfgu-weights": "zerolabel.recipes.transfgu:weights",
    "transfgu-rounds": "zerolabel.recipes.transfgu:rounds",
    "transfgu-students": "zerolabel.recipes.transfgu:students",
    "transfgu-losses": "zerolabel.recipes.transfgu:losses",
    "transfgu-selection": "zerolabel.recipes.transfgu:selection",
    "wnet-stanford": "zerolabel.recipes.wnet:stanford",
    "wnet-ade20k": "zerolabel.recipes.wnet:ade20k",
    "wnet-regions": "zerolabel.recipes.wnet:regions",
}
PAGES = {"results": "zerolabel.recipes.results:page"}  # recipe -> what writes a page of its rows


def find(name: str) -> Callable[[], Experiment]:
    """Return a recipe.

    Args:
        name: a key of `RECIPES`.

    Returns:
        The function that makes its experiment, imported now.

    Raises:
        UsageError: the name is unknown; near names are listed.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    recipe: Callable[[], Experiment] = _import(RECIPES[name])
    return recipe


def page(name: str) -> Callable[[Sequence[Row]], str] | None:
    """Return what writes the Markdown page of a recipe; None if it has none."""
    return _import(PAGES[name]) if name in PAGES else None


def _import(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
