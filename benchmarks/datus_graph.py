"""DatUS2's graph stage on 56 x 56 patches: affinity, Louvain, connected parts; time and memory.

The grid of a ViT/8 at 448 pixels: 3,136 patches of 384 numbers, about half of the pairs are
tied. Each setting is measured in a process of its own, fastest of three turns; memory is
its peak over what it holds when the stage begins. Bars: 120 MB and 0.7 s.

    python benchmarks/datus_graph.py
"""

from __future__ import annotations

import subprocess
import sys

SIDE, MOST_MB, MOST_S = 56, 120, 0.7
SETTINGS = {  # of the graph: weighted edges, resolution, climbs
    "paper": (False, 1.0, 1),
    "paper, two climbs": (False, 1.0, 2),
    "default": (True, 1.5, 2),
}


def child(name: str) -> None:

    import psutil
    import torch
    from louvain import features
    from timing import best_of, gemm_ms, peak_of_process

    from zerolabel.stages.discover import Discover, Encoded, discover

    weighted, resolution, starts = SETTINGS[name]
    options = Discover(weighted=weighted, resolution=resolution, starts=starts)
    keys = torch.from_numpy(features(SIDE, SIDE)).reshape(SIDE, SIDE, -1)
    discover(Encoded(keys[:8, :8]), options)  # what is imported on first use
    before = psutil.Process().memory_info().rss / 1e6
    found = discover(Encoded(keys), options)
    peak = peak_of_process()
    seconds = best_of({"stage": lambda: discover(Encoded(keys), options)}, rounds=3)["stage"]
    print(
        f"  {name:18} {seconds:5.2f} s (bar {MOST_S})  {peak - before:4.0f} MB "
        f"(bar {MOST_MB})  {int(found.groups.max()) + 1} communities, {found.count} regions  "
        f"2048^3 product {gemm_ms():.0f} ms, {torch.get_num_threads()} threads"
    )


def main() -> None:
    if len(sys.argv) > 1:
        child(sys.argv[1])
        return
    print(f"Graph stage, {SIDE * SIDE} patches of 384 numbers:", flush=True)
    for name in SETTINGS:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
