"""Fair stopwatches for shared machines: contestants take turns, and the fastest round counts.

Wall times on a busy machine swing by factors; ratios of times taken turn by turn in one process do
not, and the GEMM time printed beside them says how fast the machine was at that moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def best_of(functions: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Time functions turn by turn (A B C, A B C, ...) and keep the fastest round of each.

    Args:
        functions: name -> what to time, without arguments; each runs once untimed first.
        rounds: how many turns each function gets.

    Returns:
        name -> seconds of its fastest round.
    """
    seconds = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def peak_of_process() -> float:
    """Peak resident memory of this process in MB.

    `getrusage` begins with the peak of whoever started the process on Linux, and what grows less
    than that would seem to grow by nothing. Nothing is imported from the package here, which would
    count, too.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return (
            next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
        )
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def gemm_ms(size: int = 2048, *, rounds: int = 3) -> float:
    """Milliseconds of a float32 (size, size) @ (size, size) product: how fast this machine is now.

    Args:
        size: rows and columns of both factors.
        rounds: products to time; the fastest counts.

    Returns:
        Milliseconds of the fastest product.
    """
    factor = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    return 1e3 * best_of({"gemm": lambda: factor @ factor}, rounds)["gemm"]
