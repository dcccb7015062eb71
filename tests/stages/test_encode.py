import numpy as np
import pytest
import torch
from planted import broken, small_bank, tiny_vit

from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError
from zerolabel.stages import encode
from zerolabel.store import Store
from zerolabel.types import Sample

SIZE = (32, 40)


class Spy:
    """A backbone that learns nothing and remembers what it was shown."""

    name, gives, stride, dim, digest = "spy", frozenset({"tokens"}), 8, 1, "spy"

    def __init__(self, learns):
        self.learns, self.seen, self.restored = learns, 0, 0

    def learn(self, batches, *, seed):
        self.seen += sum(len(batch) for batch in batches)
        return self

    def state(self):
        return {"seen": torch.tensor([self.seen])}

    def restore(self, state):
        self.restored = int(state["seen"])


def counted(samples, loads):
    def watch(sample):
        return Sample(sample.id, lambda: (loads.append(sample.id), sample.load())[1], sample.digest)

    return [watch(sample) for sample in samples]


@pytest.mark.parametrize("n", [3, 7, 8, 13, 16, 29])
def test_learning_reads_evenly_spaced_images(n):
    loads, backbone = [], Spy(learns=8)
    samples = counted(world(2, images=n, size=(8, 8)), loads)
    encode.learn(backbone, samples, size=SIZE, seed=0, store=Store())
    chosen = [int(name[6:9]) for name in loads]
    assert len(chosen) == backbone.seen == backbone.restored == min(n, 8)
    gaps = np.diff([*chosen, n + chosen[0]])  # around the end of the list
    assert chosen == sorted(set(chosen))
    assert gaps.max() - gaps.min() <= 1


def test_learning_is_done_once_per_run():
    store, samples = Store(), world(3, images=4)
    first, second = small_bank(), small_bank()
    encode.learn(first, samples, size=SIZE, seed=0, store=store)
    second.learn = None  # would fail
    encode.learn(second, samples, size=SIZE, seed=0, store=store)
    assert first.digest == second.digest
    third = small_bank()
    encode.learn(third, samples, size=SIZE, seed=1, store=store)
    assert third.digest != first.digest
    fourth = small_bank()
    encode.learn(fourth, samples, size=(40, 32), seed=0, store=store)
    assert fourth.digest != first.digest


def test_what_was_learned_survives_on_disk(tmp_path):
    samples = world(3, images=2)
    first, second = small_bank(), small_bank()
    encode.learn(first, samples, size=SIZE, seed=0, store=Store(tmp_path))
    second.learn = None
    encode.learn(second, samples, size=SIZE, seed=0, store=Store(tmp_path))
    assert first.digest == second.digest


def test_a_trained_backbone_reads_nothing():
    encode.learn(tiny_vit(), [broken()], size=SIZE, seed=0, store=Store())


def test_unreadable_images_are_passed_over_when_learning():
    backbone = Spy(learns=8)
    samples = [broken("a.png"), *world(2, images=2), broken("z.png")]
    encode.learn(backbone, samples, size=SIZE, seed=0, store=Store())
    assert backbone.seen == 2
    with pytest.raises(
        DataError, match=r"No image could be read, e.g. a.png: cannot be read: torn"
    ):
        encode.learn(backbone, [broken("a.png")], size=SIZE, seed=0, store=Store())


def test_tokens_are_those_of_the_backbone_in_half_precision():
    samples, backbone = world(3, images=3), tiny_vit()
    images, _, _ = load_batch(samples, SIZE)
    expected = backbone.encode(images, want={"tokens"}).tokens
    found, kept, failures = encode.tokens(backbone, samples, size=SIZE, store=Store())
    assert found.dtype == torch.float32
    assert (kept, failures) == (samples, {})
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_tokens_are_computed_once(tmp_path):
    samples, backbone, store = world(3, images=2), tiny_vit(), Store(tmp_path)
    first, _, _ = encode.tokens(backbone, samples, size=SIZE, store=store)
    loads = []
    again, kept, _ = encode.tokens(backbone, counted(samples, loads), size=SIZE, store=store)
    assert torch.equal(first, again)
    assert loads == []
    assert [sample.id for sample in kept] == [sample.id for sample in samples]
    other, _, _ = encode.tokens(tiny_vit(seed=1), samples, size=SIZE, store=store)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("root", [False, True])
def test_unreadable_images_are_reported(root, tmp_path):
    store = Store(tmp_path if root else None)
    good = world(3, images=2)
    samples = [good[0], broken(), good[1]]
    for _ in range(2):  # computed, then read
        found, kept, failures = encode.tokens(tiny_vit(), samples, size=SIZE, store=store)
        assert found.shape == (2, 4, 5, 64)
        assert kept == good
        assert failures == {"broken.png": "cannot be read: torn"}
        found, kept, failures = encode.tokens(tiny_vit(), [broken()], size=SIZE, store=store)
        assert (len(found), found.ndim, kept) == (0, 4, [])
        assert list(failures) == ["broken.png"]


def test_a_bank_must_have_learned_first():
    with pytest.raises(Exception, match="call learn"):
        encode.tokens(FilterBank(), world(2, images=1), size=SIZE, store=Store())
