"""The jobs of the protocols that judge something else than the masks of a run.

Imports nothing, so that the command line can ask what there is.
"""

from __future__ import annotations

JOBS = {  # protocol -> function(data, *, out, ...), of bsds (runs, data, *, out, ...)
    "jaccard": "zerolabel.jobs.jaccard:evaluate_attention",
    "linear-probe": "zerolabel.jobs.probe:evaluate_linear",
    "knn": "zerolabel.jobs.knn:evaluate_knn",
    "maskcontrast-linear": "zerolabel.jobs.probe_maskcontrast:evaluate_maskcontrast",
    "stego-linear": "zerolabel.jobs.probe_stego:evaluate_stego_linear",
    "stego-cluster": "zerolabel.jobs.probe_stego:evaluate_stego_cluster",
    "dense-knn": "zerolabel.jobs.dense_knn:evaluate_dense_knn",
    "retrieval": "zerolabel.jobs.retrieval:evaluate_retrieval",
    "maskcontrast-kmeans": "zerolabel.jobs.retrieval:evaluate_pooled_kmeans",
    "bsds": "zerolabel.jobs.regions:evaluate_regions",
}
