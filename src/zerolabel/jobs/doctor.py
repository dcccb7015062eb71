"""What this machine offers, and whether the project works on it.

No module of it imports what may be missing: each check imports what it needs and fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from zerolabel.jobs.checking import environment, machine, speed
from zerolabel.jobs.checking.check import Check, words


def doctor(out: str | Path = ".") -> Iterator[Check]:
    """Look at everything the project depends on, one check after another; nothing is raised.

    Args:
        out: the folder in which runs would be written; it need not exist.

    Yields:
        The checks, grouped.
    """
    parts: list[tuple[str, str, Callable[[], Iterator[Check]]]] = [
        ("environment", "python", environment.python),
        ("environment", "packages", environment.packages),
        ("environment", "torchvision", environment.torchvision),
        ("devices", "devices", environment.devices),
        ("machine", "threads", machine.threads),
        ("machine", "memory", machine.memory),
        ("machine", "disk", lambda: machine.disk(Path(out))),
        ("weights", "cache", machine.weights),
        ("speed", "product", speed.product),
        ("speed", "self-check", speed.self_check),
    ]
    for group, name, look in parts:
        try:
            yield from look()
        except Exception as error:  # whatever is broken, the other checks still say what they see
            needed = name == "self-check"
            yield Check(group, name, "problem", f"not checked: {words(error)}", needed=needed)


def usable(checks: list[Check]) -> bool:
    """Say whether jobs can run: all that is needed is there."""
    return all(check.state == "ok" for check in checks if check.needed)
