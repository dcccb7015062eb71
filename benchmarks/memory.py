"""Peak memory of `zerolabel segment` on ten times as many photos, each run a process of its own.

python benchmarks/memory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import gather, run_command, voc_photos

FEW, MANY, BAR = 38, 380, 150  # images, images, MB


def main() -> None:
    photos = voc_photos()
    if len(photos) < MANY:
        raise SystemExit(f"Needs {MANY} photos of VOC, found {len(photos)}.")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            # Evenly spaced, so that both see photos of every kind.
            chosen = photos[:: len(photos) // count][:count]
            data = gather(chosen, Path(folder, f"photos-{count}"))
            results[count] = run_command("segment", data, "--out", Path(folder, f"run-{count}"))

    from timing import gemm_ms  # after the children: numpy here would raise their peak

    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms")
    print("segment, default settings, with report:")
    for count, (seconds, peak) in results.items():
        print(f"  {count:3d} photos: peak {peak:5.0f} MB, {seconds:6.1f} s")
    growth = results[MANY][1] - results[FEW][1]
    print(f"  growth {growth:+.0f} MB (bar {BAR} MB)")


if __name__ == "__main__":
    main()
