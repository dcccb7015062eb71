"""The training of the concepts as a stage of a run: interrupted anywhere, it ends the same."""

import pytest
import torch
from torch.nn.functional import normalize

from zerolabel.data.synthetic import world
from zerolabel.errors import DataError
from zerolabel.networks.concepts import ConceptConfig
from zerolabel.stages import concepts
from zerolabel.stages import parts as training_parts
from zerolabel.store import Store
from zerolabel.training.concepts import ConceptTrainer, ConceptTraining

DIM, CPU = 16, torch.device("cpu")
CONFIG = ConceptConfig(dim=DIM, concepts=3, steps=2, heads=2, hidden=24)
STEPS, KEEP = 17, 5
SIZES = [4, 0, 4, 2]  # images of the shards


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Parts of five steps, and a loss for every two: no part ends where a loss does."""
    monkeypatch.setattr(training_parts, "KEEP", KEEP)
    monkeypatch.setattr(training_parts, "LOOKS", 8)


@pytest.fixture(scope="module")
def shards():
    samples = world(2, images=4, size=(8, 8))
    return [[sample] for sample in samples]


class Read:
    """Features of the shards; counts, and fails once when it is told to."""

    def __init__(self, patches=None, *, fail=None):
        self.count, self.fail = 0, fail
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(n, 6, DIM, generator=generator).half() for n in SIZES]
        self.patches = drawn if patches is None else patches

    def __call__(self, shard):
        if self.fail == self.count:
            raise Killed
        self.count += 1
        return self.patches[shard] if len(self.patches[shard]) else torch.empty(0)


class Killed(BaseException):
    """Like the end of the process."""


def settings(**changes):
    return ConceptTraining(**{"steps": STEPS, "batch": 3, "lr": 1e-2, **changes})


def train(shards, store, *, read=None, training=None, config=CONFIG, facts=()):
    return concepts.train(
        config,
        training or settings(),
        read or Read(),
        shards=shards,
        facts=facts,
        device=CPU,
        store=store,
    )


@pytest.fixture
def learn(monkeypatch):
    """Count the steps, and end the program before a given one."""
    original, seen = ConceptTrainer.learn, {"steps": 0, "kill": None}

    def counted(self, patches):
        if seen["kill"] == self.step:
            raise Killed
        seen["steps"] += 1
        return original(self, patches)

    monkeypatch.setattr(ConceptTrainer, "learn", counted)
    return seen


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return Store(tmp_path / "run" if request.param == "disk" else None)


def same(found, expected):
    (weights, losses), (others, other_losses) = found, expected
    assert losses == other_losses
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def parts(store):
    """Stages of the training that are kept, by their last step; "" for the whole."""
    if store.root is None:
        names = [name for name in store._memory if name.startswith("concepts/")]
    else:
        names = [p.stem for p in (store.root / "cache" / "concepts").glob("*.safetensors")]
    return sorted(name.partition("-")[2] for name in names)


@pytest.mark.parametrize("prototypes", ["clusters", "random"])
@pytest.mark.parametrize("kill", [0, 3, 5, 6, 12, 16])
def test_a_killed_training_goes_on_where_it_was(shards, store, learn, kill, prototypes):
    training = settings(prototypes=prototypes)
    expected = train(shards, Store(), training=training)
    learn.update(steps=0, kill=kill)
    with pytest.raises(Killed):
        train(shards, store, training=training)
    assert parts(store) == ([str(kill // KEEP * KEEP)] if kill >= KEEP else [])  # the last one
    learn.update(steps=0, kill=None)
    same(train(shards, store, training=training), expected)
    assert learn["steps"] == STEPS - kill // KEEP * KEEP  # a part that is done is not redone
    assert parts(store) == [""]


def test_a_training_may_be_killed_again_and_again(shards, store, learn):
    expected = train(shards, Store())
    learn["steps"] = 0
    for kill in (7, 8, 11, 14, 16):
        learn["kill"] = kill
        with pytest.raises(Killed):
            train(shards, store)
    learn["kill"] = None
    same(train(shards, store), expected)
    assert learn["steps"] == STEPS + 2 + 3 + 1 + 4 + 1  # what was done since the last part
    assert parts(store) == [""]


@pytest.mark.parametrize("fail", range(0, 12))
def test_features_that_fail_to_come_interrupt_it_only(shards, store, fail):
    expected = train(shards, Store())
    try:
        train(shards, store, read=Read(fail=fail))
    except Killed:
        pass
    else:
        assert fail >= 10  # all have been read before
    same(train(shards, store), expected)
    assert parts(store) == [""]


def test_a_kill_while_a_part_is_written_costs_that_part(shards, learn, tmp_path, monkeypatch):
    expected, store = train(shards, Store()), Store(tmp_path)
    stage = Store.stage

    def torn(self, name, fn):
        if name.endswith("-10"):
            raise Killed
        return stage(self, name, fn)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "stage", torn)
        with pytest.raises(Killed):
            train(shards, store)
    assert parts(store) == ["5"]
    learn["steps"] = 0
    same(train(shards, store), expected)
    assert learn["steps"] == STEPS - 5
    assert parts(store) == [""]


def test_a_kill_before_the_part_before_is_gone_leaves_no_rubbish(shards, tmp_path, monkeypatch):
    expected, store = train(shards, Store()), Store(tmp_path)

    def torn(self, name):
        if name.endswith("-5"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget", torn)
        with pytest.raises(Killed):
            train(shards, store)
    assert parts(store) == ["10", "5"]
    same(train(shards, store), expected)
    assert parts(store) == [""]


def test_what_is_done_is_not_done_again(shards, store, learn):
    first, read = train(shards, store), Read()
    learn["steps"] = 0
    same(train(shards, store, read=read), first)
    assert (learn["steps"], read.count) == (0, 0)


def test_runs_that_share_a_folder_share_the_training(shards, learn, tmp_path):
    first, second = (Store(tmp_path / name, shared=tmp_path / "shared") for name in "ab")
    learn["kill"] = 12
    with pytest.raises(Killed):
        train(shards, first)
    assert parts(first) == ["10"]  # what is not finished is nobody else's
    learn.update(steps=0, kill=None)
    expected = train(shards, first)
    assert learn["steps"] == STEPS - 10
    same(train(shards, second), expected)
    assert learn["steps"] == STEPS - 10
    assert parts(first) == parts(second) == []
    assert len(list((tmp_path / "shared" / "concepts").iterdir())) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"training": settings(steps=STEPS + 1)},
        {"training": settings(lr=2e-2)},
        {"training": settings(seed=1)},
        {"training": settings(prototypes="random")},
        {"config": ConceptConfig(dim=DIM, concepts=3, steps=1, heads=2, hidden=24)},
        {"facts": ("keys",)},
    ],
    ids=["steps", "lr", "seed", "prototypes", "generator", "facts"],
)
def test_trainings_of_other_settings_do_not_mix(shards, store, learn, changes):
    expected = train(shards, Store(), **changes)
    learn["kill"] = 12
    with pytest.raises(Killed):
        train(shards, store)  # leaves a part of another training
    learn.update(steps=0, kill=None)
    same(train(shards, store, **changes), expected)
    assert learn["steps"] == changes.get("training", settings()).steps


def test_other_images_are_another_training(shards, store, learn):
    train(shards, store)
    learn["steps"] = 0
    train([[sample] for sample in world(2, images=4, size=(8, 8), seed=1)], store)
    assert learn["steps"] == STEPS


@pytest.mark.parametrize(("steps", "looks"), [(1, [1]), (8, [*range(1, 9)]), (17, [2, 4, 6])])
def test_the_losses_are_means_since_the_one_before(shards, monkeypatch, steps, looks):
    every, original = [], ConceptTrainer.learn
    monkeypatch.setattr(
        ConceptTrainer, "learn", lambda self, x: every.append(original(self, x)) or every[-1]
    )
    _, losses = train(shards, Store(), training=settings(steps=steps))
    assert list(losses)[: len(looks)] == looks
    assert list(losses)[-1] == steps  # the end is always there
    start = 0
    for step, loss in losses.items():
        assert loss == pytest.approx(sum(every[start:step]) / (step - start))
        start = step


def test_progress_is_reported_to_the_end(shards):
    said = []
    train(shards, Store(report=lambda *words: said.append(words)))
    steps = [(done, total) for work, done, total in said if work == "train"]
    assert steps[-1] == (STEPS, STEPS)
    assert steps == sorted(steps)
    assert {work for work, _, _ in said} == {"encode", "train"}


def test_no_images_at_all_are_an_error(shards, store):
    with pytest.raises(DataError, match="None of the images could be read"):
        train(shards, store, read=lambda shard: torch.empty(0))
    assert parts(store) == []


# --- where prototypes start ----------------------------------------------------------------------


def untrained(shards, **changes):
    """The prototypes before the first step."""
    weights, _ = train(shards, Store(), training=settings(steps=0, **changes))
    return normalize(weights["prototypes"], dim=1)


def test_prototypes_start_from_the_clusters_of_the_data(shards):
    centres = 9 * torch.eye(DIM)[:3].half()
    generator = torch.Generator().manual_seed(0)
    read = Read([centres[torch.randint(0, 3, (n, 6), generator=generator)] for n in SIZES])
    weights, _ = train(shards, Store(), read=read, training=settings(steps=0))
    found = normalize(weights["prototypes"], dim=1)
    assert sorted(found.argmax(1).tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.amax(1), torch.ones(3))


def test_the_start_depends_on_the_seed_and_the_choice(shards):
    clusters, again = untrained(shards), untrained(shards)
    assert torch.equal(clusters, again)
    assert not torch.equal(clusters, untrained(shards, prototypes="random"))
    random = untrained(shards, prototypes="random")
    assert not torch.equal(random, untrained(shards, prototypes="random", seed=1))


@pytest.mark.parametrize("sizes", [[1, 0, 0, 0], [0, 0, 0, 2]])
def test_fewer_patches_than_prototypes(shards, sizes):
    read = Read([torch.ones(n, 1, DIM).half() for n in sizes])
    weights, losses = train(shards, Store(), read=read, training=settings(steps=2))
    assert all(value.isfinite().all() for value in weights.values())
    assert losses[2] == pytest.approx(0, abs=1e-6)  # one patch, or equal ones: nothing to part
