"""A method from its name and settings, checked before any work is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from zerolabel.backbones import Backbone
from zerolabel.errors import UsageError, unknown_name
from zerolabel.methods import WORDED, find
from zerolabel.methods.base import Method
from zerolabel.methods.configs import configure
from zerolabel.outputs.colours import MAX_COLOURS
from zerolabel.stages.categorise import CATEGORISE, span
from zerolabel.stages.describe import DESCRIBE
from zerolabel.stages.discover import DISCOVER
from zerolabel.stages.refine import REFINE

VERBS: dict[str, Mapping[str, Any]] = {
    "discover": DISCOVER,
    "describe": DESCRIBE,
    "categorise": CATEGORISE,
    "refine": REFINE,
}
MOST_SEED = 2**32 - 1
# 0 stands for none, the first, or what follows from other settings
FROM_ZERO = frozenset(
    ["components", "heads", "attention_heads", "hidden", "decay"]
    + ["stuff", "start", "uncertainty", "diversity", "teacher", "repeat"]
    + ["held", "drop_path", "dropout", "warmup", "balance"]
    + ["none", "denoise", "smooth", "views", "least", "epochs", "horizon"]
    + ["student_epochs", "student_batch", "mask", "feature", "text"]
    + ["level", "drop_every", "ncut_weight", "rec_weight", "squares"]
)
GRAPH = 1 << 14  # most patches where a graph is built: it has their square in entries
GRID = 1 << 18  # most patches elsewhere


def build(
    method: str,
    backbone: Backbone,
    *,
    preset: str = "default",
    settings: Mapping[str, Any] | None = None,
) -> Method:
    """Make a method that is not fitted yet.

    Args:
        method: a key of METHODS.
        backbone: what encodes.
        preset: a key of the method's PRESETS.
        settings: fields of its Config to change.

    Returns:
        The method; its `size` is rounded down to whole patches.

    Raises:
        UsageError: an unknown name, or a setting of a wrong type or value.
    """
    kind, settings = find(method), settings or {}
    _check_words(method, kind, settings)
    config = configure(kind.PRESETS, preset, settings)
    usual = kind.PRESETS["default"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(usual, field.name):  # a verb may have a way that is the method's own
            _check(field.name, value)
    if hasattr(config, "size"):
        size = whole_patches(config.size, backbone)
        _check_memory(size, backbone, graph=hasattr(config, "discover"))
        config = dataclasses.replace(config, size=size)
    return kind(config, backbone)


def _check_words(method: str, kind: type[Method], settings: Mapping[str, Any]) -> None:
    """Say so where words are given to a method that finds categories, or a number to another."""
    known = {field.name for field in dataclasses.fields(kind.PRESETS["default"])}
    given = [name for name in ("classes", "background") if settings.get(name) is not None]
    if given and given[0] not in known:
        raise UsageError(
            f"{method} finds categories by itself and takes no {given[0]}; `zerolabel name` gives "
            f"them names afterwards. Methods that look for words: {', '.join(sorted(WORDED))}."
        )
    if settings.get("k") is not None and "k" not in known:
        raise UsageError(
            f"{method} has no k: its categories are the classes that it is told. Leave k and "
            "granularity out."
        )


def whole_patches(
    size: tuple[int, int], backbone: Backbone, *, default: int = 224
) -> tuple[int, int]:
    """Round a size down to whole patches.

    What is left over would be cut off, and every patch would then stand for a little more of the
    image than it saw.

    Args:
        size: (H, W) in pixels.
        backbone: what encodes.
        default: the size to name in a message.

    Returns:
        (H, W), multiples of the backbone's stride.

    Raises:
        UsageError: there is no room for one patch.
    """
    stride, (H, W) = backbone.stride, size
    if min(size) < stride:
        raise UsageError(
            f"size is {H}x{W}, but {backbone.name} needs at least {stride} pixels a side. "
            f"The default is {default}."
        )
    return H - H % stride, W - W % stride


def _check(name: str, value: Any) -> None:
    """Refuse values that no stage can work with."""
    if name in VERBS and value not in VERBS[name]:
        raise unknown_name(f"{name} stage", str(value), VERBS[name])
    if name == "k":
        _check_k(value)
    elif name == "seed":
        if not 0 <= value <= MOST_SEED:
            raise UsageError(f"seed must be in 0..{MOST_SEED}, got {value}.")
    elif isinstance(value, float):
        if not (value > 0 or (value == 0 and name in FROM_ZERO)) or not math.isfinite(value):
            words = "0 or more" if name in FROM_ZERO else "above 0"
            raise UsageError(f"{name} must be {words}, got {value:g}.")
    elif isinstance(value, int) and not isinstance(value, bool):
        least = 0 if name in FROM_ZERO else 1
        if value < least:
            raise UsageError(f"{name} must be {least} or more, got {value}.")


def _check_k(k: Any) -> None:
    low, high = span(k) or (k, k)
    if not 1 <= low <= high <= MAX_COLOURS:
        raise UsageError(
            f"k must be auto or a whole number in 1..{MAX_COLOURS}, or a range of it, got {k!r}."
        )


def _check_memory(size: tuple[int, int], backbone: Backbone, *, graph: bool) -> None:
    """Refuse sizes whose memory nobody has."""
    stride, (H, W) = backbone.stride, size
    most, patches = (GRAPH if graph else GRID), (H // stride) * (W // stride)
    if patches > most:
        side = math.isqrt(most) * stride
        raise UsageError(
            f"size is {H}x{W}, which makes {patches} patches of {stride} pixels; at most {most} "
            f"fit in memory. Images of any size are encoded at `size`: give {side} or less."
        )
