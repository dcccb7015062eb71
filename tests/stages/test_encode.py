import numpy as np
import pytest
import torch
from planted import broken, small_bank, tiny_vit

from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.synthetic import world
from zerolabel.data.transforms import load_batch
from zerolabel.errors import DataError, UsageError
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


# --- several fields at once ----------------------------------------------------------------------

FIELDS = ("tokens", "keys", "queries", "values", "attention", "received", "context", "cls")


def features(samples, want, store=None, *, backbone=None):
    return encode.features(
        backbone or tiny_vit(), samples, want=want, size=SIZE, store=store or Store()
    )


@pytest.mark.parametrize("want", [FIELDS[:1], ("received", "keys"), FIELDS])
def test_fields_are_those_of_the_backbone_in_half_precision(want):
    samples = world(3, images=3)
    images, _, _ = load_batch(samples, SIZE)
    expected = tiny_vit().encode(images, want=want)
    found, kept, failures = features(samples, want)
    assert (kept, failures) == (samples, {})
    for name in FIELDS:
        value = getattr(found, name)
        if name not in want:
            assert value is None
            continue
        assert value.dtype == torch.float32
        assert value.is_contiguous()  # as from disk: sums over a strided array round otherwise
        torch.testing.assert_close(value, getattr(expected, name), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("first", ["samples", "loaded"])
def test_images_in_memory_give_what_files_give(root, first, tmp_path):
    """Bit for bit, whichever comes first, from memory and from disk."""
    samples, found = [*world(3, images=2), broken()], {}
    loaded = encode.read(samples, SIZE)
    for name, batch in (("samples", samples), ("loaded", loaded)):
        store = Store(tmp_path / name if root else None)
        found[name] = [features(batch, FIELDS, store) for _ in range(2)]
    store = Store(tmp_path / "both" if root else None)
    order = [samples, loaded] if first == "samples" else [loaded, samples]
    found["both"] = [features(batch, FIELDS, store) for batch in order]
    expected, kept, failures = found["samples"][0]
    assert kept == samples[:2]
    assert failures == {"broken.png": "cannot be read: torn"}
    for seen, some, why in sum(found.values(), []):
        assert (some, why) == (kept, failures)
        assert all(torch.equal(getattr(seen, name), getattr(expected, name)) for name in FIELDS)


def test_images_in_memory_are_not_read_again():
    loads = []
    samples = counted(world(3, images=2), loads)
    loaded = encode.read(samples, SIZE)
    assert len(loads) == 2
    features(loaded, ("tokens", "cls"))
    assert len(loads) == 2
    features(samples, ("tokens", "cls"))
    assert len(loads) == 4


def test_the_order_of_the_fields_does_not_matter_but_which_they_are_does(monkeypatch):
    backbone, store, samples = tiny_vit(), Store(), world(3, images=2)
    encoded, original = [], backbone.encode

    def watched(images, *, want):
        encoded.append(frozenset(want))
        return original(images, want=want)

    monkeypatch.setattr(backbone, "encode", watched)
    for want in (["keys", "cls"], ["cls", "keys"], {"keys", "cls"}, ["keys"]):
        features(samples, want, store, backbone=backbone)
    assert encoded == [{"keys", "cls"}, {"keys"}]


def test_features_of_images_none_of_which_can_be_read():
    store = Store()
    for _ in range(2):  # computed, then read
        for batch in ([broken("a.png")], encode.read([broken("a.png")], SIZE)):
            found, kept, failures = features(batch, ("tokens", "attention"), store)
            assert found.tokens is None
            assert found.attention is None
            assert (kept, failures) == ([], {"a.png": "cannot be read: torn"})


def test_a_field_that_the_backbone_lacks_is_explained():
    with pytest.raises(UsageError, match="gives tokens, but keys is needed"):
        features(world(2, images=1), ("tokens", "keys"), backbone=small_bank())
