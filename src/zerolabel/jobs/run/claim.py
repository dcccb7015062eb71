"""A run directory belongs to one job: the same settings on the same images, or it is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zerolabel import __version__
from zerolabel.errors import StoreError, UsageError
from zerolabel.store import Store, read_json, write_json
from zerolabel.types import Sample

RESULTS = ("masks", "categories.json", "model.safetensors", "cache/model.safetensors")
BATCH = 64  # files hashed between two signs of progress
SHOWN = 3  # names in a message


def check_place(data: str | Path, out: str | Path | None) -> None:
    """Refuse to write a run into the folder that holds the data.

    Args:
        data: folder or file of the images.
        out: the run directory, or None.

    Raises:
        UsageError: they are the same folder; masks could replace files there.
    """
    if out is not None and Path(out).resolve() == Path(data).resolve():
        raise UsageError(
            f"The run directory {out} is the folder of the images itself. Choose another --out, "
            f"e.g. {Path(out) / 'run'}; it may lie inside."
        )


def claim(store: Store, job: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Mark a run directory as this job's, or refuse one that holds the results of another.

    A run that ended before it had results may be begun again with other settings.

    Args:
        store: locked; nothing happens if it is in memory.
        job: all that decides the result apart from the images, JSON-serialisable.
        samples: the images.

    Raises:
        StoreError: the directory holds other results; the message says what differs.
    """
    if store.root is None:
        return
    digests: dict[str, str] = {}
    for _, batch in store.track("read", samples, BATCH):
        digests |= {sample.id: sample.digest() for sample in batch}
    asked = {**job, "data": _fingerprint(digests)}
    asked = json.loads(json.dumps(asked))  # as it comes back from a file: a tuple is a list
    path, listing = store.root / "run.json", store.root / "cache" / "data.json"
    before = _read_run(path)
    if "command" in before.get("job", {}):  # e.g. a folder of levels
        raise StoreError(
            f"{store.root} holds results of another kind ({before['job']['command']}), not one "
            "run. Choose another --out, or delete that folder."
        )
    held = any((store.root / name).exists() for name in RESULTS)
    differs = _differences(before, asked, listing, digests)
    if held and differs:
        raise StoreError(
            f"{store.root} holds {'; '.join(differs)}. Choose another --out, or delete that folder."
        )
    kept = {} if differs else before
    attempts = kept.get("attempts", 0) + (kept.get("status") != "done")
    state = {"zerolabel": __version__, "status": "started", "attempts": attempts, "job": asked}
    write_json(path, {**state, **{name: kept[name] for name in kept if name not in state}})
    if differs or not listing.exists():
        write_json(listing, digests)


def mark(folder: Path, job: Mapping[str, Any]) -> None:
    """Mark a folder as that of a command that makes pictures, so that they never count as data.

    Args:
        folder: of the command's own; made if missing.
        job: what it does, its "command" among it.

    Raises:
        StoreError: the folder holds a run of another kind, or cannot be written.
    """
    path = folder / "run.json"
    if path.exists():
        before = read_json(path)
        there = before.get("job") if isinstance(before, dict) else None
        if not isinstance(there, dict) or there.get("command") != job["command"]:
            raise StoreError(f"{folder} holds a run of another kind. Choose another --out.")
    write_json(path, state("started", job))


def state(status: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `run.json` of a folder that was marked."""
    return {"zerolabel": __version__, "status": status, "job": dict(job)}


def previous_backbone(out: str | Path) -> str:
    """The backbone of the run that is in a directory; empty if there is none."""
    try:
        run = read_json(Path(out) / "run.json")
    except StoreError:
        return ""
    job = run.get("job") if isinstance(run, dict) else None
    name = job.get("backbone") if isinstance(job, dict) else None
    return name if isinstance(name, str) else ""


def _read_run(path: Path) -> dict[str, Any]:
    """Read `run.json`; an empty dict stands for none."""
    if not path.exists():
        return {}
    run = read_json(path)
    if isinstance(run, dict) and isinstance(run.get("job"), dict):
        return dict(run)
    raise StoreError(f"{path} was not written by zerolabel. Choose another --out.")


def _fingerprint(digests: Mapping[str, str]) -> str:
    """Hash the names and contents of a data set."""
    total = hashlib.blake2b(digest_size=16)
    for name, digest in digests.items():
        total.update(f"{name!r} {digest}\n".encode())
    return total.hexdigest()


def _differences(
    before: Mapping[str, Any], asked: Mapping[str, Any], listing: Path, digests: Mapping[str, str]
) -> list[str]:
    """Say in words how what is there differs from what is asked for; empty if it does not."""
    if not before:
        return ["files that are no run of zerolabel"]
    if before.get("zerolabel") != __version__:
        return [f"a run of zerolabel {before.get('zerolabel')}, and this is {__version__}"]
    there, here = _flat(before["job"]), _flat(asked)
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    words = [
        f"{name} {there.get(name, 'unset')} instead of {here.get(name, 'unset')}"
        for name in names
        if name != "data"
    ]
    found = []
    if words:
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        found.append(f"a run with {', '.join(words[:SHOWN])}{more}")
    if "data" in names:
        found.append(f"a run on other images{_changes(listing, digests)}")
    return found


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of the method beside the other parts of a job."""
    settings: Mapping[str, Any] = job.get("config", {})
    return {**{k: v for k, v in job.items() if k != "config"}, **settings}


def _changes(listing: Path, digests: Mapping[str, str]) -> str:
    """Name the images that were added, removed or changed, if the old list is still there."""
    try:
        old = read_json(listing)
    except StoreError:
        return ""
    groups = {
        "added": [name for name in digests if name not in old],
        "removed": [name for name in old if name not in digests],
        "changed": [name for name in digests if old.get(name, digests[name]) != digests[name]],
    }
    words = [
        f"{len(names)} {what} since: {', '.join(names[:SHOWN])}{' ...' * (len(names) > SHOWN)}"
        for what, names in groups.items()
        if names
    ]
    return f" ({'; '.join(words)})" if words else ""
