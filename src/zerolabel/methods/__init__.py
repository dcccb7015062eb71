"""One paper per file; a method is found by its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from zerolabel.backbones import AUTO
from zerolabel.errors import unknown_name

if TYPE_CHECKING:
    from zerolabel.methods.base import Method

METHODS = {
    "acseg": "zerolabel.methods.acseg:Acseg",
    "datus": "zerolabel.methods.datus:Datus",
    "deeplab": "zerolabel.methods.deeplab:Deeplab",
    "dino-attention": "zerolabel.methods.attention:DinoAttention",
    "kmeans": "zerolabel.methods.kmeans:KMeans",
    "maskclip": "zerolabel.methods.maskclip:MaskClip",
    "maskclip+": "zerolabel.methods.maskclip_plus:MaskClipPlus",
    "reclip": "zerolabel.methods.reclip:Reclip",
    "reclip++": "zerolabel.methods.reclip:ReclipPlusPlus",
    "segmenter": "zerolabel.methods.segmenter:Segmenter",
    "transfgu": "zerolabel.methods.transfgu:Transfgu",
    "unet": "zerolabel.methods.unet:Unet",
    "wnet": "zerolabel.methods.wnet:Wnet",
}
SUPERVISED = frozenset({"deeplab", "segmenter", "unet"})  # methods that are fitted on labels
WORDED = frozenset({"maskclip", "maskclip+", "reclip", "reclip++"})  # that are told words


def auto_backbone(method: str, backbone: str, *, weights: object = None) -> str:
    """Decide what "auto" is for a method that has a backbone of its own; other names stay.

    Args:
        method: a key of `METHODS`.
        backbone: what the user asked for.
        weights: a weights file, which decides if it is given.

    Returns:
        A backbone's name, or "auto".

    Raises:
        UsageError: the method is unknown.
    """
    return find(method).auto_backbone if backbone == AUTO and weights is None else backbone


def find(name: str) -> type[Method]:
    """Return the class of a method.

    Args:
        name: a key of `METHODS`.

    Returns:
        The class, imported now.

    Raises:
        UsageError: the name is unknown; near names are listed.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    method: type[Method] = getattr(import_module(module), attribute)
    return method
