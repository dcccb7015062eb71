"""The verb encode: what a backbone learns from a data set, and its tokens, computed once per run.

Shapes: `B` images, `h w` patch grid, `D` channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zerolabel.backbones import Backbone, cache
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError, UsageError
from zerolabel.store import Stage, Store
from zerolabel.types import Sample


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


def tokens(
    backbone: Backbone, samples: Sequence[Sample], *, size: tuple[int, int], store: Store
) -> tuple[Tensor, list[Sample], dict[str, str]]:
    """Encode a batch to patch tokens, or read them if this was done before.

    Args:
        backbone: gives tokens.
        samples: one batch.
        size: (H, W) in pixels.
        store: keeps them as float16, half a unit in the third digit.

    Returns:
        float32 (B, h, w, D), the B samples that could be read, and id -> reason for the others.
    """

    def work() -> Stage:
        images, kept, failures = load_batch(samples, size)
        ids = {sample.id for sample in kept}
        ok = np.array([sample.id in ids for sample in samples])
        if not kept:
            return Stage({"ok": ok}, failures)
        features = backbone.encode(images, want={"tokens"}).tokens
        if features is None:
            raise UsageError(f"{backbone.name} gave no tokens.")
        # In order in memory as from disk: sums over a strided array round otherwise.
        tokens = features.half().contiguous().cpu().numpy()
        return Stage({"tokens": tokens, "ok": ok}, failures)

    done = store.stage(cache.key("tokens", samples, backbone.digest, size), work)
    kept = [sample for sample, ok in zip(samples, done.arrays["ok"], strict=True) if ok]
    found = done.arrays.get("tokens", np.empty((0, 1, 1, backbone.dim), np.float16))
    return torch.from_numpy(found).float(), kept, done.info
