"""Graph and communities of one image: this project against networkx, turn by turn in one process.

    python benchmarks/louvain.py            # 14 x 14 and 28 x 28 patches, about a minute
    python benchmarks/louvain.py --large    # also 37 x 28 and 56 x 56, without networkx

Every figure is the fastest of five turns, except networkx (two) because it takes seconds. The time
of a 2048^3 float32 matrix product stands beside them: it tells how busy the machine was.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from timing import best_of, gemm_ms

from zerolabel.ops.affinity import affinity
from zerolabel.ops.communities import louvain, modularity

Floats = NDArray[np.float32]
Ints = NDArray[np.integer[Any]]


def features(height: int, width: int) -> Floats:
    """Patch features like a ViT's, (h*w, 384): 12 smooth directions and noise."""
    rng = np.random.default_rng(0)
    fields = gaussian_filter(rng.standard_normal((12, height, width)), (0, height / 9, width / 9))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    mixed: NDArray[np.float64] = fields.reshape(12, -1).T @ rng.standard_normal((12, 384))
    return (mixed + 1.7 * rng.standard_normal(mixed.shape)).astype(np.float32)


def networkx_labels(graph: Floats) -> Ints:
    network = nx.from_numpy_array(graph)
    labels = np.zeros(len(graph), np.int64)
    for label, nodes in enumerate(nx.community.louvain_communities(network, seed=0)):
        labels[list(nodes)] = label
    return labels


def measure(height: int, width: int, density: float, *, against: bool) -> None:
    tokens = features(height, width)
    threshold = float(np.quantile(tokens @ tokens.T, 1 - density))
    graph = affinity(tokens, threshold=threshold)
    finders: dict[str, Callable[[], Ints]] = {
        "one start": lambda: louvain(graph, starts=1),
        "two starts": lambda: louvain(graph, starts=2),
    }
    seconds = best_of({"graph": lambda: affinity(tokens, threshold=threshold), **finders})
    if against:  # ours again in the same turns as networkx, so that the ratios are fair
        finders["networkx"] = lambda: networkx_labels(graph)
        turns = best_of(finders, rounds=2)
        seconds |= {name: min(time, seconds.get(name, time)) for name, time in turns.items()}
    print(f"\n{height} x {width} patches (N = {len(graph)}), {density:.0%} of the pairs connected")
    print(f"  {'graph':10} {1e3 * seconds['graph']:8.1f} ms")
    for name, find in finders.items():
        compared = against and name != "networkx"
        ratio = f"   {turns['networkx'] / turns[name]:.0f} x" if compared else ""
        quality = modularity(graph, find())
        print(f"  {name:10} {1e3 * seconds[name]:8.1f} ms   Q {quality:.4f}{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also N = 1036 and N = 3136")
    large = parser.parse_args().large
    print("Fastest of five turns, networkx of two; n x: networkx takes n times as long.")
    print(f"2048^3 float32 product: {gemm_ms():.0f} ms")
    grids = [(14, 14), (28, 28)] + [(37, 28), (56, 56)] * large
    for height, width in grids:
        for density in (0.5, 0.1):
            measure(height, width, density, against=height * width <= 784)
    print(f"\n2048^3 float32 product: {gemm_ms():.0f} ms")


if __name__ == "__main__":
    main()
