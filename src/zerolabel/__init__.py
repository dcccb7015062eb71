"""Zerolabel: semantic segmentation with zero labels.

The public names are imported when they are used, so that `import zerolabel` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "evaluate",
    "export",
    "fit",
    "list_backbones",
    "list_methods",
    "load",
    "name",
    "refine",
    "segment",
]

if TYPE_CHECKING:
    from zerolabel.api import (
        evaluate,
        export,
        fit,
        list_backbones,
        list_methods,
        load,
        name,
        refine,
        segment,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("zerolabel.api"), name)
    raise AttributeError(f"module 'zerolabel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
