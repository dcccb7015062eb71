"""Where the vocabulary of a CLIP's tokenizer lies; nothing is ever downloaded here."""

from __future__ import annotations

from pathlib import Path

from zerolabel.backbones.registry import BACKBONES, CLIP, VOCABULARIES, Entry
from zerolabel.backbones.weights import find, find_cached, megabytes
from zerolabel.errors import WeightsError


def here(item: Entry) -> bool:
    """Tell whether all that a backbone needs is on this machine: weights, and any vocabulary."""
    weights = find(item)
    return weights is not None and (not item.companions or find_vocabulary(weights) is not None)


def find_vocabulary(weights: Path) -> Path | None:
    """Look for a vocabulary; all published CLIPs share one.

    Args:
        weights: a weights file; its folder is looked into first, then the cache of every CLIP.

    Returns:
        The file, or None.
    """
    beside = (weights.with_name(filename) for filename in VOCABULARIES)
    cached = (find_cached(item, *item.companions) for item in BACKBONES.values())
    return next((path for path in beside if path.is_file()), next(filter(None, cached), None))


def vocabulary(name: str, *, weights: Path) -> Path:
    """Return the vocabulary of a CLIP.

    Args:
        name: what the user called the backbone.
        weights: its weights file.

    Returns:
        The file beside the weights, or one in the cache.

    Raises:
        WeightsError: there is none; the message says how to get it.
    """
    path = find_vocabulary(weights)
    if path is None:
        item = BACKBONES.get(name)
        item = item if item is not None and item.is_clip else BACKBONES[CLIP]
        raise WeightsError(
            f"The vocabulary of {name} is not on this machine: {weights.parent} holds none of "
            f"{', '.join(VOCABULARIES)}. Put one of them there, or run `zerolabel models get "
            f"{item.name}`, which fetches merges.txt and, unless they are here, the weights (about "
            f"{megabytes(item)} from {item.source}, licence {item.licence})."
        )
    return path
