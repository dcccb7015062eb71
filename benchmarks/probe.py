"""The cached linear probe on the 160 training photos of PASCAL VOC: encoding, then layers.

The layer is compared with the same training as torch.nn writes it, by processor time, since wall
times of a busy machine say little.

    python benchmarks/probe.py
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import data_root
from timing import gemm_ms
from torch import Tensor, nn

from zerolabel.data.labels import fit
from zerolabel.evaluation.probes import BATCH, SIDE, linear_probe
from zerolabel.jobs.probing import features
from zerolabel.jobs.probing.linear import encode_split, evaluate_linear
from zerolabel.stages import encode
from zerolabel.store import Store
from zerolabel.types import LabelMap

BAR = 60  # seconds for encoding the training photos and training one layer, on two cores
SIZE, EPOCHS = (224, 224), 30


def main() -> None:
    root = data_root("voc")
    train, _ = features.open_splits(root, None)
    labels = [fit(features.read_label(sample), (SIDE, SIDE)) for sample in train.samples]
    classes = len(train.classes)
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms, {torch.get_num_threads()} threads")
    for name in ("filterbank", "embedded"):
        work = Stopwatch()
        with TemporaryDirectory() as out:
            evaluate_linear(root, backbone=name, size=SIZE, seeds=1, out=out, progress=work)
            parts = ", ".join(f"{key} {value:.1f} s" for key, value in work.seconds.items())
            encoding = work.seconds.get("learn", 0.0) + work.seconds["tokens of train"]
            total = encoding + work.seconds["probe"]
            print(f"{name}: {parts}; encode and train {total:.1f} s (bar {BAR} s)")
            network = features.load(name, weights=None, device="cpu")
            store = Store(out)  # has all of it
            encode.learn(network, train.samples, size=SIZE, seed=0, store=store)
            tokens = encode_split(network, train, size=SIZE, store=store)
        start = time.process_time()
        linear_probe(tokens, labels, tokens[:1], labels[:1], classes=classes, seed=0)
        middle = time.process_time()
        convolution(tokens.float(), labels, classes)
        ours, theirs = middle - start, time.process_time() - middle
        print(f"  one layer: {ours:.1f} s of processor time, torch.nn {theirs:.1f} s")
    print(f"2048^3 float32 GEMM: {gemm_ms():.0f} ms")


class Stopwatch:
    """Progress that takes the time of every piece of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}

    def __call__(self, work: str, done: int, total: int) -> None:
        """Note when a piece of work began, and how long it has taken so far."""
        began = self._began.setdefault(work, time.perf_counter())
        self.seconds[work] = time.perf_counter() - began


def convolution(x: Tensor, labels: Sequence[LabelMap], classes: int) -> None:
    """Standardise, convolve, upsample, cross-entropy, AdamW: as one would write it down."""
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))
    x = ((x - mean) / deviation).permute(0, 3, 1, 2)
    goal = torch.from_numpy(np.stack(labels)).long()
    model = nn.Sequential(
        nn.Conv2d(x.shape[1], classes, 1), nn.Upsample((SIDE, SIDE), mode="bilinear")
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = nn.CrossEntropyLoss(ignore_index=255)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            optimiser.zero_grad()
            loss(model(x[rows]), goal[rows]).backward()
            optimiser.step()


if __name__ == "__main__":
    main()
