"""The training of TransFGU's decoder as a stage of a run: interrupted anywhere, it ends alike."""

from dataclasses import replace

import pytest
import torch
from coloured import DIM, PATCH, Coloured, coloured_world

from zerolabel.errors import DataError
from zerolabel.networks.mask_transformer import mask_transformer_config
from zerolabel.stages import bootstrap, parts
from zerolabel.stages.bootstrap import ROWS, Lessons
from zerolabel.stages.encode import read
from zerolabel.store import Store
from zerolabel.training.bootstrap import Bootstrapping, BootstrapTrainer

K, SIZES, KEEP = 4, [4, 0, 3, 2], 5  # images of the shards, one of which cannot be read
HEAD = mask_transformer_config("transfgu", encoder_dim=DIM, classes=K)
# 9 images: two steps an epoch (and three per pass, where shards are shuffled in windows of two)
CONFIG = Bootstrapping(epochs=8, repeat=1, batch=4, lr=1e-2, start=2, intervals=(2,))
STEPS = 16


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Parts of five steps, a loss for every two, and two shards in memory."""
    monkeypatch.setattr(parts, "KEEP", KEEP)
    monkeypatch.setattr(parts, "LOOKS", 8)
    monkeypatch.setattr(bootstrap, "WINDOW", 2)


@pytest.fixture(scope="module")
def shards():
    samples = coloured_world(sum(SIZES))
    return [samples[sum(SIZES[:i]) : sum(SIZES[: i + 1])] for i in range(len(SIZES))]


class Killed(BaseException):
    """Like the end of the process."""


class Reading:
    """Images of the shards, and the codes of their colours for responses."""

    def __init__(self, shards, *, fail=None):
        self.shards, self.fail, self.count = shards, fail, 0
        self.backbone = Coloured()

    def __call__(self, shard):
        if self.count == self.fail:
            raise Killed
        self.count += 1
        images = read(self.shards[shard], (64, 64)).images
        if not len(images):
            return images, torch.empty(0, 0, 1, 1)
        tokens = self.backbone.encode(images, want={"tokens"}).tokens
        return images, (tokens @ self.backbone.codes.T).permute(0, 3, 1, 2).contiguous()

    def see(self, images):
        return self.backbone.encode(images.round().byte(), want={"tokens"}).tokens


def train(shards, store, *, reading=None, config=CONFIG, head=HEAD, facts=()):
    reading = reading or Reading(shards)
    lessons = Lessons(reading, reading.see, PATCH, torch.device("cpu"))
    return bootstrap.train(head, config, lessons, shards=shards, facts=facts, store=store)


@pytest.fixture
def learn(monkeypatch):
    """Count the steps, and end the program before a given one."""
    original, seen = BootstrapTrainer.learn, {"steps": 0, "kill": None}

    def counted(self, tokens, told):
        if seen["kill"] == self.step:
            raise Killed
        seen["steps"] += 1
        return original(self, tokens, told)

    monkeypatch.setattr(BootstrapTrainer, "learn", counted)
    return seen


@pytest.fixture(scope="module")
def expected(shards):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "KEEP", KEEP)
        patch.setattr(parts, "LOOKS", 8)
        patch.setattr(bootstrap, "WINDOW", 2)
        return train(shards, Store())


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return Store(tmp_path if request.param == "disk" else None)


def same(found, expected):
    assert (found.losses, found.epoch) == (expected.losses, expected.epoch)
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(v, expected.weights[name]) for name, v in found.weights.items())


def kept(store):
    """Stages of the training that are kept, by their last step; "" for the whole."""
    if store.root is None:
        names = [name for name in store._memory if name.startswith("decoder/")]
    else:
        names = [path.stem for path in store.root.rglob("*.safetensors")]
    return sorted(name.partition("-")[2] for name in names)


def test_two_trainings_are_equal(shards, expected, store):
    same(train(shards, store), expected)
    assert [*expected.losses] == [*range(2, STEPS + 1, 2)]
    assert expected.losses[STEPS] < expected.losses[2]
    assert expected.weights["cls_emb"].shape == (1, K, DIM)
    assert expected.epoch == CONFIG.epochs  # nobody judges, so the last weights are kept
    assert kept(store) == [""]


@pytest.mark.parametrize("kill", [4, 5, 12])
def test_a_killed_training_goes_on_where_it_was(shards, expected, store, learn, kill):
    learn["kill"] = kill
    with pytest.raises(Killed):
        train(shards, store)
    assert kept(store) == ([str(kill // KEEP * KEEP)] if kill >= KEEP else [])
    learn.update(steps=0, kill=None)
    same(train(shards, store), expected)
    assert learn["steps"] == STEPS - kill // KEEP * KEEP
    assert kept(store) == [""]


def test_the_bytes_are_the_same_too(shards, learn, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train(shards, Store(whole))
    for kill in (6, 7, 13):
        learn["kill"] = kill
        with pytest.raises(Killed):
            train(shards, Store(torn))
    learn["kill"] = None
    train(shards, Store(torn))
    first, second = ([*root.rglob("*.safetensors")] for root in (whole, torn))
    assert [path.name for path in first] == [path.name for path in second]
    assert first[0].read_bytes() == second[0].read_bytes()


@pytest.mark.parametrize("fail", [2, 6])
def test_images_that_fail_to_come_interrupt_it_only(shards, expected, store, fail):
    with pytest.raises(Killed):
        train(shards, store, reading=Reading(shards, fail=fail))
    same(train(shards, store), expected)


def test_what_is_done_is_not_done_again(shards, expected, store, learn):
    train(shards, store)
    learn["steps"], reading = 0, Reading(shards)
    same(train(shards, store, reading=reading), expected)
    assert (learn["steps"], reading.count) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": replace(CONFIG, lr=2e-2)},
        {"config": replace(CONFIG, seed=1)},
        {"config": replace(CONFIG, background=True), "head": replace(HEAD, classes=K + 1)},
        {"head": replace(HEAD, depth=1)},
        {"facts": ("other",)},
    ],
    ids=["lr", "seed", "background", "head", "facts"],
)
def test_trainings_of_other_settings_do_not_mix(shards, learn, changes):
    learn["kill"], store = 6, Store()
    with pytest.raises(Killed):
        train(shards, store)
    learn.update(steps=0, kill=None)
    found = train(shards, store, **changes)
    assert learn["steps"] == STEPS
    assert set(found.weights) >= {"cls_emb"}
    assert kept(store) == ["", "5"]  # the other one may still go on


def test_every_image_has_its_own_responses(shards, monkeypatch):
    """Whatever is drawn, with a coarse look at both."""
    seen, original = [], BootstrapTrainer.learn
    monkeypatch.setattr(
        BootstrapTrainer, "learn", lambda self, x, v: seen.append((x, v)) or original(self, x, v)
    )
    train(shards, Store(), config=replace(CONFIG, distort=False))
    assert len(seen) == STEPS
    codes, right = Coloured().codes, []
    for tokens, told in seen:
        assert tokens.shape == (len(told.images), 4, 4, DIM)
        assert told.targets.shape == (len(told.images), K, 4, 4)
        right.append(((tokens @ codes.T).argmax(3) == told.targets.argmax(1)).float().mean())
    # borders of squares, where half a patch decides, may differ
    assert torch.stack(right).mean() > 0.9
    assert {len(tokens) for tokens, _ in seen} <= {2, 3, 4}


def test_every_image_is_seen_and_few_shards_are_held(shards, monkeypatch):
    reading, held, numbers = Reading(shards), [], []
    take = bootstrap._Shelf.take

    def noted(self, asked):
        numbers.extend(asked.tolist())
        found = take(self, asked)
        held.append(len(self._kept))
        return found

    monkeypatch.setattr(bootstrap._Shelf, "take", noted)
    train(shards, Store(), reading=reading, config=replace(CONFIG, batch=3))
    assert set(numbers) == {i * ROWS + row for i, n in enumerate(SIZES) for row in range(n)}
    assert max(held) <= 2


@pytest.mark.parametrize(("batch", "steps"), [(2, 4), (4, 2), (9, 1), (100, 1)])
def test_an_epoch_shows_every_image_about_once(shards, learn, batch, steps):
    config = replace(CONFIG, epochs=3, repeat=2, batch=batch)
    train(shards, Store(), config=config)
    assert learn["steps"] == 3 * 2 * steps


def test_no_images_at_all_are_an_error(shards, store):
    with pytest.raises(DataError, match="None of the images could be read"):
        train([[], []], store, reading=Reading([[], []]))
    assert kept(store) == []


def test_progress_is_reported_to_the_end(shards):
    said = []
    train(shards, Store(report=lambda *words: said.append(words)))
    assert {work for work, _, _ in said} == {"responses", "train"}
    assert said[-1] == ("train", STEPS, STEPS)


def test_the_encoder_sees_crops_of_half_the_size(shards):
    reading = Reading(shards)
    train(shards, Store(), reading=reading)
    crops = [(h, w) for _, h, w, _ in reading.backbone.seen if (h, w) != (64, 64)]
    assert crops == [(32, 32)] * STEPS
