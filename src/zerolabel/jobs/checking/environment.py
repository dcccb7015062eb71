"""Checks of Python, packages and devices."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from zerolabel import __version__
from zerolabel.jobs.checking.check import Check, words

OLDEST_PYTHON = (3, 10)
MODULES = {"pillow": "PIL", "pyyaml": "yaml"}  # import names that differ from the package's


def python() -> Iterator[Check]:
    """Look at the interpreter, the platform, and where the project lies."""
    version, wanted = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    state = "ok" if sys.version_info >= OLDEST_PYTHON else "problem"
    advice = "" if state == "ok" else f"install Python {wanted} or newer"
    found = f"{version}, {sys.executable}"
    yield Check("environment", "python", state, found, advice, needed=True)
    yield Check("environment", "platform", "ok", platform.platform())
    place = Path(__file__).parents[2]
    yield Check("environment", "zerolabel", "ok", f"{__version__}, {place}")


def packages() -> Iterator[Check]:
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


def torchvision() -> Iterator[Check]:
    """Name a broken torchvision, which users take for the cause of everything."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a torchvision of another torch fails in many ways
        found = f"broken, but harmless here: Zerolabel never uses it ({words(error)})"
        advice = "it breaks timm and transformers, though: pip uninstall torchvision"
        yield Check("environment", "torchvision", "ok", found, advice)
    else:
        yield Check("environment", "torchvision", "ok", "there, not used by Zerolabel")


def devices() -> Iterator[Check]:
    """Look at what can compute, and what "auto" takes."""
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


def _package(name: str, least: str) -> Check:
    wanted = f"{name}>={least}" if least else name
    advice = f'{sys.executable} -m pip install "{wanted}"'
    try:
        version = metadata.version(name)
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except metadata.PackageNotFoundError:
        return Check("environment", name, "missing", f"{wanted} needed", advice, needed=True)
    except Exception as error:  # a broken binary package can raise anything
        found = f"installed, but it cannot be imported: {words(error)}"
        return Check("environment", name, "problem", found, advice, needed=True)
    if _release(version) < _release(least):
        return Check("environment", name, "problem", f"{version}, too old", advice, needed=True)
    found = f"{version} (asked for: {least or 'any'} or newer)" if least else version
    return Check("environment", name, "ok", found, needed=True)


def _requirement(line: str) -> tuple[str, str]:
    """Read "torch>=2.6" as ("torch", "2.6"); without a lower bound the version is ""."""
    name = re.match(r"[\w.-]+", line)
    least = re.search(r">=\s*([\d.]+)", line)
    return name[0] if name else line, least[1] if least else ""


def _release(version: str) -> tuple[int, ...]:
    """Numbers of a version that can be compared; what comes after "+" is a build's name."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0]))
