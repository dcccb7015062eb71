"""How many concepts an image has follows from the image."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import shared_directions
from zerolabel.networks.concepts import ConceptConfig, ConceptGenerator
from zerolabel.stages.concepts import train
from zerolabel.stages.discover import Discover, Encoded, by_concepts
from zerolabel.store import Store
from zerolabel.training.concepts import ConceptTraining

IMAGES, SHARD = 200, 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_as_many_concepts_are_used_as_there_are_directions(seed):
    x, truth = shared_directions(IMAGES, seed=seed)
    patches = torch.from_numpy(x)
    dot = np.zeros((1, 1, 3), np.uint8)
    samples = [from_arrays(f"{i}.png", dot) for i in range(IMAGES)]
    config = ConceptConfig(dim=64, concepts=6)
    weights, losses = train(
        config,
        ConceptTraining(steps=200, batch=32, lr=1e-3, seed=seed),
        lambda shard: patches[SHARD * shard : SHARD * (shard + 1)],
        shards=[samples[i : i + SHARD] for i in range(0, IMAGES, SHARD)],
        facts=(),
        device=torch.device("cpu"),
        store=Store(),
    )
    generator = ConceptGenerator(config)
    generator.load_state_dict(weights)
    with torch.no_grad():
        concepts = generator(patches)
    found = [
        by_concepts(Encoded(image[None], concepts=own), Discover())[0]
        for image, own in zip(patches, concepts, strict=True)
    ]
    used = np.array([len(np.unique(groups)) for groups in found])
    there = np.array([len(np.unique(labels)) for labels in truth])
    assert sorted(set(there)) == [2, 3, 4]
    assert (used == there).mean() >= 0.95
    agreement = [adjusted_rand_score(a, b) for a, b in zip(truth, found, strict=True)]
    assert np.mean(agreement) > 0.97
    assert min(losses) < max(losses)
    assert losses[max(losses)] < losses[min(losses)] - 0.02
