"""Imports point downwards only, and rooms on one floor do not see each other."""

from __future__ import annotations

import ast
from pathlib import Path

import zerolabel

ROOT = Path(zerolabel.__file__).parent
FLOORS = [  # from the roof down; a room may import rooms on lower floors and itself
    {"cli"},
    {"api"},
    {"recipes"},
    {"jobs"},
    {"methods", "evaluation", "outputs"},
    {"stages"},
    {"training"},
    {"backbones", "data"},
    {"networks"},
    {"ops"},
    {"store"},
    {"types", "errors"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "zerolabel"


def arrows() -> list[tuple[str, str, str]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{path}: relative import"
                names = [node.module]
                if node.module == "zerolabel":
                    names = [f"zerolabel.{alias.name}" for alias in node.names]
            found += [(parts[0], name, str(path.relative_to(ROOT))) for name in names]
    return found


def test_every_room_is_on_a_floor() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__main__", "__pycache__", "py"} <= set(FLOOR) | {"py"}


def test_imports_point_downwards() -> None:
    wrong = []
    for room, name, path in arrows():
        if not name.startswith("zerolabel.") or room in ("__init__", "__main__"):
            continue
        target = room_of(name)
        if target not in ("__version__", room) and FLOOR[target] <= FLOOR[room]:
            wrong.append(f"{path}: {name}")
    assert not wrong, wrong


SHARED = ("base", "configs", "built", "told", "pixels", "regions", "worded", "taught")


def test_a_method_never_imports_a_method() -> None:
    # but for what several of them share
    wrong = [
        (path, name)
        for room, name, path in arrows()
        if room == "methods" and name.startswith("zerolabel.methods.")
        if name.removeprefix("zerolabel.methods.") not in SHARED
        if name != f"zerolabel.methods.{Path(path).stem}_config"  # its own settings
    ]
    assert not wrong, wrong


def test_only_weights_touches_the_network() -> None:
    network = {"huggingface_hub", "urllib", "requests", "httpx", "socket", "http"}
    users = {path for _, name, path in arrows() if name.split(".")[0] in network}
    users -= {path for _, name, path in arrows() if name == "urllib.parse"}  # quotes links only
    assert users <= {"backbones/weights.py"}


def test_networks_and_ops_touch_no_file() -> None:
    files = {"pathlib", "os", "PIL", "safetensors", "io", "shutil"}
    users = {(p, n) for r, n, p in arrows() if r in ("ops", "networks") and n in files}
    assert not users
