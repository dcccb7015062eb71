"""The run directory as a place: whole files only, no stage done twice, one job at a time.

A file appears under its name only when it is complete (temporary name, fsync, rename), so its
existence is the mark that the work behind it is done. `Store.stage` is the only resume mechanism of
the project.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from zerolabel.errors import StoreError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Stage:
    """The result of one stage: arrays for mathematics, info for everything else.

    Attributes:
        arrays: numpy arrays by name.
        info: JSON-serialisable facts, e.g. failures and counts.
    """

    arrays: Arrays = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


class Store:
    """A run directory, or a place in memory when no path is given."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else None
        self._memory: dict[str, Stage] = {}

    def stage(self, name: str, fn: Callable[[], Stage]) -> Stage:
        """Return the result of a stage, computing it only if it is not on disk yet.

        Args:
            name: slash-separated, unique in the run and equal for equal work, e.g. "regions/00003".
            fn: computes the result; not called when the stage is done.

        Returns:
            The stage's result.

        Raises:
            StoreError: the result cannot be written or a finished one cannot be read.
        """
        if self.root is None:
            if name not in self._memory:
                self._memory[name] = fn()
            return self._memory[name]
        path = self.root / "cache" / f"{name}.safetensors"
        if not path.exists():
            done = fn()
            arrays = {key: np.ascontiguousarray(value) for key, value in done.arrays.items()}
            info = json.dumps(done.info, sort_keys=True)
            write_bytes(path, save(arrays, metadata={"info": info}))
        return read_stage(path)

    def forget(self, name: str) -> None:
        """Drop a finished stage and everything below it, e.g. results that nobody reads again."""
        if self.root is None:
            for key in [k for k in self._memory if k == name or k.startswith(f"{name}/")]:
                del self._memory[key]
            return
        shutil.rmtree(self.root / "cache" / name, ignore_errors=True)
        (self.root / "cache" / f"{name}.safetensors").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory for one job; the lock vanishes with the process, however it ends.

        Raises:
            StoreError: another job holds it, or the directory cannot be written.
        """
        if self.root is None:
            yield
            return
        guard = FileLock(self.root / ".lock")
        with _explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                guard.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"Another job is working in {self.root}. Wait for it, or choose another --out."
                ) from None
        try:
            yield
        finally:
            guard.release()


def read_stage(path: Path) -> Stage:
    """Read a finished stage.

    Args:
        path: a file that `Store.stage` wrote.

    Returns:
        Its arrays and info.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
            info = json.loads((file.metadata() or {}).get("info", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged ({error}). Delete this file and run the same command again."
        ) from None
    return Stage(arrays, info)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: final name; missing folders are made.
        data: the content.

    Raises:
        StoreError: no space, no permission, or any other failure of the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON file whole or not at all, indented, keys in the given order."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged or missing one is a `StoreError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} is not there. Is {path.parent} a run directory?") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into words about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"The disk is full: {path} could not be written and nothing half-written was left. "
                "Free some space and run the same command again; finished work is kept."
            ) from None
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
