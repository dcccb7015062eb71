"""k-means over 10^6 vectors from a file, mapped into memory, against scikit-learn's in memory.

384 numbers each, 27 clusters, 10 steps from the same start, exact. The vectors are noise about 60
directions, so that neither ends early. Ours reads them from disk, as 1.5 GB in a temporary folder;
scikit-learn's KMeans (Lloyd's algorithm, one start) has them in memory. They take turns; the peaks
are of processes of their own. Bar: 1.5 times the time of scikit-learn.

    python benchmarks/kmeans_stream.py [--vectors N] [--rounds R] [--folder DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

D, K, STEPS, BAR = 384, 27, 10, 1.5


def write(path: Path, count: int) -> None:
    """Write the vectors a few at a time."""
    rng = np.random.default_rng(0)
    ways = rng.standard_normal((60, D), dtype=np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (count, D))
    for start in range(0, count, 50_000):
        part = out[start : start + 50_000]
        part[:] = ways[rng.integers(0, 60, len(part))]
        part += 2 * rng.standard_normal(part.shape, dtype=np.float32)
    out.flush()


def ours(path: Path) -> tuple[Any, float]:
    import torch

    from zerolabel.ops.cluster import lloyd

    x = torch.from_numpy(np.load(path, mmap_mode="c"))
    start = time.perf_counter()
    found = lloyd(x, x[:K].clone(), STEPS, tolerance=-1)
    return found.labels.numpy(), time.perf_counter() - start


def theirs(path: Path) -> tuple[Any, float]:
    import warnings

    from sklearn.cluster import KMeans

    x = np.load(path)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would have gone on
        found = KMeans(K, init=x[:K], n_init=1, max_iter=STEPS, tol=0, copy_x=False).fit(x)
    return found.labels_, time.perf_counter() - start


SIDES = {"ours, from the file": ours, "scikit-learn, in memory": theirs}


def child(side: str, path: Path, labels: Path) -> None:
    from timing import peak_of_process

    found, seconds = SIDES[side](path)
    peak = peak_of_process()
    np.save(labels, found.astype(np.int8))
    print(seconds, peak)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", help="where the file is written; default: temporary files")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path, labels = Path(folder, "vectors.npy"), {s: Path(folder, s[:4] + ".npy") for s in SIDES}
        write(path, asked.vectors)
        print(f"{asked.vectors:,} vectors of {D}, {path.stat().st_size / 1e9:.2f} GB, {K} clusters")
        for _ in range(asked.rounds):
            for side in SIDES:
                words = [sys.executable, __file__, "child", side, str(path), str(labels[side])]
                out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
                seconds, peak = map(float, out.split())
                times[side].append(seconds)
                print(f"  {side:24} {seconds:6.2f} s, process of {peak:.0f} MB", flush=True)
        same = np.mean(np.load(labels[next(iter(SIDES))]) == np.load(labels[list(SIDES)[1]]))
    from timing import gemm_ms

    print(f"the same label for {same:.4%}; 2048^3 float32 product: {gemm_ms():.0f} ms")
    mine, other = (min(times[side]) for side in SIDES)
    print(f"fastest of {asked.rounds}: {mine:.2f} / {other:.2f} s = {mine / other:.2f} (bar {BAR})")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "child":
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
