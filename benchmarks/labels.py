"""Turning raw values of masks into ids: one table look-up against `np.vectorize` of a dict.

The second way is that of published code (PiCIE, TransFGU). Run as `python benchmarks/labels.py`;
takes a few seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from timing import best_of, gemm_ms

from zerolabel.data.labels import remap
from zerolabel.data.spaces import space

SIZE = (480, 640)  # COCO
SPACES = ("coco27", "cocostuff171", "cityscapes27", "voc20")
BAR = 20


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"machine: {gemm_ms():.0f} ms for a 2048 x 2048 float32 product")
    print(f"one mask of {SIZE[1]}x{SIZE[0]}, its values checked:")
    for name in SPACES:
        table = space(name)
        known = np.array([raw for raw in table.known if raw >= 0], np.uint8)
        raw = known[rng.integers(0, len(known), SIZE)]
        mapping = {int(value): int(table.lut[value]) for value in known}
        slow = np.vectorize(mapping.__getitem__, otypes=[np.uint8])
        if not np.array_equal(remap(raw, table, path=Path("mask.png")), slow(raw)):
            raise SystemExit("The two ways disagree.")
        seconds = best_of(
            {
                "table": lambda raw=raw, table=table: remap(raw, table, path=Path("mask.png")),
                "np.vectorize(dict)": lambda raw=raw, slow=slow: slow(raw),
            },
            rounds=20,
        )
        ratio = seconds["np.vectorize(dict)"] / seconds["table"]
        times = ", ".join(f"{way} {1e3 * value:.2f} ms" for way, value in seconds.items())
        print(f"  {name:<13} {times}: {ratio:.0f} times (at least {BAR} wanted)")


if __name__ == "__main__":
    main()
