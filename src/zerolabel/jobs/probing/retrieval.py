"""Label the salient part of an image by one vector: MaskContrast's retrieval and k-means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zerolabel import backbones
from zerolabel.data.benchmarks import Dataset
from zerolabel.errors import DataError
from zerolabel.evaluation.probes import judge
from zerolabel.evaluation.protocols import BACKGROUND, PROTOCOLS
from zerolabel.evaluation.retrieval import SEVEN, PooledKmeans, cluster, retrieve
from zerolabel.jobs.probing import features
from zerolabel.jobs.probing.salient import Looking
from zerolabel.jobs.run.settings import whole_patches
from zerolabel.jobs.scoring.labelled import facts, open_labelled
from zerolabel.methods.configs import configure
from zerolabel.ops.matching import Counts
from zerolabel.stages import encode
from zerolabel.store import Progress

RETRIEVAL, KMEANS = PROTOCOLS["retrieval"], PROTOCOLS["maskcontrast-kmeans"]
PRESETS = {"published": PooledKmeans()}


def evaluate_retrieval(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    size: tuple[int, int] = (512, 512),
    saliency: str | Path | None = None,
    mass: float = 0.6,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label the salient part of every image as that of the nearest training image.

    Args:
        data: root of a labelled data set whose class 0 is background and that has a split "train".
        backbone: one that gives tokens, and attention where there are no saliency masks; one that
            learns learns from the training images.
        weights: its weights file, if not in the cache.
        device: where it runs.
        split: what is scored; None for "val".
        space: a label space of the data set; None for its default.
        size: (H, W) in pixels to which images are squashed, rounded down to whole patches.
        saliency: folder of PNGs with the names of the images, 0 and 1, or 0..255, salient above
            127; None takes the backbone's attention.
        mass: share of the attention that is salient, 0..1.
        out: folder that takes `evaluation-retrieval.json` and, in `cache`, one vector per image,
            so that an interrupted call goes on; None keeps nothing.
        progress: called with (work, items done, items in all).

    Returns:
        The content of the file: protocol, data, backbone, scores 0..1 over all classes, and in
        `seven` those over the seven classes of the paper, None where the data set lacks one.

    Raises:
        UsageError: wrong options, or a backbone without tokens or attention.
        DataError: no labelled data set with both splits and a background, an unreadable image, or
            saliency masks that do not fit.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    train, scored = features.open_splits(Path(data), split, space=space)
    _check(scored, mass)
    network = features.load(backbone, weights=weights, device=device)
    looking = Looking(network, whole_patches(size, network, default=512), saliency, mass)
    with features.open_store(out, progress) as store:
        encode.learn(network, train.samples, size=looking.size, seed=0, store=store)
        bank, asked = (looking.pooled(part, store) for part in (train, scored))
    counts = retrieve(bank, asked)
    result = features.record(train, scored, RETRIEVAL, network, looking.size)
    result |= looking.facts() | {"bank_images": int(bank.inside[:, 1:].any(axis=1).sum())}
    result |= _scores(counts, scored.classes) | {"seven": None, "counts": counts.tolist()}
    if set(SEVEN) <= set(scored.classes):
        among = [scored.classes.index(name) for name in SEVEN]
        result["seven"] = _seven(retrieve(bank, asked, among=among), among, scored.classes)
    return features.save(result, out, dataset=scored, protocol=RETRIEVAL)


def evaluate_pooled_kmeans(
    data: str | Path,
    *,
    backbone: str = backbones.AUTO,
    weights: str | Path | None = None,
    device: str = "auto",
    split: str | None = None,
    space: str | None = None,
    size: tuple[int, int] = (512, 512),
    saliency: str | Path | None = None,
    mass: float = 0.6,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Cluster the salient parts of the images that are scored; what is not salient is background.

    Args:
        data: root of a labelled data set whose class 0 is background.
        backbone: as for `evaluate_retrieval`; one that learns learns from the images themselves.
        weights: its weights file, if not in the cache.
        device: where it runs.
        split: what is clustered and scored; None for "val" where there is one.
        space: a label space of the data set; None for its default.
        size: as for `evaluate_retrieval`.
        saliency: likewise.
        mass: likewise.
        out: folder that takes `evaluation-maskcontrast-kmeans.json` and the vectors.
        progress: called with (work, items done, items in all).
        settings: fields of `PooledKmeans` to change.

    Returns:
        The content of the file: protocol, data, backbone, settings, and scores 0..1 with their mean
        and standard deviation over seeds.

    Raises:
        UsageError: wrong options, or a backbone without tokens or attention.
        DataError: no labelled data set with a background, an unreadable image, too few images, or
            saliency masks that do not fit.
        WeightsError: the weights are missing or wrong.
        StoreError: the folder is in use or cannot be written.
    """
    config = configure(PRESETS, "published", settings)
    scored = open_labelled(Path(data), split, space=space)
    _check(scored, mass)
    network = features.load(backbone, weights=weights, device=device)
    looking = Looking(network, whole_patches(size, network, default=512), saliency, mass)
    with features.open_store(out, progress) as store:
        encode.learn(network, scored.samples, size=looking.size, seed=0, store=store)
        asked = looking.pooled(scored, store)
    found = [
        judge(cluster(asked, config, seed=seed), absent=KMEANS.absent, matching=KMEANS.matching)
        for seed in range(config.seed, config.seed + config.seeds)
    ]
    result = facts(scored, KMEANS, [sample.id for sample in scored.samples])
    result |= {"backbone": network.name, "weights": network.digest, "size": list(looking.size)}
    result |= looking.facts() | {"settings": asdict(config)}
    result |= {"seeds": list(range(config.seed, config.seed + config.seeds))}
    result |= features.numbers(found, scored.classes)
    return features.save(result, out, dataset=scored, protocol=KMEANS)


def _check(dataset: Dataset, mass: float) -> None:
    if dataset.classes[0] != BACKGROUND:
        raise DataError(
            "Only what is salient gets a class here: expected a data set whose class 0 is "
            f"{BACKGROUND}, found {dataset.classes[0]!r} in {dataset.name}. Use dense-knn."
        )
    features.check_mass(mass)


def _scores(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """Turn the counts over all classes into JSON."""
    found = judge(counts, absent=RETRIEVAL.absent)
    return {
        "miou": found.miou,
        "pixel_accuracy": found.pixel_accuracy,
        "floor": found.floor,
        "classes": found.classes,
        "per_class": [
            {"id": i, "name": name, "iou": float(found.iou[i]), "pixels": int(counts[i].sum())}
            for i, name in enumerate(classes)
        ],
    }


def _seven(counts: Counts, among: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Turn the counts over the paper's seven classes, the background left out, into JSON."""
    iou = judge(counts, absent=RETRIEVAL.absent).iou[list(among)]
    per_class = [
        {"id": i, "name": classes[i], "iou": float(share), "pixels": int(counts[i].sum())}
        for i, share in zip(among, iou, strict=True)
    ]
    return {"miou": float(iou.mean()), "per_class": per_class}
