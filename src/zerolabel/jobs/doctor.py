"""What this machine offers, and whether the project works on it.

The module imports nothing that may be missing: each check imports what it needs and fails alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zerolabel import __version__

OLDEST_PYTHON = (3, 10)
MODULES = {"pillow": "PIL", "pyyaml": "yaml"}  # import names that differ from the package's
LITTLE = 1e9  # bytes of memory or disk below which larger jobs run into trouble
GEMM = 2048  # side of the square factors
PATCHES = 500  # that the self-check's dictionary is learned from; the default's 20,000 take seconds
SOUND = 0.8  # pixel accuracy that the self-check must reach; a working machine has 0.99


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: heading it belongs to.
        name: what was looked at.
        state: "ok", "missing" or "problem".
        found: what was found, one line.
        advice: what to do, if there is something to do.
        needed: without it nothing works.
    """

    group: str
    name: str
    state: str
    found: str
    advice: str = ""
    needed: bool = False


def doctor(out: str | Path = ".") -> Iterator[Check]:
    """Look at everything the project depends on, one check after another; nothing is raised.

    Args:
        out: the folder in which runs would be written; it need not exist.

    Yields:
        The checks, grouped.
    """
    parts: list[tuple[str, str, Callable[[], Iterator[Check]]]] = [
        ("environment", "python", _python),
        ("environment", "packages", _packages),
        ("environment", "torchvision", _torchvision),
        ("devices", "devices", _devices),
        ("machine", "threads", _threads),
        ("machine", "memory", _memory),
        ("machine", "disk", lambda: _disk(Path(out))),
        ("weights", "cache", _weights),
        ("speed", "product", _product),
        ("speed", "self-check", _self_check),
    ]
    for group, name, look in parts:
        try:
            yield from look()
        except Exception as error:  # whatever is broken, the other checks still say what they see
            needed = name == "self-check"
            yield Check(group, name, "problem", f"not checked: {_words(error)}", needed=needed)


def usable(checks: list[Check]) -> bool:
    """Say whether jobs can run: all that is needed is there."""
    return all(check.state == "ok" for check in checks if check.needed)


def _python() -> Iterator[Check]:
    version, wanted = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    state = "ok" if sys.version_info >= OLDEST_PYTHON else "problem"
    advice = "" if state == "ok" else f"install Python {wanted} or newer"
    found = f"{version}, {sys.executable}"
    yield Check("environment", "python", state, found, advice, needed=True)
    yield Check("environment", "platform", "ok", platform.platform())
    place = Path(__file__).parent.parent
    yield Check("environment", "zerolabel", "ok", f"{__version__}, {place}")


def _packages() -> Iterator[Check]:
    """Compare every dependency with what the package's metadata asks for."""
    try:
        asked = metadata.requires("zerolabel") or []
    except metadata.PackageNotFoundError:
        found = "not installed as a package, so its dependencies are not known"
        advice = f"{sys.executable} -m pip install -e ."
        yield Check("environment", "packages", "problem", found, advice)
        return
    for line in asked:
        if "extra ==" not in line:
            name, least = _requirement(line)
            yield _package(name, least)


def _requirement(line: str) -> tuple[str, str]:
    """Read "torch>=2.6" as ("torch", "2.6"); without a lower bound the version is ""."""
    name = re.match(r"[\w.-]+", line)
    least = re.search(r">=\s*([\d.]+)", line)
    return name[0] if name else line, least[1] if least else ""


def _package(name: str, least: str) -> Check:
    wanted = f"{name}>={least}" if least else name
    advice = f'{sys.executable} -m pip install "{wanted}"'
    try:
        version = metadata.version(name)
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except metadata.PackageNotFoundError:
        return Check("environment", name, "missing", f"{wanted} needed", advice, needed=True)
    except Exception as error:  # a broken binary package can raise anything
        found = f"installed, but it cannot be imported: {_words(error)}"
        return Check("environment", name, "problem", found, advice, needed=True)
    if _release(version) < _release(least):
        return Check("environment", name, "problem", f"{version}, too old", advice, needed=True)
    found = f"{version} (asked for: {least or 'any'} or newer)" if least else version
    return Check("environment", name, "ok", found, needed=True)


