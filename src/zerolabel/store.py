"""The run directory as a place: whole files only, no stage done twice, one job at a time.

A file appears under its name only when it is complete (temporary name, fsync, rename), so its
existence is the mark that the work behind it is done. `Store.stage` is the only resume mechanism of
the project.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from zerolabel.errors import StoreError, UsageError

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # (work, items done, items in all)
# A stage named by a hash of all that decides it (backbones/cache.py) is the same in any run.
BY_CONTENT = re.compile(r"/[0-9a-f]{24}$")
FOREIGN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
log = logging.getLogger(__name__)


def prefixed(report: Progress | None, prefix: str) -> Progress:
    """Say before every piece of work what it belongs to; nothing if nobody listens."""

    def said(work: str, done: int, total: int) -> None:
        if report is not None:
            report(prefix + work, done, total)

    return said


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

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        shared: str | Path | None = None,
        report: Progress | None = None,
    ) -> None:
        """Open a place; nothing is created yet.

        Args:
            root: the run directory; None keeps results in memory.
            shared: a folder for what several runs can use, such as features; one job at a time
                may write there. None keeps them in the run directory.
            report: called with (work, items done, items in all) as work goes on.
        """
        self.root = Path(root) if root is not None else None
        self.shared = Path(shared) if shared is not None else None
        self.seconds: dict[str, float] = {}
        self.computed: list[str] = []  # stages that were not done before, in their order
        self.report = report or (lambda work, done, total: None)
        self._memory: dict[str, Stage] = {}

    @property
    def directory(self) -> Path:
        """The run directory, where there must be one."""
        if self.root is None:
            raise UsageError("A run needs a directory: give out.")
        return self.root

    def track(self, work: str, items: Sequence[T], size: int) -> Iterator[tuple[int, Sequence[T]]]:
        """Cut items into batches, reporting progress and adding up the time they take.

        Args:
            work: what is done, e.g. "masks"; the key in `seconds`.
            items: in the order that decides the batches, so that a resumed job cuts the same ones.
            size: items per batch.

        Yields:
            The batch's number and its items.
        """
        self.report(work, 0, len(items))
        for start in range(0, len(items), size):
            began = time.perf_counter()
            yield start // size, items[start : start + size]
            self.seconds[work] = self.seconds.get(work, 0.0) + time.perf_counter() - began
            self.report(work, min(start + size, len(items)), len(items))

    @contextlib.contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Add the time of one piece of work to `seconds`."""
        began = time.perf_counter()
        yield
        self.seconds[work] = self.seconds.get(work, 0.0) + time.perf_counter() - began

    def stage(self, name: str, fn: Callable[[], Stage]) -> Stage:
        """Return the result of a stage, computing it only if it is not on disk yet.

        Args:
            name: slash-separated, unique in the run and equal for equal work, e.g. "regions/00003".
            fn: computes the result; not called when the stage is done.

        Returns:
            The stage's result.

        Raises:
            StoreError: the result cannot be written.
        """
        done = self.peek(name)
        if done is not None:
            return done
        found = fn()
        self.computed.append(name)
        if self.root is None:
            self._memory[name] = found
            return found
        arrays = {key: np.asarray(value, order="C") for key, value in found.arrays.items()}
        info = json.dumps(found.info, sort_keys=True)
        path = self._path(name)
        write_bytes(path, save(arrays, metadata={"info": info}))
        return read_stage(path)  # as a resumed job will see it

    def peek(self, name: str) -> Stage | None:
        """Return the result of a stage if it is done; a damaged one counts as not done."""
        if self.root is None:
            return self._memory.get(name)
        path = self._path(name)
        if not path.exists():
            return None
        try:
            return read_stage(path)
        except StoreError as error:
            log.warning("%s; doing that part again.", error)
            return None

    def forget(self, name: str) -> None:
        """Drop a finished stage and everything below it, e.g. results that nobody reads again."""
        if self.root is None:
            for key in [k for k in self._memory if k == name or k.startswith(f"{name}/")]:
                del self._memory[key]
            return
        shutil.rmtree(self.root / "cache" / name, ignore_errors=True)
        with _explained(self.root):
            self._path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run directory for one job; the lock vanishes with the process, however it ends.

        Raises:
            StoreError: another job holds it, or the directory cannot be written.
        """
        if self.root is None:
            yield
            return
        with _explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            guard = FileLock(self.root / ".lock")
            try:
                guard.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"Another job is working in {self.root}. Wait for it, or choose another --out."
                ) from None
            except NotImplementedError:  # what older versions of filelock say
                raise StoreError(
                    f"The file system of {self.root} has no locks. Choose an --out on another."
                ) from None
        try:
            yield
        finally:
            guard.release()

    def _path(self, name: str) -> Path:
        """The file of a stage."""
        file = f"{name}.safetensors"
        if self.shared is not None and BY_CONTENT.search(name):
            return self.shared / file
        return self.directory / "cache" / file


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
        raise StoreError(f"{path} is damaged ({error})") from None
    return Stage(arrays, info)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: final name; missing folders are made.
        data: the content.

    Raises:
        StoreError: no space, no permission, or any other failure of the disk.
    """
    with open_whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name only when it is complete.

    Args:
        path: final name; missing folders are made.

    Yields:
        A binary file; on any exception in the body nothing of it is left.

    Raises:
        StoreError: no space, no permission, or any other failure of the disk.
    """
    # Short, so that the longest legal name has room for it; hidden, so no job takes it for data;
    # a function of the name, so that a resumed job overwrites what a killed one left.
    temporary = path.with_name(f".{zlib.crc32(path.name.encode(errors='replace')):08x}.tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON file whole or not at all, indented, keys in the given order."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Mapping[str, Any] | list[Any]) -> bytes:
    """The content of a file that `write_json` writes."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # File names that are no UTF-8 come as lone surrogates; JSON's own escape holds them.
    return text.encode("utf-8", "backslashreplace")


def below(entries: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Take the entries of a flat dict whose names start with a prefix, named without it."""
    return {
        name[len(prefix) :]: value for name, value in entries.items() if name.startswith(prefix)
    }


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
        hint = " Choose another folder." if error.errno in FOREIGN else ""
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.{hint}") from None
