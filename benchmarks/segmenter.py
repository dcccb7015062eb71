"""Speed of Segmenter from tiny to large, and memory of its way from patches to pixels.

First the scores of the two windows of a photo of 512x683 become labels: strip by strip, against all
classes of all pixels at once as published. The two are compared before they are timed; peak memory
is the growth of the resident set of a fresh process over what it held before. Then whole networks:
random weights, patches of 16 pixels, 150 classes, one image at a time that is one window. Each row
has its own GEMM of 2048^3, timed turn by turn with the networks.

    python benchmarks/segmenter.py
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F
from timing import best_of, gemm_ms, peak_of_process
from torch import Tensor

from zerolabel.networks.mask_transformer import LinearConfig, decoder, mask_transformer_config
from zerolabel.networks.vit import random_vit, vit_config
from zerolabel.ops.windows import Windows, merge, merged_argmax, sliding

PATCH, WINDOW, CLASSES = 16, 512, 150
PHOTO = (512, 683)
SIZES = (224, 512)  # pixels a side
ROUNDS = {"vit-tiny": 5, "vit-small": 3, "vit-base": 2, "vit-large": 1}
BAR = 200  # MB


def strips(scores: Tensor, windows: Windows) -> Tensor:
    return merged_argmax(scores, windows)[0]


def whole(scores: Tensor, windows: Windows) -> Tensor:
    """All windows at full size, their mean at full size, and the best class."""
    return merge(F.interpolate(scores, size=windows.window, mode="bilinear"), windows).argmax(0)


CONTESTANTS = {"strips": strips, "whole": whole}


def setting(size: tuple[int, int]) -> tuple[Tensor, Windows]:
    """Random scores (n, K, h', w') of all windows of an image."""
    windows = sliding(size, window=WINDOW, stride=WINDOW)
    h, w = (side // PATCH for side in windows.window)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(windows.boxes()), CLASSES, h, w, generator=generator), windows


def report_peak(name: str) -> None:
    """Print by how many MB the resident set grows over what it held before the photo."""
    CONTESTANTS[name](*setting((PATCH, PATCH)))  # loads the kernels
    scores, windows = setting(PHOTO)
    before = peak_of_process()
    CONTESTANTS[name](scores, windows)
    print(peak_of_process() - before)


def peak_mb(name: str) -> float:
    command = [sys.executable, __file__, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def times(arch: str, side: int, upsampling: float) -> list[str]:
    """Time an encoder and both decoders on one image: the rows of the table."""
    config = vit_config(arch, PATCH, grid=WINDOW // PATCH)
    encoder = random_vit(config, seed=0).eval()
    heads = {
        "linear": LinearConfig(encoder_dim=config.dim, classes=CLASSES),
        "mask": mask_transformer_config("official", encoder_dim=config.dim, classes=CLASSES),
    }
    decoders = {name: decoder(head, seed=0).eval() for name, head in heads.items()}
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    tokens = encoder(x, want={"tokens"}).tokens
    functions = {name: lambda net=net: net(tokens) for name, net in decoders.items()}
    functions["encoder"] = lambda: encoder(x, want={"tokens"})
    factor = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    functions["gemm"] = lambda: factor @ factor
    seconds = best_of(functions, ROUNDS[arch])
    rows = []
    for name, net in decoders.items():
        count = sum(p.numel() for part in (encoder, net) for p in part.parameters()) / 1e6
        parts = (seconds["encoder"], seconds[name], upsampling)
        cells = " ".join(f"{1e3 * part:9.1f}" for part in parts)
        start = f"{side:4d} {arch:9s} {name:7s} {count:6.1f}"
        rows.append(f"{start} {cells} {1 / sum(parts):9.2f} {1e3 * seconds['gemm']:5.0f}")
    return rows


def table() -> None:
    print("  px encoder   decoder  M par   encoder   decoder  upsample  images/s  GEMM   (ms)")
    for side in SIZES:
        scores, windows = setting((side, side))
        upsampling = best_of({"upsample": lambda s=scores, w=windows: strips(s, w)}, rounds=5)
        for arch in ROUNDS:
            print("\n".join(times(arch, side, upsampling["upsample"])), flush=True)


def main() -> None:
    peaks = {name: peak_mb(name) for name in CONTESTANTS}
    scores, windows = setting(PHOTO)
    same = (strips(scores, windows) == whole(scores, windows)).double().mean()
    functions = {n: lambda f=f: f(scores, windows) for n, f in CONTESTANTS.items()}
    seconds = best_of(functions, rounds=5)
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    print(f"{CLASSES} classes on {PHOTO[0]}x{PHOTO[1]}, {same:.4%} of the labels are the same:")
    for name in CONTESTANTS:
        print(f"{name:7s} {1e3 * seconds[name]:7.0f} ms {peaks[name]:7.0f} MB")
    with torch.no_grad():
        table()
    if peaks["strips"] > BAR:
        raise SystemExit(f"Missed: {peaks['strips']:.0f} MB of strips, the bar is {BAR} MB.")


if __name__ == "__main__":
    report_peak(sys.argv[1]) if len(sys.argv) > 1 else main()
