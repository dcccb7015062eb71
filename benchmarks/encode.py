"""The embedded backbone against a ViT-S on the same patch grid: the stage encode, and end to end.

Both have patches of 8 pixels. Photos are decoded once; the stage is what `stages/encode.tokens`
does with a batch, decoding excluded, so the ratio is that of the networks. End to end is
`zerolabel segment` on photos in fresh processes, decoding, clustering, masks and report included.

    python benchmarks/encode.py [--photos 20]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import gather, run_command, voc_photos
from timing import best_of, gemm_ms

from zerolabel.backbones import load
from zerolabel.data.folder import find_images
from zerolabel.data.transforms import load_batch

NAMES = ("embedded", "random-vits8")
SIZE, BATCH, ROUNDS = 224, 16, 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=20)
    count = parser.parse_args().photos
    with TemporaryDirectory() as folder:
        photos = gather(voc_photos()[:count], Path(folder, "photos"))
        ends = {}
        for method in ("kmeans", "datus"):
            for name in NAMES if method == "kmeans" else NAMES[:1]:
                out = Path(folder, f"{method}-{name}")
                ends[method, name] = run_command(
                    "segment", photos, "--out", out, "--method", method, "--backbone", name
                )
        images, _, _ = load_batch(find_images(photos)[:BATCH], (SIZE, SIZE))
    backbones = {name: load(name, device="cpu") for name in NAMES}
    with torch.no_grad():
        seconds = best_of(
            {n: lambda b=b: b.encode(images, want={"tokens"}) for n, b in backbones.items()}, ROUNDS
        )
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"encode {name:13s} {len(images) / value:7.1f} images/s at {SIZE} pixels")
    print(f"ratio                {seconds[NAMES[1]] / seconds[NAMES[0]]:7.2f} x")
    for (method, name), (wall, peak) in ends.items():
        print(f"segment {count} photos, {method}, {name}: {wall:.1f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
