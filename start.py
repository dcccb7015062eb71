"""Everything in a fresh clone with Python 3.10 or newer and nothing else.

    python3 start.py segment PHOTOS --out RUN   segment a folder of photos
    python3 start.py test                       run the tests

The first call makes an environment in .venv and installs the project there; later calls use it
again, and go over it where pyproject.toml or constraints.txt has changed. These words are for
working on the project:

    setup   make the environment, and no more
    check   lint, format, types, import directions
    test    all tests; options of pytest may follow
    fast    the tests of all that learns nothing, but for the slow ones
    docs    every link, command, option and example that the documentation names
    bench   speed and memory, as ratios measured in one run
    results every method on the data that ZEROLABEL_DATA holds; writes docs/results.md again

Anything else is a command of zerolabel: `python3 start.py --help` lists them. Set ZEROLABEL_VENV to
keep the environment in another folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 10)
ROOT = Path(__file__).resolve().parent
CONSTRAINTS = "constraints.txt"
PINNED_FIRST = "torch"  # before anything that depends on it could bring another build
STAMP = "zerolabel-ready.json"
# As many workers as cores, but four at most: each needs up to a gigabyte. A file is one worker's,
# in the order of tests/conftest.py.
PYTEST = ["pytest", "-n", "auto", "--maxprocesses", "4"]
PYTEST += ["--dist", "loadfile", "--no-loadscope-reorder"]
LEARNING = ("jobs", "methods", "stages", "training")  # rooms whose tests are most of the time
WORK: dict[str, list[list[str]]] = {  # modules of Python, run one after another in ROOT
    "setup": [],
    "check": [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["pytest", "tests/test_architecture.py"],
    ],
    "test": [PYTEST],
    "fast": [[*PYTEST, "-m", "not slow", *(f"--ignore=tests/{room}" for room in LEARNING)]],
    "docs": [["pytest", "tests/test_docs.py"]],
    "bench": [["benchmarks/run.py"]],
    "results": [["zerolabel", "reproduce", "results", "--page", "docs/results.md"]],
}


class SetupError(Exception):
    """What keeps the environment from being made, in words."""


def main(arguments: list[str]) -> int:
    """Make the environment if need be, and run what was asked for.

    Args:
        arguments: a word of `WORK` and options for its last step, or a command of zerolabel.

    Returns:
        The exit code.
    """
    if not arguments:
        say(__doc__.strip())
        return 2
    try:
        if sys.version_info < OLDEST:
            found = platform.python_version()
            raise SetupError(
                f"Zerolabel needs Python {OLDEST[0]}.{OLDEST[1]} or newer, not {found}."
            )
        word, options = arguments[0], arguments[1:]
        python = prepare(development=word in WORK)
    except SetupError as error:
        say(f"start.py: {error}")
        return 1
    if word not in WORK:
        return hand_over([python, "-m", "zerolabel", *arguments], Path.cwd())
    # Without bytecode every worker, and every command that a test runs, compiles all of it again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    steps = [[python, *as_module(step)] for step in WORK[word]]
    for step in steps[:-1]:
        code = subprocess.call(step, cwd=ROOT)
        if code:
            return code
    return hand_over([*steps[-1], *options], ROOT) if steps else 0


def prepare(*, development: bool) -> str:
    """Make the environment, or find that it is ready.

    Args:
        development: whether the tools and libraries of the tests are needed too.

    Returns:
        The environment's Python.

    Raises:
        SetupError: the environment cannot be made.
    """
    folder = Path(os.environ.get("ZEROLABEL_VENV") or ROOT / ".venv").absolute()
    python, stamp = python_of(folder), folder / STAMP
    ready = read_stamp(stamp)
    enough = ready.get("development") or not development
    if enough and ready.get("of") == fingerprint() and python.exists():
        return str(python)
    make(folder, python)
    stamp.unlink(missing_ok=True)
    development = development or bool(ready.get("development"))
    say(f"Installing into {folder}; the first time this downloads PyTorch.")
    for wanted in ([pinned(PINNED_FIRST)], ["--editable", ".[dev]" if development else "."]):
        install(python, wanted)
    stamp.write_text(json.dumps({"of": fingerprint(), "development": development}))
    return str(python)


def make(folder: Path, python: Path) -> None:
    """Make a virtual environment, unless a working one is there."""
    if works(python):
        return
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise SetupError(
            f"{folder} is there and is no virtual environment. Move it away, or set ZEROLABEL_VENV "
            "to another folder."
        )
    say(f"Making the environment {folder}")
    command = [sys.executable, "-m", "venv", "--clear", str(folder)]  # what is there does not work
    if subprocess.call(command, stdout=sys.stderr):
        raise SetupError(
            "no virtual environment could be made. On Debian and Ubuntu the package python3-venv "
            "is needed for it."
        )


def works(python: Path) -> bool:
    """Say whether an environment's Python runs and has pip."""
    if not python.exists():
        return False
    return not subprocess.call(
        [str(python), "-c", "import pip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def install(python: Path, wanted: list[str]) -> None:
    """Install with pip, showing its progress to a person and nothing to a log."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    command = [str(python), "-m", "pip", "install", *quiet, *wanted]
    # pip cuts this variable at spaces; a bare name, taken from ROOT, has none.
    environment = {**os.environ, "PIP_CONSTRAINT": CONSTRAINTS}
    if subprocess.call(command, cwd=ROOT, env=environment, stdout=sys.stderr):
        raise SetupError(
            f"pip could not install {wanted[-1]}; its message is above. Run the same command again "
            "when the cause is gone: what is there is kept."
        )


def pinned(name: str) -> str:
    """Find the line of a package in constraints.txt, e.g. "torch==2.13.0"."""
    for line in (ROOT / CONSTRAINTS).read_text(encoding="utf-8").splitlines():
        if line.startswith(name + "=="):
            return line.strip()
    raise SetupError(f"{ROOT / CONSTRAINTS} does not pin {name}.")


def fingerprint() -> str:
    """Hash all that decides what is installed, where from, and for which Python."""
    place = f"{ROOT} {sys.version_info[:2]}"
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape"))
    for name in ("pyproject.toml", CONSTRAINTS):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp(path: Path) -> dict[str, object]:
    """Read what was installed; a missing or damaged stamp says nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def python_of(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def as_module(step: list[str]) -> list[str]:
    """Arguments of Python for a script or a module."""
    return step if step[0].endswith(".py") else ["-m", *step]


def hand_over(command: list[str], folder: Path) -> int:
    """Become the command, so that signals reach it; Windows has to wait for it instead."""
    if os.name != "nt":
        os.chdir(folder)
        os.execv(command[0], command)
    process = subprocess.Popen(command, cwd=folder)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command got it as well, and ends in its own way
            continue


def say(text: str) -> None:
    """Tell the person in front of the terminal; results alone belong on standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("start.py: interrupted. Run the same command again to go on.")
