"""What keeping responses costs: bytes per image on disk, and time beside the forward.

Real photos of PASCAL VOC, squashed to 320 pixels, the backbone that comes along, and CLS tokens of
27 of the photos as centres, as those of crops are TransFGU's. The same responses as plain float32
and float16 are the other contestants on disk; what is read back is compared with the formula before
anything is measured.

    ZEROLABEL_DATA=... python benchmarks/responses.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from common import voc_photos
from timing import best_of, gemm_ms

from zerolabel.backbones import load
from zerolabel.data.folder import read_image
from zerolabel.ops.gradcam import cls_gradients, responses
from zerolabel.stages import encode
from zerolabel.stages.responses import WANTS, Responding, respond
from zerolabel.store import Store
from zerolabel.types import Sample

SIDE, CENTRES, PHOTOS = 320, 27, 32
SIZE = (SIDE, SIDE)
BAR = 0.6e9 / 10_000  # bytes per image: 0.6 GB for 10,000 images
SHARE = 0.25  # of the forward, at most, to find, pack and write responses


def samples() -> list[Sample]:
    photos = voc_photos()
    chosen = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
    return [Sample(p.name, lambda p=p: read_image(p), lambda p=p: p.name) for p in chosen]


def size_of(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*.safetensors"))


def main() -> None:
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    backbone, options = load("embedded", device="cpu"), Responding()
    loaded = encode.read(samples(), SIZE)
    seen, kept, _ = encode.features(backbone, loaded, want=WANTS, size=SIZE, store=Store())
    assert seen.cls is not None
    assert seen.attention is not None
    assert seen.slopes is not None
    centres = seen.cls[:CENTRES]
    slopes = torch.einsum("bkd,bhwd->bkhw", cls_gradients(seen.cls, centres), seen.slopes)
    exact = responses(seen.attention.mean(1), slopes)
    with tempfile.TemporaryDirectory() as folder:
        found = respond(backbone, loaded, centres, options, size=SIZE, store=Store(folder)).maps
        size = size_of(Path(folder)) / len(kept)
    same = (found.argmax(1) == exact.argmax(1)).float().mean()
    print(f"{len(kept)} photos, {CENTRES} categories, grid {'x'.join(map(str, found.shape[2:]))}")
    print(f"differs by {(found - exact).abs().max():.0e}; {same:.2%} of the patches decide alike")
    plain = exact[0].numel()
    print(f"bytes per image: {size:,.0f}; float16 {2 * plain:,}, float32 {4 * plain:,}")
    print(f"10,000 images: {size * 1e4 / 1e9:.2f} GB (bar {BAR * 1e4 / 1e9:.1f} GB)")

    few = encode.Loaded(loaded.samples[:4], loaded.images[:4], kept[:4], {})

    def forward() -> None:
        backbone.encode(few.images, want=WANTS)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            respond(backbone, few, centres, options, size=SIZE, store=Store(folder))

    seconds = best_of({"forward": forward, "whole": whole}, rounds=5)
    ratio = seconds["whole"] / seconds["forward"] - 1
    for name, value in seconds.items():
        print(f"{name:8s} {1e3 * value / 4:7.1f} ms per image")
    print(f"responses add {ratio:.0%} to the forward (bar {SHARE:.0%})")
    missed = ["bytes"] * (size > BAR) + ["time"] * (ratio > SHARE)
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
