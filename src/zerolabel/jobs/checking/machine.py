"""Checks of threads, memory, disk and weights."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zerolabel.jobs.checking.check import Check

LITTLE = 1e9  # bytes of memory or disk below which larger jobs run into trouble


def threads() -> Iterator[Check]:
    """Look at whether torch uses more threads than there are cores for it."""
    import torch

    cores = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores
    used = torch.get_num_threads()
    found = f"torch uses {used}; {mine} of {cores} cores may be used"
    if used > mine:
        advice = f"set OMP_NUM_THREADS={mine}: threads beyond the cores slow each other down"
        yield Check("machine", "threads", "problem", found, advice)
    else:
        yield Check("machine", "threads", "ok", found)


def memory() -> Iterator[Check]:
    """Look at how much memory is left."""
    free, kind = _free_memory()
    if free is None:
        yield Check("machine", "memory", "ok", "this system does not tell")
        return
    little = free < LITTLE
    advice = "close other programs, or segment at a smaller --size" if little else ""
    found = f"{free / 1e9:.1f} GB {kind}"
    yield Check("machine", "memory", "problem" if little else "ok", found, advice)


def disk(out: Path) -> Iterator[Check]:
    """Look at whether temporary files and runs can be written.

    Args:
        out: the folder of runs; it need not exist.
    """
    for name, folder in (("temporary", Path(tempfile.gettempdir())), ("runs", out)):
        there = folder.absolute()
        while not there.is_dir() and there != there.parent:
            there = there.parent
        needed = name == "runs"
        try:
            with tempfile.TemporaryFile(dir=there):
                free = shutil.disk_usage(there).free
        except OSError as error:
            found = f"{there} cannot be written: {error.strerror or error}"
            advice = "choose another folder with --out" if needed else "set TMPDIR"
            yield Check("machine", name, "problem", found, advice, needed=needed)
            continue
        state = "problem" if free < LITTLE else "ok"
        advice = "free some space: a photo's mask, overlay and thumbnails take about 0.2 MB"
        found = f"{free / 1e9:.1f} GB free in {there}"
        yield Check("machine", name, state, found, "" if state == "ok" else advice, needed=False)


def weights() -> Iterator[Check]:
    """Look at which weights are here."""
    from zerolabel.backbones.registry import BACKBONES
    from zerolabel.backbones.vocabulary import here
    from zerolabel.backbones.weights import find, megabytes

    folder = _hub_cache()
    offline = ", HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else ""
    found = f"{folder}{'' if folder.is_dir() else ' (not made yet)'}{offline}"
    yield Check("weights", "cache", "ok", found)
    for name, item in BACKBONES.items():
        if not item.repo:
            yield Check("weights", name, "ok", "needs no weights")
            continue
        if not here(item):
            advice = f"`zerolabel models get {name}` fetches {megabytes(item)}"
            yield Check("weights", name, "missing", f"not needed; {advice}")
        else:
            yield Check("weights", name, "ok", str(find(item)))


def _free_memory() -> tuple[float | None, str]:
    """Bytes of memory, and whether they are free or all there are."""
    table = Path("/proc/meminfo")
    if table.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text())
        if found:
            return 1024.0 * int(found[1]), "free"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), "in all"
    return None, ""


def _hub_cache() -> Path:
    """The folder in which huggingface_hub keeps weights, by its documented variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    return Path(home).expanduser() / "hub"
