"""Train STEGO's two probes on frozen features: the protocols stego-linear and stego-cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone, cache
from zerolabel.data.benchmarks import Dataset
from zerolabel.data.geometry import GEOMETRIES, through
from zerolabel.errors import UsageError
from zerolabel.evaluation.confusion import Confusion
from zerolabel.evaluation.probes import ProbeScore, judge
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.evaluation.published_probes import StegoProbe, StegoProbes
from zerolabel.jobs.probing import features
from zerolabel.jobs.probing.linear import encode_split
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.methods.configs import configure
from zerolabel.stages import encode
from zerolabel.store import Progress, Stage, Store
from zerolabel.types import Sample

LINEAR, CLUSTER = "stego-linear", "stego-cluster"
PRESETS = {"published": StegoProbes()}
ROUND = 100  # steps that are kept together


def evaluate_stego_linear(data: str | Path, **options: Any) -> dict[str, Any]:
    """Score STEGO's linear probe; see `evaluate_stego`."""
    return evaluate_stego(data, protocol=LINEAR, **options)


def evaluate_stego_cluster(data: str | Path, **options: Any) -> dict[str, Any]:
    """Score STEGO's cluster probe; see `evaluate_stego`."""
    return evaluate_stego(data, protocol=CLUSTER, **options)


def evaluate_stego(
    data: str | Path,
    *,
    protocol: str,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a linear layer and prototypes side by side on one split, and score one of them.

    With `out`, the other protocol on the same data trains nothing again.

    Args:
        data: root of a labelled data set that has the split "train".
        protocol: "stego-linear" or "stego-cluster".
        backbone: one that gives tokens; one that learns learns from the training images.
        weights: its weights file, if not in the cache.
        device: where it runs; the probes are trained on the CPU.
        split: what is scored; None for "val".
        space: a label space of the data set; None for its default.
        seeds: how many pairs of probes are trained, with the seeds 0, 1, ...
        out: folder that takes `evaluation-<protocol>.json` and, in `cache`, tokens and probes, so
            that an interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).
        settings: fields of `StegoProbes` to change.

    Returns:
        The content of the file: protocol, data, backbone, settings, and scores 0..1 with their mean
        and standard deviation over seeds.

    Raises:
        UsageError: wrong options, or a backbone without tokens.
        DataError: no labelled data set with both splits, or an unreadable image.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    features.check_seeds(seeds)
    rules = PROTOCOLS[protocol]
    config = configure(PRESETS, "published", settings)
    if min(config.steps, config.batch) < 1:
        raise UsageError("steps and batch must be 1 or more.")
    train, scored = (
        _middle(part, side)
        for part, side in zip(
            features.open_splits(Path(data), split, space=space),
            (config.train_size, config.size),
            strict=True,
        )
    )
    network = features.load(backbone, weights=weights, device=device)
    sizes = [whole_patches((s, s), network) for s in (config.train_size, config.size)]
    with features.open_store(out, progress) as store:
        encode.learn(network, train.samples, size=sizes[0], seed=0, store=store)
        probes = _train(config, network, train, sizes[0], seeds, store)
        totals = [Confusion(len(train.classes), len(train.classes)) for _ in probes]
        for sample, tokens in _scored(config, network, scored, sizes[1], store):
            label = features.read_label(sample)
            for probe, total in zip(probes, totals, strict=True):
                predict = probe.predict if protocol == LINEAR else probe.cluster
                total.add(label, predict(tokens, label.shape).numpy())
    found: list[ProbeScore] = [
        judge(
            total.counts,
            absent=rules.absent,
            matching="identity" if protocol == LINEAR else rules.matching,
        )
        for total in totals
    ]
    others = {"settings": asdict(config)}
    return features.report(
        train, scored, rules, network, size=sizes[1], found=found, out=out, **others
    )


def _middle(dataset: Dataset, side: int) -> Dataset:
    """Look at a data set as STEGO does: the middle square, nearest pixels."""
    geometry = replace(GEOMETRIES["stego-320"], target=(side, side))
    return replace(dataset, samples=through(dataset.samples, geometry))


def _train(
    config: StegoProbes,
    network: Backbone,
    train: Dataset,
    size: tuple[int, int],
    seeds: int,
    store: Store,
) -> list[StegoProbe]:
    """Train one pair of probes per seed, round by round."""
    tokens = encode_split(network, train, size=size, store=store)
    labels = torch.from_numpy(np.stack([features.read_label(s) for s in train.samples]))
    facts = (network.digest, config, train.space, features.label_hash(train.samples))
    name = cache.key("stego-probes", train.samples, *facts)
    found = []
    for seed in range(seeds):
        probe = StegoProbe(config, network.dim, len(train.classes), seed=seed)
        for number, steps in store.track(f"steps of seed {seed}", range(config.steps), ROUND):
            work = partial(_round, probe, tokens, labels, steps, batch=config.batch, seed=seed)
            done = store.stage(f"{name}/{seed}-{number}", work)
            probe.restore({key: torch.from_numpy(value) for key, value in done.arrays.items()})
        found.append(probe)
    return found


def _round(
    probe: StegoProbe,
    tokens: Tensor,
    labels: Tensor,
    steps: Sequence[int],
    *,
    batch: int,
    seed: int,
) -> Stage:
    """Take some optimiser steps."""
    linear = cluster = 0.0
    for step in steps:
        places = range(step * batch, (step + 1) * batch)
        rows = [_order(seed, n // len(tokens), len(tokens))[n % len(tokens)] for n in places]
        linear, cluster = probe.step(tokens[rows], labels[rows].long())
    return Stage(
        {name: value.numpy() for name, value in probe.state().items()},
        {"last_linear_loss": linear, "last_cluster_loss": cluster},
    )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    """The order in which an epoch goes through the images."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    found: list[int] = torch.randperm(count, generator=generator).tolist()
    return found


def _scored(
    config: StegoProbes, network: Backbone, scored: Dataset, size: tuple[int, int], store: Store
) -> Iterator[tuple[Sample, Tensor]]:
    """Yield the images to score, each with its tokens, float32 (h, w, D)."""
    kinds = {"": scored.samples}
    if config.mirrored:
        kinds[" mirrored"] = tuple(_mirror(sample) for sample in scored.samples)
    streams = [
        features.batches(
            network, samples, size=size, work=f"tokens of {scored.split}{kind}", store=store
        )
        for kind, samples in kinds.items()
    ]
    for parts in zip(*streams, strict=True):
        tokens = parts[0][1]
        if config.mirrored:
            tokens = (tokens + parts[1][1].flip(2)) / 2  # (B, h, w, D), columns back in order
        yield from zip(parts[0][0], tokens, strict=True)


def _mirror(sample: Sample) -> Sample:
    """Mirror an image left to right; its label stays."""
    return replace(
        sample,
        load=lambda: np.ascontiguousarray(sample.load()[:, ::-1]),
        digest=lambda: f"{sample.digest()}-mirrored",
    )
