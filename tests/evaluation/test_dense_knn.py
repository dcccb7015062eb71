import numpy as np
import pytest
import torch
from reference import patches as reference

from zerolabel.errors import DataError, UsageError
from zerolabel.evaluation.dense_knn import DenseKnn, PatchBank

C = 4


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(count, size=(20, 30), seed=0):
    generator = np.random.default_rng(seed)
    return list(generator.choice([0, 1, 2, 3, 255], (count, *size)).astype(np.uint8))


def test_votes_are_those_of_a_loop():
    bank = PatchBank(DenseKnn(patches=99, k=5, temperature=0.2), C)
    tokens = draw(3, 4, 5, 6).half().float()
    known = labels(3)
    rows, ids = [], []
    for image, label in zip(tokens, known, strict=True):
        bank.add(image, label)
        found = reference.patch_labels(label, (4, 5), C)
        rows += [image[place].numpy() for place in np.ndindex(4, 5) if found[place] < 255]
        ids += [found[place] for place in np.ndindex(4, 5) if found[place] < 255]
    assert len(bank) == len(ids)
    asked = draw(2, 3, 4, 6, seed=1)
    votes = bank.votes(asked)
    for image, vote in zip(asked, votes, strict=True):
        expected = reference.dense_knn(np.stack(rows), ids, image.numpy(), C, k=5, temperature=0.2)
        np.testing.assert_allclose(vote, expected, atol=1e-4)
    torch.testing.assert_close(votes.sum(1), torch.ones(2, 3, 4))


def test_patches_of_the_bank_find_themselves():
    bank = PatchBank(DenseKnn(patches=99, k=1), C)
    tokens, known = draw(2, 4, 5, 16), labels(2)
    for image, label in zip(tokens, known, strict=True):
        bank.add(image, label)
    found = bank.votes(tokens).argmax(1).numpy()
    for image, label in zip(found, known, strict=True):
        own = reference.patch_labels(label, (4, 5), C)
        np.testing.assert_array_equal(image[own < 255], own[own < 255])


def test_some_patches_are_drawn_and_the_seed_says_which():
    def bank(seed):
        found = PatchBank(DenseKnn(patches=7, k=3), C, seed=seed)
        for image, label in zip(draw(5, 6, 6, 8), labels(5), strict=True):
            found.add(image, label)
        return found

    asked = draw(1, 4, 4, 8, seed=9)
    assert len(bank(0)) == 35
    assert torch.equal(bank(0).votes(asked), bank(0).votes(asked))
    assert not torch.equal(bank(0).votes(asked), bank(1).votes(asked))


def test_relabelling_relabels_the_votes():
    tokens, known = draw(3, 4, 5, 6), labels(3)
    order = np.array([2, 0, 3, 1])
    banks = [PatchBank(DenseKnn(patches=99), C) for _ in range(2)]
    for image, label in zip(tokens, known, strict=True):
        banks[0].add(image, label)
        # One class per patch, so that no tie falls to another class after relabelling.
        plain = reference.patch_labels(label, (4, 5), C)
        banks[1].add(image, np.where(plain < 255, order[np.minimum(plain, 3)], 255))
    asked = draw(2, 4, 5, 6, seed=3)
    first, second = (bank.votes(asked) for bank in banks)
    torch.testing.assert_close(first, second[:, order])


def test_an_image_without_labels_gives_nothing_and_an_empty_bank_is_told():
    bank = PatchBank(DenseKnn(), C)
    bank.add(draw(4, 4, 6), np.full((9, 9), 255, np.uint8))
    assert len(bank) == 0
    with pytest.raises(DataError, match=r"expected ids 0\.\.3, found only ignored pixels"):
        bank.votes(draw(1, 4, 4, 6))


@pytest.mark.parametrize("wrong", [{"patches": 0}, {"k": 0}, {"temperature": 0.0}])
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match="must be at least 1 and the temperature above 0"):
        PatchBank(DenseKnn(**wrong), C)
