"""The attention viewer's map at 480x480, patch 8, against softmaxed attention in every block.

The second contestant is what the published viewer does: an N x N matrix per head in all blocks, of
which one row is used. ViT-S/8 with random weights; the two maps are compared before they are timed.
Peak memory is the growth of the resident set of a fresh process over what it held before its first
image. Then the whole command on clips of few and of many frames, for memory that does not grow.

Run as `python benchmarks/attention.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from common import run_command
from vits import explicit, peak_mb, report_peak, setting

if TYPE_CHECKING:
    from torch import Tensor

    from zerolabel.networks.vit import ViT

BAR = 0.6  # of the time and of the memory
SAME = 1e-5
FEW, MANY, CLIP_BAR = 210, 840, 30  # frames, frames, MB; few already fill the sample of pca


def viewer(net: ViT, x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, heads, h, w) as the command computes it."""
    found = net(x, want={"attention"}).attention
    assert found is not None
    return found


def everything(net: ViT, x: Tensor) -> Tensor:
    """Likewise, with every attention matrix in full."""
    return explicit(net, x)[1]


CONTESTANTS = {"everything": everything, "viewer": viewer}


def write_clip(path: Path, frames: int) -> None:
    """Write a moving square in a process of its own: on Linux children inherit a peak."""
    import numpy as np

    from zerolabel.outputs.video import open_video

    with open_video(path, size=(240, 320), fps=Fraction(25)) as put:
        for i in range(frames):
            image = np.full((240, 320, 3), 60, np.uint8)
            image[80:160, i % 240 : i % 240 + 80] = (220, 180, 40)
            put(image)


def clip_peaks() -> dict[int, tuple[float, float]]:
    """Seconds and peak MB of the command on a short and on a long clip."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            path = Path(folder, f"clip-{count}.gif")
            subprocess.run([sys.executable, __file__, "clip", path, str(count)], check=True)
            out = Path(folder, f"out-{count}")
            asked = ("--backbone", "random-vitt16", "--size", "128", "--show", "overlay,pca")
            found[count] = run_command("attention", path, "--out", out, *asked)
    return found


def main() -> None:
    peaks = {name: peak_mb(__file__, name) for name in CONTESTANTS}
    clips = clip_peaks()

    from timing import best_of, gemm_ms

    net, x = setting()
    difference = (everything(net, x) - viewer(net, x)).abs().max().item()
    seconds = best_of({n: lambda f=f: f(net, x) for n, f in CONTESTANTS.items()}, rounds=3)
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms")
    print(f"largest difference of the maps: {difference:.1e} (bar {SAME:.0e})")
    for name in CONTESTANTS:
        print(f"{name:12s} {seconds[name]:6.2f} s  {peaks[name]:6.0f} MB")
    time, memory = (value["viewer"] / value["everything"] for value in (seconds, peaks))
    print(f"viewer / everything: time {time:.0%}, memory {memory:.0%} (bar {BAR:.0%})")
    for count, (wall, peak) in clips.items():
        print(f"clip of {count:3d} frames: peak {peak:5.0f} MB, {wall:5.1f} s")
    growth = clips[MANY][1] - clips[FEW][1]
    print(f"growth {growth:+.0f} MB (bar {CLIP_BAR} MB)")
    met = {"map": difference <= SAME, "time": time <= BAR, "memory": memory <= BAR}
    met["growth"] = growth <= CLIP_BAR
    missed = [name for name, good in met.items() if not good]
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["clip"]:
        write_clip(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:]:
        report_peak(CONTESTANTS[sys.argv[1]])
    else:
        main()
