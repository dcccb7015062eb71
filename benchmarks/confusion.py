"""Counting a confusion matrix: one streamed pass against one pass per (class, cluster) pair.

The second way is that of published evaluation scripts (MaskContrast, DatUS2). Run as
`python benchmarks/confusion.py`; takes half a minute, most of it the second way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from timing import best_of, gemm_ms

from zerolabel.evaluation.confusion import Confusion
from zerolabel.ops.matching import hungarian

CLASSES = CLUSTERS = 21
PIXELS = 20_000_000
IMAGE = (375, 500)  # PASCAL VOC


def stream(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], images: int) -> Confusion:
    confusion = Confusion(CLASSES, CLUSTERS)
    for pair in zip(np.array_split(truth, images), np.array_split(prediction, images), strict=True):
        confusion.add(*pair)
    return confusion


def pass_by_pair(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts = np.zeros((CLASSES, CLUSTERS), np.int64)
    for c in range(CLASSES):
        for k in range(CLUSTERS):
            counts[c, k] = ((truth == c) & (prediction == k)).sum()
    return counts


def main() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, PIXELS, dtype=np.uint8)
    truth[rng.random(PIXELS, dtype=np.float32) < 0.05] = 255
    prediction = rng.integers(0, CLUSTERS, PIXELS, dtype=np.uint8)
    images = PIXELS // (IMAGE[0] * IMAGE[1])

    same = stream(truth, prediction, images).counts[:, :CLUSTERS]
    if not np.array_equal(same, pass_by_pair(truth, prediction)):
        raise SystemExit("The two ways disagree.")
    seconds = best_of(
        {
            "streamed": lambda: stream(truth, prediction, images),
            "pass by pair": lambda: pass_by_pair(truth, prediction),
        },
        rounds=2,
    )
    ratio = seconds["pass by pair"] / seconds["streamed"]
    print(f"machine: {gemm_ms():.0f} ms for a 2048 x 2048 float32 product")
    print(f"{PIXELS / 1e6:.0f} M pixels, {CLASSES} classes, {CLUSTERS} clusters:")
    for name, value in seconds.items():
        print(f"  {name:<13}{value:8.2f} s")
    print(f"  ratio {ratio:.0f}")

    pixels = IMAGE[0] * IMAGE[1]
    pair = truth[:pixels].reshape(IMAGE), prediction[:pixels].reshape(IMAGE)
    counts = rng.integers(0, 1000, (171, 171))
    single = best_of(
        {
            f"one {IMAGE[1]}x{IMAGE[0]} image": lambda: Confusion(CLASSES, CLUSTERS).add(*pair),
            "Hungarian 171x171": lambda: hungarian(counts),
        },
        rounds=20,
    )
    for name, value in single.items():
        print(f"{name}: {1e3 * value:.2f} ms")


if __name__ == "__main__":
    main()
