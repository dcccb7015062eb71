"""Names of categories in the files of a run: kept when it is made again, and replaced on request.

`categories.json` is the record; `model.json` and the report follow it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerolabel.data.folder import file_digest
from zerolabel.errors import StoreError
from zerolabel.store import json_bytes, read_json, write_json
from zerolabel.types import Category, Naming

LISTED, MODEL = "categories.json", "model.json"


def plain(category: Category) -> dict[str, Any]:
    """Turn a category into JSON; one that nobody named says nothing of a naming."""
    entry = dataclasses.asdict(category)
    return entry if category.naming is not None else _without(entry)


def parse(entry: dict[str, Any]) -> Category:
    """Turn what `plain` returned, as it comes back from a file, into a category.

    Args:
        entry: id, name and colour at least.

    Returns:
        The category.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    changes: dict[str, Any] = {"colour": tuple(entry["colour"])}
    if "exemplars" in entry:
        changes["exemplars"] = tuple(entry["exemplars"])
    found = entry.get("naming")
    if found is not None:
        alternatives = tuple((str(name), float(score)) for name, score in found["alternatives"])
        changes["naming"] = Naming(**(found | {"alternatives": alternatives}))
    return Category(**(entry | changes))


def unnamed(category: Category) -> Category:
    """Give a category back the name that it had before anybody named it."""
    if category.naming is None:
        return category
    return dataclasses.replace(category, name=category.naming.was, naming=None)


def keep_names(root: Path, categories: Sequence[Category]) -> tuple[Category, ...]:
    """Take over the names that the categories of a run were given.

    Args:
        root: the run directory, claimed, so that what it lists are the same categories.
        categories: index = id.

    Returns:
        The same, with names and how they came by them; unchanged where nothing was named.
    """
    try:
        before = [parse(entry) for entry in read_json(root / LISTED)["categories"]]
    except (StoreError, KeyError, TypeError, ValueError):
        return tuple(categories)  # not there yet, or damaged: it is written anew
    named = {old.id: old for old in before if old.naming is not None}
    return tuple(
        dataclasses.replace(c, name=named[c.id].name, naming=named[c.id].naming)
        if c.id in named
        else c
        for c in categories
    )


def write_names(root: Path, categories: Sequence[Category]) -> None:
    """Write names into `categories.json` and, where there is a model, `model.json`.

    Everything else in the two stays as it is: the model still names the hash of its tensors.

    Args:
        root: the run directory, locked.
        categories: index = id.

    Raises:
        StoreError: a file cannot be read or written.
    """
    for name in (LISTED, MODEL):
        path = root / name
        if name == LISTED or path.exists():
            content = read_json(path)
            content["categories"] = [
                _renamed(entry, categories[int(entry["id"])]) for entry in content["categories"]
            ]
            write_json(path, content)


def unnamed_digest(path: Path) -> str:
    """Hash a `model.json` as it was before anybody named its categories.

    Args:
        path: the file.

    Returns:
        32 hexadecimal digits, the same whatever the names are.
    """
    content = read_json(path)
    entries = content.get("categories", []) if isinstance(content, dict) else []
    if not any(entry.get("naming") for entry in entries):
        return file_digest(path)
    content["categories"] = [_renamed(entry, unnamed(parse(entry))) for entry in entries]
    return hashlib.blake2b(json_bytes(content), digest_size=16).hexdigest()


def _renamed(entry: dict[str, Any], category: Category) -> dict[str, Any]:
    """Change the name of an entry, and how it came by it."""
    changed = _without(entry) | {"name": category.name}
    if category.naming is None:
        return changed
    return changed | {"naming": dataclasses.asdict(category.naming)}


def _without(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "naming"}
