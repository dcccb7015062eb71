"""Old masks that have a say when they are refined."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zerolabel.data.folder import from_arrays
from zerolabel.jobs.refining.votes import Votes
from zerolabel.methods.base import Evidence, surest

K, SIZE, GRID = 3, (12, 16), (6, 8)  # cells of two by two pixels
PHOTO = from_arrays("a.png", np.zeros((*SIZE, 3), np.uint8))


@pytest.fixture
def mask():
    return np.random.default_rng(0).choice([0, 1, 2, 255], SIZE).astype(np.uint8)


@pytest.fixture
def evidence():
    scores = torch.randn(K, *GRID, generator=torch.Generator().manual_seed(0)).softmax(0)
    return Evidence(scores, surest(scores), labels=scores.argmax(0))


def votes(mask, trust, ids=("a.png",)):
    return Votes(SimpleNamespace(label={"a.png": mask}.get), frozenset(ids), trust)


@pytest.mark.parametrize("trust", [0.2, 0.7])
def test_student_and_mask_are_weighed(mask, evidence, trust):
    found = votes(mask, trust)(PHOTO, evidence)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            cell = mask[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            for k in range(K):
                said = (1 - trust) * evidence.scores[k, row, column] + trust * np.mean(cell == k)
                assert found.scores[k, row, column] == pytest.approx(float(said), rel=1e-5)
    assert torch.equal(found.typical, surest(found.scores))
    assert found.labels is None  # the student decided pixels without having heard the mask


def test_the_surer_one_decides(evidence):
    mask = np.full(SIZE, 2, np.uint8)
    found, before = votes(mask, 0.2)(PHOTO, evidence).scores.argmax(0), evidence.scores.argmax(0)
    won = 0.8 * (evidence.scores.amax(0) - evidence.scores[2]) < 0.2
    assert torch.equal(found, torch.where(won, 2, before))
    assert 0 < (found != before).sum() < found.numel() - (before == 2).sum()


def test_where_the_mask_has_no_category_the_student_decides(evidence):
    mask = np.full(SIZE, 255, np.uint8)
    found = votes(mask, 0.9)(PHOTO, evidence)
    assert torch.equal(found.scores.argmax(0), evidence.scores.argmax(0))


def test_other_photos_and_no_trust_change_nothing(mask, evidence):
    assert votes(mask, 0.0)(PHOTO, evidence) is evidence
    assert votes(mask, 0.5, ids=())(PHOTO, evidence) is evidence
