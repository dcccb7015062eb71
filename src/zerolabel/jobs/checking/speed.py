"""Checks of how fast the machine is, and whether what it computes is right."""

from __future__ import annotations

import time
from collections.abc import Iterator

from zerolabel.jobs.checking.check import Check

GEMM = 2048  # side of the square factors
PATCHES = 500  # that the self-check's dictionary is learned from; the default's 20,000 take seconds
SOUND = 0.8  # pixel accuracy that the self-check must reach; a working machine has 0.99


def product() -> Iterator[Check]:
    """Time a product of two matrices, by which machines can be compared."""
    import torch

    x = torch.ones(GEMM, GEMM)
    seconds = []
    for _ in range(4):  # the first one starts the threads
        began = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - began)
    best = min(seconds)
    rate = 2 * GEMM**3 / best / 1e9
    found = f"{1e3 * best:.0f} ms for {GEMM}^3 in float32 on the CPU, {rate:.0f} GFLOP/s"
    yield Check("speed", "product", "ok", found)


def self_check() -> Iterator[Check]:
    """Segment a tiny planted world in memory, and compare with what was planted."""
    from zerolabel.backbones import pick_device
    from zerolabel.backbones.filterbank import Config, FilterBank
    from zerolabel.data.synthetic import world
    from zerolabel.evaluation.confusion import Confusion
    from zerolabel.evaluation.protocols import PROTOCOLS, score
    from zerolabel.jobs.run.model import Model, build
    from zerolabel.store import Store

    began = time.perf_counter()
    samples = world(3, images=4, per_image=3)
    backbone = FilterBank(Config(patches=PATCHES), device=str(pick_device("auto")))
    method = build("datus", backbone, settings={"k": 3})
    method.fit(samples, store=Store())
    model, confusion = Model(method), Confusion(3, 3)
    for sample in samples:
        if sample.load_label is not None:
            confusion.add(sample.load_label(), model.predict(sample.load()).label_map)
    accuracy = score(confusion.counts, PROTOCOLS["full"]).pixel_accuracy
    seconds = time.perf_counter() - began
    found = f"4 planted images, 3 categories: {accuracy:.0%} of pixels right, {seconds:.1f} s"
    state = "ok" if accuracy >= SOUND else "problem"
    advice = "" if state == "ok" else "try --device cpu; if that helps, report the device as a bug"
    yield Check("speed", "self-check", state, found, advice, needed=True)
