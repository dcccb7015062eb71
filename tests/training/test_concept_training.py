"""How concepts learn: the order of the images, one step, and going on after an interruption."""

import itertools
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from zerolabel.networks.concepts import ConceptConfig, concept_generator
from zerolabel.ops.modularity import modularity_loss
from zerolabel.training.concepts import ConceptTrainer, ConceptTraining, batches

DIM = 16
SMALL = ConceptConfig(dim=DIM, concepts=4, steps=2, heads=2, hidden=32)


# --- batches -------------------------------------------------------------------------------------


class Shards:
    """Images that hold nothing but their number; remembers what was read, and what is in memory."""

    def __init__(self, sizes):
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.values = [torch.arange(a, b) for a, b in itertools.pairwise(ends)]
        self.reads, self.held, self.most = [], [], 0

    def __call__(self, shard):
        self.reads.append(shard)
        found = self.values[shard].half()[:, None, None].expand(-1, 3, 2).contiguous()
        self.held = [alive for alive in self.held if alive() is not None] + [weakref.ref(found)]
        self.most = max(self.most, len(self.held))
        return found


def drawn(sizes, steps, *, read=None, **options):
    """The images of so many batches, as lists of numbers."""
    stream = batches(read or Shards(sizes), sizes, **{"seed": 0, **options})
    return [x[:, 0, 0].int().tolist() for x in itertools.islice(stream, steps)]


