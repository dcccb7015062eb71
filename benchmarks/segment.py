"""`zerolabel segment` as a user runs it: 20 photos of 500x375, default settings, with report.

python benchmarks/segment.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import gather, run_command, voc_photos
from PIL import Image

COUNT, SIZE, BAR = 20, (500, 375), 60  # images, (W, H), seconds


def main() -> None:
    photos = [photo for photo in voc_photos() if Image.open(photo).size == SIZE][:COUNT]
    with tempfile.TemporaryDirectory() as folder:
        data = gather(photos, Path(folder, "photos"))
        seconds, peak = run_command("segment", data, "--out", Path(folder, "run"))

    from timing import gemm_ms  # after the child: numpy here would raise the child's peak

    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms")
    print(f"segment, {len(photos)} photos of {SIZE[0]}x{SIZE[1]}, default settings, with report:")
    print(f"  {seconds:.1f} s (bar {BAR} s), peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
