"""What `run.json` says of a directory of levels, and whose directory it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerolabel.errors import StoreError
from zerolabel.jobs.fit import Options, note
from zerolabel.jobs.run.claim import RESULTS, SHOWN, state
from zerolabel.jobs.run.finish import Run
from zerolabel.methods.base import Method
from zerolabel.store import read_json, write_json

COMMAND = "granularity"  # marks a directory of levels in its `run.json`
Runs = Mapping[int | str, Run]  # number of categories as it was asked for -> run


def folder_of(level: int | str) -> str:
    """Name the run directory of a level."""
    return f"k{level}"


def common(method: Method, options: Options) -> dict[str, Any]:
    """Put together all that the levels share.

    Args:
        method: of any level.
        options: of the job.

    Returns:
        The "job" of `run.json`, as it comes back from a file.
    """
    config = {name: v for name, v in dataclasses.asdict(method.config).items() if name != "k"}
    job = {
        "command": COMMAND,
        "method": method.name,
        "config": config,
        "backbone": method.backbone.name,
        "weights": method.backbone.digest,
        **note(**options.view),
    }
    found: dict[str, Any] = json.loads(json.dumps(job))
    return found


def claim_levels(root: Path, job: dict[str, Any]) -> None:
    """Mark a directory as that of these levels, or refuse one that holds something else.

    Levels that ended before they had results may be begun again with other settings.

    Args:
        root: the directory, locked.
        job: from `common`.

    Raises:
        StoreError: it holds another kind of run, or levels with other settings.
    """
    path = root / "run.json"
    before = read_json(path) if path.exists() else {}
    there = before.get("job") if isinstance(before, dict) else None
    if any((root / name).exists() for name in RESULTS) or (
        path.exists() and (not isinstance(there, dict) or there.get("command") != COMMAND)
    ):
        raise StoreError(
            f"{root} holds a run of another kind, not levels of granularity. Choose another --out, "
            "or delete that folder."
        )
    if there == job:
        return
    old, new = ({**facts, **facts.get("config", {})} for facts in (there or {}, job))
    names = [n for n in {**old, **new} if n != "config" and old.get(n) != new.get(n)]
    results = any((level / name).exists() for level in root.glob("k*") for name in RESULTS)
    if there is not None and results:
        words = ", ".join(
            f"{n} {old.get(n, 'unset')} instead of {new.get(n, 'unset')}" for n in names[:SHOWN]
        )
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise StoreError(
            f"{root} holds levels with {words}{more}. Choose another --out, or delete that folder."
        )
    write_json(path, state("started", job))


def record(job: dict[str, Any], runs: Runs, *, words: str) -> dict[str, Any]:
    """Put together what `run.json` says while levels are made.

    Args:
        job: from `common`.
        runs: the levels that are done.
        words: what the images are.

    Returns:
        What the levels share, each of them, and the seconds that each took.
    """
    seconds = {
        folder_of(level): read_json(run.path / "run.json")["seconds"]["all"]
        for level, run in runs.items()
    }
    levels = [
        {
            "level": level,
            "folder": folder_of(level),
            "k": len(run.categories),
            "images": run.images,
            "failed": len(run.failures),
        }
        for level, run in runs.items()
    ]
    started = state("started", job) | {"data": words, "levels": levels}
    return {**started, "seconds": {"all": sum(seconds.values()), **seconds}}
