"""What a job did and what it cost: the end of `run.json`, and the same in words."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerolabel import __version__
from zerolabel.jobs.run.model import Model
from zerolabel.store import Store, read_json


def account(
    store: Store, model: Model, *, images: int, failed: int, began: float
) -> dict[str, Any]:
    """Put together what `run.json` says at the end of a job.

    A job that found everything done keeps the times of the one that did the work.

    Args:
        store: of the run directory, claimed.
        model: fitted.
        images: number of images that were read.
        failed: number of images that could not be read.
        began: `time.perf_counter()` at the start of the job.

    Returns:
        What `claim` wrote, with what was done added to it.

    Raises:
        StoreError: what `claim` wrote is gone.
    """
    method = model.method
    run: dict[str, Any] = read_json(store.directory / "run.json") | {
        "status": "done",
        "images": images,
        "failed": failed,
        "k": method.k,
        "k_scores": method.curve,
        "notes": method.notes,
        **({"segments": method.counted()} if method.counted() else {}),
    }
    if store.computed or "seconds" not in run:
        run["seconds"] = {"all": time.perf_counter() - began, **store.seconds}
        run["peak_memory_mb"] = peak_megabytes()
        run["environment"] = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
        }
    return run


def in_words(run: dict[str, Any], model: Model, *, words: str) -> dict[str, str]:
    """Say the same for the report.

    Args:
        run: the content of `run.json`.
        model: fitted.
        words: what the images were.

    Returns:
        Facts by name, in the order in which they are shown; those without a value are left out.
    """
    method, seconds, environment = model.method, run["seconds"], run["environment"]
    total, stages = seconds["all"], {k: v for k, v in seconds.items() if k != "all"}
    resumed = "; the job was interrupted and this is its last part" if run["attempts"] > 1 else ""
    memory = run["peak_memory_mb"]
    facts = {
        "Data": f"{words}, {run['images'] + run['failed']} images",
        "Method": method.name,
        "Backbone": method.backbone.name,
        "Categories": f"{method.k}{', chosen from the data' if method.curve else ''}",
        "Refinement": method.config.refine,
        "Seed": str(method.config.seed),
        "Notes": "; ".join(method.notes),
        "Time": f"{total:.1f} s, {run['images'] / max(total, 1e-9):.1f} images/s{resumed}",
        "Time by stage": ", ".join(f"{name} {value:.1f} s" for name, value in stages.items()),
        "Peak memory": f"{memory:.0f} MB" if memory else "",
        "Software": f"zerolabel {__version__}, torch {environment['torch']}, "
        f"Python {environment['python']}, {environment['threads']} threads",
    }
    return {name: value for name, value in facts.items() if value}


def peak_megabytes() -> float | None:
    """Peak resident memory of this process, where the system tells."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # getrusage begins with the peak of whoever started the process
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return peaks[0] / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (2**20 if sys.platform == "darwin" else 2**10)
