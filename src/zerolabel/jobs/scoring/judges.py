"""The jobs of the protocols that judge something else than the masks of a run.

Imports no job before it is asked for, so that the command line can ask what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

JOBS = {  # protocol -> function(data, *, out, ...), of bsds (runs, data, *, out, ...)
    "jaccard": "zerolabel.jobs.probing.jaccard:evaluate_attention",
    "linear-probe": "zerolabel.jobs.probing.linear:evaluate_linear",
    "knn": "zerolabel.jobs.probing.knn:evaluate_knn",
    "maskcontrast-linear": "zerolabel.jobs.probing.maskcontrast:evaluate_maskcontrast",
    "stego-linear": "zerolabel.jobs.probing.stego:evaluate_stego_linear",
    "stego-cluster": "zerolabel.jobs.probing.stego:evaluate_stego_cluster",
    "dense-knn": "zerolabel.jobs.probing.dense_knn:evaluate_dense_knn",
    "retrieval": "zerolabel.jobs.probing.retrieval:evaluate_retrieval",
    "maskcontrast-kmeans": "zerolabel.jobs.probing.retrieval:evaluate_pooled_kmeans",
    "bsds": "zerolabel.jobs.scoring.regions:evaluate_regions",
}


def job_of(protocol: str) -> Callable[..., dict[str, Any]]:
    """Import the job of a protocol, a key of `JOBS`."""
    module, _, name = JOBS[protocol].partition(":")
    found: Callable[..., dict[str, Any]] = getattr(import_module(module), name)
    return found
