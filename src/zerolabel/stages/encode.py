"""The verb encode: what a backbone learns from a data set, and its features, computed once per run.

Shapes: `B` images, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import Backbone, cache, require
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError
from zerolabel.store import Stage, Store
from zerolabel.types import Features, Sample


def learn(
    backbone: Backbone, samples: Sequence[Sample], *, size: tuple[int, int], seed: int, store: Store
) -> None:
    """Let a backbone that learns from the images at hand do so, once per run.

    Args:
        backbone: changed in place; nothing happens if it learns nothing.
        samples: the whole data set; `backbone.learns` of them, evenly spaced, are read.
        size: (H, W) in pixels at which images will be encoded.
        seed: fixes every draw.
        store: keeps what was learned.

    Raises:
        DataError: none of those images can be read.
    """
    if not backbone.learns:
        return
    count = min(len(samples), backbone.learns)
    chosen = [samples[i * len(samples) // count] for i in range(count)]

    def work() -> Stage:
        batches = []
        for _, part in store.track("learn", chosen, 16):
            images, _, failures = load_batch(part, size)
            batches += [images] if len(images) else []
        if not batches:
            reason = next(iter(failures.items()))
            raise DataError(f"No image could be read, e.g. {reason[0]}: {reason[1]}")
        with store.timed("learn"):
            learned = backbone.learn(batches, seed=seed).state()
        return Stage({name: value.numpy() for name, value in learned.items()})

    done = store.stage(cache.key("backbone", chosen, backbone.digest, size, seed), work)
    backbone.restore({name: torch.from_numpy(value) for name, value in done.arrays.items()})


@dataclass(frozen=True)
class Loaded:
    """A batch of images in memory.

    Attributes:
        samples: the batch.
        images: uint8 (B, 3, H, W), those that could be read.
        kept: their samples.
        failures: id -> reason for the others.
    """

    samples: Sequence[Sample]
    images: Tensor
    kept: list[Sample]
    failures: dict[str, str]


def read(samples: Sequence[Sample], size: tuple[int, int]) -> Loaded:
    """Read a batch and squash it to a size (H, W)."""
    return Loaded(samples, *load_batch(samples, size))


def features(
    backbone: Backbone,
    batch: Sequence[Sample] | Loaded,
    *,
    want: Collection[str],
    size: tuple[int, int],
    store: Store,
) -> tuple[Features, list[Sample], dict[str, str]]:
    """Encode a batch, or read its features if this was done before.

    Args:
        backbone: gives them.
        batch: samples, or their images at `size` where they are in memory anyway.
        want: fields of `Features`.
        size: (H, W) in pixels.
        store: keeps them as float16, half a unit in the third digit.

    Returns:
        The fields asked for, float32, on the CPU, of the B samples that could be read (none at all
        if B is 0), these samples, and id -> reason for the others.

    Raises:
        UsageError: the backbone lacks one.
    """
    require(backbone, *sorted(want))
    samples = batch.samples if isinstance(batch, Loaded) else batch

    def work() -> Stage:
        loaded = batch if isinstance(batch, Loaded) else read(batch, size)
        ids = {sample.id for sample in loaded.kept}
        ok = np.array([sample.id in ids for sample in samples])
        if not loaded.kept:
            return Stage({"ok": ok}, loaded.failures)
        seen = backbone.encode(loaded.images, want=want)
        # In order in memory as from disk: sums over a strided array round otherwise.
        found = {name: getattr(seen, name).half().contiguous().cpu().numpy() for name in want}
        return Stage({**found, "ok": ok}, loaded.failures)

    kind = "-".join(sorted(want))
    done = store.stage(cache.key(kind, samples, backbone.digest, size), work)
    kept = [sample for sample, ok in zip(samples, done.arrays["ok"], strict=True) if ok]
    fields = {name: torch.from_numpy(done.arrays[name]).float() for name in want if kept}
    return Features(**fields), kept, done.info


def tokens(
    backbone: Backbone, samples: Sequence[Sample], *, size: tuple[int, int], store: Store
) -> tuple[Tensor, list[Sample], dict[str, str]]:
    """Encode a batch to patch tokens, see `features`.

    Returns:
        float32 (B, h, w, D), the B samples that could be read, and id -> reason for the others.
    """
    found, kept, failures = features(backbone, samples, want={"tokens"}, size=size, store=store)
    empty = torch.empty(0, 1, 1, backbone.dim)
    return empty if found.tokens is None else found.tokens, kept, failures
