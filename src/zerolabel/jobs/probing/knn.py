"""Score how well images of a class lie together in a backbone's features: the protocol knn."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerolabel import backbones
from zerolabel.backbones import Backbone, cache
from zerolabel.data.classified import Classified, central, open_classified
from zerolabel.errors import DataError, ImageError, UsageError
from zerolabel.evaluation.probes import knn, mean_patch
from zerolabel.evaluation.protocols import PROTOCOLS
from zerolabel.jobs.probing.features import load, open_store, unreadable
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.stages import encode
from zerolabel.store import Progress, Stage, Store, write_json
from zerolabel.types import Sample

CHUNK = 256  # images per cached file
PIXELS = 16 * 224 * 224  # per forward
K = (10, 20, 100, 200)  # of DINO, whose best was 20
TEMPERATURE = 0.07
CLS, MEAN = "cls", "mean_patch"
PROTOCOL = PROTOCOLS["knn"]


def evaluate_knn(
    bank: Sequence[str | Path],
    queries: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    size: tuple[int, int] = (224, 224),
    k: Sequence[int] = K,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Classify images by their nearest neighbours, by the CLS token and by the mean patch token.

    Args:
        bank: labelled `.npz` packs, or folders with one folder per class: the known images.
        queries: one such pack or folder: the images to classify.
        backbone: one that gives tokens; one that learns learns from the bank.
        weights: its weights file, if not in the cache.
        device: where it runs.
        size: (S, S) in pixels of the middle square, see `data.classified.central`, rounded down to
            whole patches.
        k: numbers of neighbours that vote; one beyond the size of the bank is the whole bank.
        out: folder that takes `evaluation-knn.json` and, in `cache`, the features, so that an
            interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).

    Returns:
        The content of the file: protocol, data, backbone, and one entry per feature and k with
        top-1 and top-5, 0..1; top-5 is None for k below 5.

    Raises:
        UsageError: wrong options, or a backbone without tokens.
        DataError: no labelled images, an unreadable one, or classes that do not fit together.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    _check(size, k)
    known = _join([open_classified(path) for path in bank])
    asked = open_classified(queries)
    result = {"protocol": asdict(PROTOCOL)} | _facts(known, asked)
    network = load(backbone, weights=weights, device=device)
    side = min(whole_patches(size, network))
    with open_store(out, progress) as store:
        encode.learn(network, known.samples, size=(side, side), seed=0, store=store)
        x = _features(network, known.samples, side, "bank", store)
        q = _features(network, asked.samples, side, "queries", store)
    number = {name: i for i, name in enumerate(sorted({*known.classes, *asked.classes}))}
    labels, truth = (
        torch.tensor([number[name] for name in part.classes]) for part in (known, asked)
    )
    result |= {"backbone": network.name, "weights": network.digest, "size": [side, side]}
    result |= {"temperature": TEMPERATURE, "scores": []}
    for neighbours in sorted({min(n, len(labels)) for n in k}):
        for feature in x:
            found = knn(
                x[feature], labels, q[feature], truth, k=neighbours, temperature=TEMPERATURE
            )
            entry = {"feature": feature, "k": found.k, "top1": found.top1, "top5": found.top5}
            result["scores"].append(entry)
    if out is not None:
        write_json(Path(out) / f"evaluation-{PROTOCOL.id}.json", result)
    return result


def _check(size: tuple[int, int], k: Sequence[int]) -> None:
    if size[0] != size[1]:
        raise UsageError(f"Protocol knn cuts out squares: give one size, not {size[0]}x{size[1]}.")
    if not k or min(k) < 1:
        raise UsageError(f"k are numbers of neighbours, each at least 1; found {list(k)}.")


def _join(parts: Sequence[Classified]) -> Classified:
    """Put several banks together."""
    if not parts:
        raise UsageError("Expected at least one bank of images with known class, found none.")
    return Classified(
        ", ".join(part.name for part in parts),
        tuple(sample for part in parts for sample in part.samples),
        tuple(name for part in parts for name in part.classes),
    )


def _facts(bank: Classified, queries: Classified) -> dict[str, Any]:
    """Say what is compared with what, and complain if that cannot be meant."""
    names, asked = set(bank.classes), Counter(queries.classes)
    unknown = sum(count for name, count in asked.items() if name not in names)
    if len(names) < 2 or unknown == len(queries.classes):
        raise DataError(
            f"The bank {bank.name} has {_few(names)}, the queries {queries.name} {_few(asked)}. "
            "Expected 2 classes or more in the bank, and queries of the same classes; check that "
            "both are divided and called alike."
        )
    known = {sample.digest() for sample in bank.samples}
    contents = [sample.digest() for sample in queries.samples]
    shared = sum(content in known for content in contents)
    if shared == len(contents):
        raise DataError(
            f"Every image of the queries {queries.name} is also in the bank, where it would be its "
            "own nearest neighbour. Give queries that the bank does not hold."
        )
    return {
        "bank": bank.name,
        "bank_images": len(bank.samples),
        "bank_hash": _hash(known),
        "queries": queries.name,
        "images": len(contents),
        "data_hash": _hash(set(contents)),
        "classes": len(names),
        "unknown": unknown,
        "shared": shared,
        "floor": max(asked.values()) / len(contents),
    }


def _few(names: Sequence[str] | set[str] | Counter[str]) -> str:
    few = ", ".join(sorted(names)[:3])
    if len(names) > 3:
        return f"{len(names)} classes ({few}, ...)"
    return f"the class{'es' if len(names) > 1 else ''} {few}"


def _hash(contents: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()


def _features(
    network: Backbone, samples: Sequence[Sample], side: int, work: str, store: Store
) -> dict[str, Tensor]:
    """Describe every image, or read what was done before: float16 (N, D) by feature."""
    parts: defaultdict[str, list[Tensor]] = defaultdict(list)
    for _, chunk in store.track(work, samples, CHUNK):
        name = cache.key("central", chunk, network.digest, side)
        done = store.stage(name, partial(_describe, network, chunk, side))
        for feature in sorted(done.arrays):
            parts[feature].append(torch.from_numpy(done.arrays[feature]))
    return {feature: torch.cat(found) for feature, found in parts.items()}


def _describe(network: Backbone, samples: Sequence[Sample], side: int) -> Stage:
    """Encode one chunk to CLS tokens, where the backbone has them, and mean patch tokens."""
    batch = max(1, PIXELS // side**2)
    parts: defaultdict[str, list[Tensor]] = defaultdict(list)
    for start in range(0, len(samples), batch):
        images = torch.stack([_read(sample, side) for sample in samples[start : start + batch]])
        found = network.encode(images, want={"tokens", "cls"} & network.gives)
        if found.tokens is None:
            raise UsageError(f"{network.name} gave no tokens.")
        parts[MEAN].append(mean_patch(found.tokens).half().cpu())
        if found.cls is not None:
            parts[CLS].append(found.cls.half().cpu())
    return Stage({feature: torch.cat(some).numpy() for feature, some in parts.items()})


def _read(sample: Sample, side: int) -> Tensor:
    try:
        return central(sample.load(), side)
    except ImageError as error:
        raise unreadable(sample.id, str(error)) from None
