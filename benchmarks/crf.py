"""The dense CRF on real photos against pydensecrf2: time, and on how many pixels labels agree.

Run as `python benchmarks/crf.py`; needs ZEROLABEL_DATA, and pydensecrf2 (which needs a compiler:
`pip install pydensecrf2`) for the comparison. Takes two minutes. Both work on one thread:
pydensecrf2 has no more, and here the steps are too small to share (ops/threads.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from common import voc_photos
from numpy.typing import NDArray
from PIL import Image
from timing import best_of, gemm_ms
from torch import Tensor

from zerolabel.ops.crf import CRF, crf
from zerolabel.ops.resize import upsample
from zerolabel.stages.refine import refine

LABELS = 21
SIZES = {(500, 375), (375, 500)}
PHOTOS = 4
FIELD = CRF()
LARGE = (4000, 3000)  # 12 megapixels


def evidence(size: tuple[int, int]) -> Tensor:
    """Random log-probabilities (K, H, W) that are smooth over a patch of 16 pixels."""
    grid = (LABELS, -(-size[0] // 16), -(-size[1] // 16))
    scores = 2 * torch.randn(grid, generator=torch.Generator().manual_seed(0))
    return upsample(scores, size).log_softmax(0)


def pydensecrf(log_p: NDArray[np.float32], colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    from pydensecrf.densecrf import DenseCRF2D

    K, H, W = log_p.shape
    field = DenseCRF2D(W, H, K)
    field.setUnaryEnergy(-log_p.reshape(K, -1))
    field.addPairwiseGaussian(sxy=FIELD.near, compat=FIELD.near_weight)
    field.addPairwiseBilateral(
        sxy=FIELD.wide, srgb=FIELD.colour, rgbim=colours, compat=FIELD.wide_weight
    )
    return np.array(field.inference(FIELD.iterations)).reshape(K, H, W)


def measure(path: Path, *, against: bool) -> dict[str, float]:
    colours = np.array(Image.open(path).convert("RGB"))
    image = torch.from_numpy(colours).permute(2, 0, 1).contiguous()
    log_p = evidence(colours.shape[:2])
    contestants: dict[str, Callable[[], object]] = {"here": lambda: crf(log_p, image)}
    same = ""
    if against:
        contestants["pydensecrf2"] = lambda: pydensecrf(log_p.numpy(), colours)
        ours, theirs = crf(log_p, image).argmax(0), pydensecrf(log_p.numpy(), colours).argmax(0)
        same = f"   same labels on {100 * (ours.numpy() == theirs).mean():.3f} % of pixels"
    seconds = best_of(contestants, rounds=5)
    times = "   ".join(f"{name} {value:5.2f} s" for name, value in seconds.items())
    print(f"{path.stem} {colours.shape[1]}x{colours.shape[0]}   {times}{same}", flush=True)
    return seconds


def large(path: Path) -> None:
    """A photo of 12 megapixels, from scores to a label map."""
    image = np.asarray(Image.open(path).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC))
    scores = torch.randn(LABELS, 28, 28, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    refine(scores, image, name="crf")
    print(f"{LARGE[0]}x{LARGE[1]}, refined: {time.perf_counter() - start:.1f} s")


def main() -> None:
    found = [path for path in voc_photos() if Image.open(path).size in SIZES]
    photos = found[:: max(1, len(found) // PHOTOS)][:PHOTOS]
    against = find_spec("pydensecrf") is not None
    print(f"{LABELS} labels, {FIELD.iterations} iterations, fastest of 5 turns")
    print(f"2048^3 float32 product: {gemm_ms():.0f} ms")
    rows = [measure(photo, against=against) for photo in photos]
    if against:
        ratios = [row["here"] / row["pydensecrf2"] for row in rows]
        print(f"{min(ratios):.2f} to {max(ratios):.2f} x the time of pydensecrf2")
    large(photos[0])
    print(f"2048^3 float32 product: {gemm_ms():.0f} ms")


if __name__ == "__main__":
    main()
