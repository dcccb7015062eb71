"""Part of the verb discover: the concept generator learns the images of a data set, once per run.

Shapes: `N` patches, `D` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zerolabel.backbones import cache
from zerolabel.errors import DataError
from zerolabel.networks.concepts import ConceptConfig, concept_generator
from zerolabel.ops.cluster import kmeans
from zerolabel.stages.parts import arrays_of, resume, train_in_parts, trained
from zerolabel.store import Stage, Store
from zerolabel.training.concepts import ConceptTrainer, ConceptTraining, batches
from zerolabel.types import Sample

PATCHES, RESTARTS = 10_000, 3  # of the k-means that prototypes start from


def train(
    config: ConceptConfig,
    training: ConceptTraining,
    read: Callable[[int], Tensor],
    *,
    shards: Sequence[Sequence[Sample]],
    facts: Sequence[object],
    device: torch.device,
    store: Store,
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Train a generator on the patch features of all images, or take up what was trained before.

    Args:
        config: of the generator.
        training: how it learns.
        read: returns the features of a shard, float (images, N, D).
        shards: the samples of every shard.
        facts: everything else that the features depend on.
        device: where to compute.
        store: keeps the result, and every `KEEP` steps what is needed to go on.

    Returns:
        Weights by name, and from step to loss, averaged since the step before it.

    Raises:
        DataError: there are no features at all.
    """
    samples = [sample for shard in shards for sample in shard]
    name = cache.key("concepts", samples, config, training, *facts)
    return trained(
        name,
        lambda: _work(name, config, training, read, len(shards), device, store),
        steps=training.steps,
        store=store,
    )


def _work(
    name: str,
    config: ConceptConfig,
    training: ConceptTraining,
    read: Callable[[int], Tensor],
    shards: int,
    device: torch.device,
    store: Store,
) -> Stage:
    """Train in parts; every part is a stage of the run that holds all that the next one needs."""
    sizes = [len(read(i)) for _, [i] in store.track("encode", range(shards), 1)]
    if not sum(sizes):
        raise DataError("None of the images could be read; failures.json lists the reasons.")
    generator = concept_generator(config, seed=training.seed)
    trainer = ConceptTrainer(generator.to(device), training)
    begun = resume(name, trainer, steps=training.steps, store=store)
    if training.prototypes == "clusters" and begun is None:
        with torch.no_grad():
            generator.prototypes.copy_(_clusters(read, sizes, config.concepts, training.seed))
    stream = batches(read, sizes, batch=training.batch, seed=training.seed, first=trainer.step)
    losses = train_in_parts(
        name, trainer, lambda: trainer.learn(next(stream)), steps=training.steps, store=store
    )
    return Stage(arrays_of(trainer.generator.state_dict()), {"losses": losses})


def _clusters(read: Callable[[int], Tensor], sizes: Sequence[int], count: int, seed: int) -> Tensor:
    """Centres of clusters of patches of the data set, float32 (count, D).

    From random directions some prototypes are never the nearest to any patch, get no gradient, and
    stay that way.
    """
    share = max(1, PATCHES // sum(sizes))  # patches per image
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for shard in (i for i, size in enumerate(sizes) if size):
        patches = read(shard).float()  # (images, N, D)
        rows = torch.randperm(patches.shape[1], generator=generator)[:share]
        drawn.append(F.normalize(patches[:, rows].flatten(0, 1), dim=1))
    found = torch.cat(drawn)
    while len(found) < count:  # fewer patches than prototypes
        found = found.repeat(2, 1)
    return kmeans(found, count, seed=seed, restarts=RESTARTS).centroids