def steps_of(sizes, batch, window):
    """Batches of an epoch in which every window is full but for the last shards."""
    parts = [sum(sizes[i : i + window]) for i in range(0, len(sizes), window)]
    return sum(max(part // batch, 1) for part in parts)


@pytest.mark.parametrize("window", [1, 2, 64])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_an_epoch_holds_every_image_but_what_does_not_fill_a_batch(batch, window):
    sizes = [8] * 6
    steps = steps_of(sizes, batch, window)
    for epoch in range(3):
        found = drawn(sizes, 3 * steps, batch=batch, window=window)[epoch * steps :][:steps]
        assert {len(images) for images in found} == {batch}
        images = sum(found, [])
        assert len(set(images)) == len(images) == steps * batch
        assert set(images) <= set(range(48))


def test_what_is_left_out_changes_from_epoch_to_epoch():
    found = drawn([7, 7], 3 * 20, batch=4)
    missing = [set(range(14)) - set(sum(found[i : i + 3], [])) for i in range(0, 60, 3)]
    assert {len(left) for left in missing} == {2}
    assert len(set(map(frozenset, missing))) > 10


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=7).filter(any),
    batch=st.integers(1, 9),
    window=st.integers(1, 4),
    first=st.integers(0, 25),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_the_stream_goes_on_anywhere(sizes, batch, window, first, seed):
    options = {"batch": batch, "window": window, "seed": seed}
    whole = drawn(sizes, first + 6, **options)
    read = Shards(sizes)
    assert drawn(sizes, 6, first=first, read=read, **options) == whole[first:]
    assert all(sizes[shard] for shard in read.reads)  # shards without images are never read
    assert all(1 <= len(images) <= batch for images in whole)
    assert all(len(set(images)) == len(images) for images in whole)


def test_nothing_is_read_for_steps_that_are_skipped():
    sizes, read = [4] * 8, Shards([4] * 8)
    stream = batches(read, sizes, batch=4, seed=0, first=3 * 8 + 5, window=2)
    assert read.reads == []
    next(stream)
    assert len(read.reads) == 2  # one window of the fourth epoch


def test_a_window_is_read_once_and_no_more_than_one_is_in_memory():
    sizes = [4] * 9
    read = Shards(sizes)
    drawn(sizes, 2 * 9, batch=4, window=3, read=read)
    assert [sorted(read.reads[i : i + 9]) for i in (0, 9)] == [list(range(9))] * 2
    assert read.most <= 3
    read = Shards(sizes)
    drawn(sizes, 3 * 9, batch=4, window=9, read=read)  # all fit: nothing is read twice
    assert sorted(read.reads) == list(range(9))


def test_images_are_mixed_within_a_window_and_shards_between_windows():
    found = drawn([4] * 16, 16, batch=4, window=4)
    homes = [{image // 4 for image in images} for images in found]
    assert max(map(len, homes)) > 1
    windows = [set.union(*homes[i : i + 4]) for i in range(0, 16, 4)]
    assert [len(window) for window in windows] == [4] * 4
    assert set.union(*windows) == set(range(16))
    assert windows != [set(range(i, i + 4)) for i in range(0, 16, 4)]


def test_a_batch_larger_than_the_data_holds_all_of_it():
    found = drawn([2, 0, 3], 4, batch=64)
    assert [sorted(images) for images in found] == [list(range(5))] * 4
    assert len(set(map(tuple, found))) > 1
    assert drawn([1], 3, batch=2) == [[0]] * 3


def test_the_seed_decides_the_order_and_epochs_differ():
    one, again, other = (drawn([8, 8], 8, batch=4, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert one[:4] != one[4:]


def test_batches_have_the_type_of_the_shards():
    for kind in (torch.float16, torch.float32):
        shard = torch.zeros(3, 5, DIM, dtype=kind)
        [x] = itertools.islice(batches(lambda i, s=shard: s, [3], batch=2, seed=0), 1)
        assert (x.dtype, x.shape) == (kind, (2, 5, DIM))


def test_no_images_at_all_are_no_batches():
    assert list(batches(Shards([0, 0]), [0, 0], batch=2, seed=0)) == []


# --- one step ------------------------------------------------------------------------------------


def planted(images=8, patches=20, *, groups=3, seed=0):
    """Patches around three directions, in other shares in every image; lengths differ."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(groups, DIM, generator=generator), dim=1)
    own = torch.randint(0, groups, (images, patches), generator=generator)
    x = centres[own] + 0.05 * torch.randn(images, patches, DIM, generator=generator)
    return x * (0.5 + torch.rand(images, patches, 1, generator=generator))


def trainer(**settings):
    config = ConceptTraining(**{"steps": 8, "batch": 8, "lr": 3e-3, **settings})
    return ConceptTrainer(concept_generator(SMALL, seed=0), config)


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_of_a_step_is_that_before_it():
    made, x = trainer(), planted()
    units = normalize(x, dim=2)
    with torch.no_grad():
        shares = units @ normalize(made.generator(units), dim=2).transpose(1, 2)
    expected = modularity_loss(units, shares).mean()
    assert made.learn(x) == pytest.approx(float(expected), abs=1e-5)
    assert made.step == 1
    assert made.learn(x) < float(expected)


def test_the_settings_reach_the_loss_and_the_optimiser():
    x = planted()
    assert trainer(self_loops=False).learn(x) != trainer().learn(x)
    made = trainer(lr=0.5, decay=0.25)
    [group] = made.optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert {id(p) for p in group["params"]} == {id(p) for p in made.generator.parameters()}


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_the_loss_falls_on_planted_directions(kind):
    made, x = trainer(), planted().to(kind)
    losses = [made.learn(x) for _ in range(60)]
    assert losses[-1] < min(losses[0], -0.25)
    units = normalize(x.float(), dim=2)
    truth = modularity_loss(units, torch.eye(3)[nearest(units)]).mean()
    assert losses[-1] < 0.75 * float(truth)


def nearest(units):
    """The planted direction of every patch."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(3, DIM, generator=generator), dim=1)
    return (units @ centres.T).argmax(2)


@pytest.mark.parametrize("shape", [(2, 5, DIM), (1, 1, DIM)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_that_say_nothing_leave_finite_weights(shape, value):
    made = trainer()
    for _ in range(3):
        assert torch.tensor(made.learn(torch.full(shape, value))).isfinite()
    assert all(value.isfinite().all() for value in made.generator.parameters())


def test_bfloat16_learns_nearly_the_same():
    x, losses = planted(), {}
    for amp in (False, True):
        made = trainer(amp=amp)
        losses[amp] = torch.tensor([made.learn(x) for _ in range(10)])
        assert all(p.dtype == torch.float32 for p in made.generator.parameters())
    assert not torch.equal(losses[False], losses[True])
    torch.testing.assert_close(losses[True], losses[False], atol=0.03, rtol=0)


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_restored_training_goes_on_bit_for_bit(stop, amp):
    shards = planted(24).split(6)

    def stream(first):
        return batches(lambda i: shards[i], [6] * 4, batch=4, seed=3, first=first, window=2)

    whole, first, second = (trainer(amp=amp) for _ in range(3))
    expected = [whole.learn(x) for x in itertools.islice(stream(0), 8)]
    found = [first.learn(x) for x in itertools.islice(stream(0), stop)]
    state = {name: value.clone() for name, value in first.state().items()}
    second.restore(state)
    assert second.step == stop
    found += [second.learn(x) for x in itertools.islice(stream(stop), 8 - stop)]
    assert found == expected
    same(second.state(), whole.state())


def test_what_was_restored_from_stays_as_it_was():
    made, x = trainer(), planted()
    made.learn(x)
    state = {name: value.clone() for name, value in made.state().items()}
    before = {name: value.clone() for name, value in state.items()}
    other = trainer()
    other.restore(state)
    other.learn(x)
    same(state, before)


def test_a_state_holds_all_there_is():
    made = trainer()
    made.learn(planted())
    state, count = made.state(), len(list(made.generator.parameters()))
    assert int(state["step"]) == 1
    assert len([name for name in state if name.startswith("weights/")]) == count
    assert len([name for name in state if name.startswith("optimiser/")]) == 3 * count