def _release(version: str) -> tuple[int, ...]:
    """Numbers of a version that can be compared; what comes after "+" is a build's name."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0]))


def _torchvision() -> Iterator[Check]:
    """Name a broken torchvision, which users take for the cause of everything."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a torchvision of another torch fails in many ways
        found = f"broken, but harmless here: Zerolabel never uses it ({_words(error)})"
        advice = "it breaks timm and transformers, though: pip uninstall torchvision"
        yield Check("environment", "torchvision", "ok", found, advice)
    else:
        yield Check("environment", "torchvision", "ok", "there, not used by Zerolabel")


def _devices() -> Iterator[Check]:
    import torch

    from zerolabel.backbones import pick_device

    yield Check("devices", "cpu", "ok", platform.processor() or platform.machine())
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for i in range(cards):
        card = torch.cuda.get_device_properties(i)
        found = f"{card.name}, {card.total_memory / 1e9:.0f} GB"
        yield Check("devices", f"cuda:{i}", "ok", found)
    if not cards:
        built = f"torch {torch.__version__} is built " + (
            f"for CUDA {torch.version.cuda}, but finds no card"
            if torch.version.cuda
            else "without CUDA"
        )
        yield Check("devices", "cuda", "missing", f"{built}; not needed")
    mps = torch.backends.mps.is_available()
    found = "Apple GPU" if mps else "no Apple GPU; not needed"
    yield Check("devices", "mps", "ok" if mps else "missing", found)
    yield Check("devices", "auto", "ok", f"takes {pick_device('auto')}")


def _threads() -> Iterator[Check]:
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


def _memory() -> Iterator[Check]:
    free, kind = _free_memory()
    if free is None:
        yield Check("machine", "memory", "ok", "this system does not tell")
        return
    little = free < LITTLE
    advice = "close other programs, or segment at a smaller --size" if little else ""
    found = f"{free / 1e9:.1f} GB {kind}"
    yield Check("machine", "memory", "problem" if little else "ok", found, advice)


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


def _disk(out: Path) -> Iterator[Check]:
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


def _weights() -> Iterator[Check]:
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


def _hub_cache() -> Path:
    """The folder in which huggingface_hub keeps weights, by its documented variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    return Path(home).expanduser() / "hub"


def _product() -> Iterator[Check]:
    import torch

    x = torch.ones(GEMM, GEMM)
    seconds = []
    for _ in range(4):  # the first one starts the threads
        began = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - began)
    best = min(seconds)
    rate = 2 * GEMM**3 / best / 1e9
    found = f"{1e3 * best:.0f} ms for {GEMM}^3 in float32 on the CPU, {rate:.0f} GFLOP/s"
    yield Check("speed", "product", "ok", found)


def _self_check() -> Iterator[Check]:
    """Segment a tiny planted world in memory, and compare with what was planted."""
    from zerolabel.backbones import pick_device
    from zerolabel.backbones.filterbank import Config, FilterBank
    from zerolabel.data.synthetic import world
    from zerolabel.evaluation.confusion import Confusion
    from zerolabel.evaluation.protocols import PROTOCOLS, score
    from zerolabel.jobs.run.model import Model, build
    from zerolabel.store import Store

    began = time.perf_counter()
    samples = world(3, images=4, per_image=3)
    backbone = FilterBank(Config(patches=PATCHES), device=str(pick_device("auto")))
    method = build("datus", backbone, settings={"k": 3})
    method.fit(samples, store=Store())
    model, confusion = Model(method), Confusion(3, 3)
    for sample in samples:
        if sample.load_label is not None:
            confusion.add(sample.load_label(), model.predict(sample.load()).label_map)
    accuracy = score(confusion.counts, PROTOCOLS["full"]).pixel_accuracy
    seconds = time.perf_counter() - began
    found = f"4 planted images, 3 categories: {accuracy:.0%} of pixels right, {seconds:.1f} s"
    state = "ok" if accuracy >= SOUND else "problem"
    advice = "" if state == "ok" else "try --device cpu; if that helps, report the device as a bug"
    yield Check("speed", "self-check", state, found, advice, needed=True)


def _words(error: Exception) -> str:
    """The first line of an error, with its kind where it says nothing by itself."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
