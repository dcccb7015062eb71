"""Training from labels as a stage: resumed, from what, held out, unreadable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import broken

from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.networks.mask_transformer import LinearConfig
from zerolabel.networks.vit import VitConfig, random_vit
from zerolabel.stages import parts, supervise
from zerolabel.store import Store
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining

K = 3
HEAD = LinearConfig(encoder_dim=64, classes=K)
SCENE = SceneConfig(short=48, crop=32)


@pytest.fixture(scope="module")
def samples():
    return world(K, images=7, size=(48, 60))


def training(**changes):
    return SupervisedTraining(
        **{"iterations": 6, "batch": 2, "lr": 1e-2, "drop_path": 0.2} | changes
    )


def encoder():
    return random_vit(VitConfig(patch=8, dim=64, depth=2, heads=2, grid=4), seed=0)


class StoppedError(Exception):
    """Somebody pressed a key."""


def run(samples, store=None, *, lessons=None, stop=None, facts=(), **changes):
    """Train; with `stop` until so many batches were normalised."""
    seen = []

    def prepare(images):
        if stop is not None and len(seen) == stop:
            raise StoppedError
        seen.append(images.clone())
        return images / 127.5 - 1

    found = supervise.train(
        encoder(),
        HEAD,
        training(**changes),
        lessons or Lessons(scene=SCENE),
        samples=samples,
        prepare=prepare,
        facts=facts,
        device=torch.device("cpu"),
        store=store or Store(),
    )
    return found, seen


def same(one, other):
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert (one.losses, one.held, one.failures) == (other.losses, other.held, other.failures)


def pages(samples, *, lessons=None, **changes):
    return Pages(samples, lessons or Lessons(scene=SCENE), training(**changes))


# --- training ------------------------------------------------------------------------------------


def test_weights_losses_and_nothing_done_twice(samples, tmp_path):
    first, seen = run(samples, Store(tmp_path))
    assert len(seen) == 6
    assert list(first.losses) == [1, 2, 3, 4, 5, 6]
    assert first.held == first.failures == {}
    assert first.words() == []
    assert {name.split(".")[0] for name in first.weights} == {"encoder", "decoder"}
    again, seen = run(samples, Store(tmp_path))
    assert seen == []
    same(first, again)
    in_memory, _ = run(samples)
    same(first, in_memory)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 2e-2},
        {"seed": 1},
        {"tuned": False},
        {"lessons": Lessons(scene=replace(SCENE, crop=24))},
    ]
    + [{"facts": ("other",)}, {"lessons": Lessons(scene=SCENE, distort=False)}],
)
def test_whatever_decides_the_result_is_in_the_name(changes, samples, tmp_path):
    first, _ = run(samples, Store(tmp_path))
    other, seen = run(samples, Store(tmp_path), **changes)
    assert seen
    if "facts" not in changes:
        assert other.losses != first.losses
    assert ("encoder.norm.weight" in other.weights) == changes.get("tuned", True)


@pytest.mark.parametrize("stop", [5, 7, 99])
@pytest.mark.parametrize("held", [0.0, 0.3])
def test_an_interrupted_training_goes_on_bit_for_bit(stop, held, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEEP", 2)
    monkeypatch.setattr(parts, "LOOKS", 2)
    changes = {"lessons": Lessons(scene=SCENE, held=held), "schedule": "plateau", "iterations": 8}
    whole, every = run(samples, **changes)
    store = Store(tmp_path)
    if stop < len(every):
        with pytest.raises(StoppedError):
            run(samples, store, stop=stop, **changes)
        assert len(list(tmp_path.rglob("*.safetensors"))) <= 1  # only the last part is kept
    found, rest = run(samples, store, **changes)
    assert len(rest) < len(every) or stop >= len(every)
    same(whole, found)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1  # and in the end only the result


def test_the_loss_falls(samples):
    found, _ = run(samples, iterations=40, batch=4, optimiser="adamw", lr=3e-3)
    values = list(found.losses.values())
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:3])


def test_images_held_out_are_judged_after_every_epoch(samples):
    lessons = Lessons(scene=SCENE, held=0.25)  # 2 of 7
    found, _ = run(samples, lessons=lessons, batch=2, iterations=6)
    assert list(found.held) == [2, 4, 6]
    assert found.words()[0].startswith("the loss of those held out is")


def test_a_plateau_lowers_the_learning_rate(samples, monkeypatch):
    rates = []
    learn = supervise.SupervisedTrainer.learn

    def watched(self, *batch):
        rates.append(self.lr())
        return learn(self, *batch)

    monkeypatch.setattr(supervise.SupervisedTrainer, "learn", watched)
    flat = [from_arrays("a.png", np.full((48, 48, 3), 9, np.uint8))]
    label = np.full((48, 48), 255, np.uint8)  # the loss is 0 and stays so
    flat = [replace(flat[0], load_label=lambda: label)]
    run(flat, schedule="plateau", iterations=26, batch=1)
    assert rates[0] == 1e-2
    assert rates[-1] == pytest.approx(1e-4)


# --- what is learned from ------------------------------------------------------------------------


def test_an_epoch_shows_every_image_once(samples):
    told = [s.id for s in samples]
    seen = []

    def telling(sample):
        return replace(sample, load=lambda: seen.append(sample.id) or sample.load())

    made = pages([telling(s) for s in samples], batch=7)
    made.batch(0)
    assert sorted(seen) == told
    made.batch(5)
    assert len(seen) == 7  # kept in memory
    assert made.epoch == 1
    assert pages(samples, batch=2).epoch == 3


def test_a_batch_is_a_function_of_the_step(samples):
    made = pages(samples)
    later = made.batch(3)
    assert (later[0].shape, later[0].dtype) == ((2, 3, 32, 32), torch.float32)
    assert (later[1].shape, later[1].dtype) == ((2, 32, 32), torch.uint8)
    made.batch(0)
    fresh = pages(samples).batch(3)
    assert all(torch.equal(a, b) for a, b in zip(later, fresh, strict=True))
    assert not torch.equal(made.batch(4)[0], later[0])
    assert not torch.equal(pages(samples, seed=1).batch(3)[0], later[0])


def test_held_images_are_never_learned_from(samples):
    made = pages(samples, lessons=Lessons(scene=SCENE, held=0.25))
    assert [s.id for s in made.held] == [samples[0].id, samples[3].id]
    seen = []
    watched = [replace(s, load=lambda s=s: seen.append(s.id) or s.load()) for s in samples]
    made = pages(watched, lessons=Lessons(scene=SCENE, held=0.25))
    for step in range(12):
        made.batch(step)
    assert set(seen) == {s.id for s in samples} - {s.id for s in made.held}
    first, again = made.exam(), made.exam()
    assert [x.shape for x, _ in first] == [(2, 3, 32, 32)]
    assert torch.equal(first[0][0], again[0][0])


def test_a_large_data_set_is_not_kept_in_memory(samples, monkeypatch):
    size = 48 * 60 * 4
    monkeypatch.setattr("zerolabel.training.lessons.SHELF", 3 * size)
    seen = []
    watched = [replace(s, load=lambda s=s: seen.append(s.id) or s.load()) for s in samples]
    made = pages(watched, batch=7)
    made.batch(0)
    made.batch(1)
    assert len(seen) == 7 + 4


def test_unreadable_images_give_way(samples):
    def torn():
        raise DataError("torn label")

    odd = [replace(broken("a.png"), load_label=samples[0].load_label)]
    odd += [replace(samples[1], id="b.png", load_label=torn)]
    found, _ = run([*odd, *samples[:3]])
    assert found.failures == {"a.png": "cannot be read: torn", "b.png": "torn label"}
    with pytest.raises(DataError, match="None of the images could be read"):
        run(odd)
    with pytest.raises(DataError, match="None of the 1 images held out"):
        run([odd[0], *samples[:3]], lessons=Lessons(scene=SCENE, held=0.2))


def test_a_label_of_another_size_is_named(samples):
    odd = replace(samples[0], load_label=lambda: np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match=f"{odd.id}: Expected labels"):
        run([odd])


@pytest.mark.parametrize("held", [-0.1, 1.0])
def test_shares_that_cannot_be(held):
    with pytest.raises(UsageError, match="held is a share"):
        Lessons(scene=SCENE, held=held)


def test_something_must_be_left_to_learn_from(samples):
    with pytest.raises(UsageError, match="leaves none to learn from"):
        pages(samples[:1], lessons=Lessons(scene=SCENE, held=0.1))


# --- inspecting labels ---------------------------------------------------------------------------


def test_labels_are_counted(samples):
    seen = supervise.inspect(samples, classes=None, store=Store())
    assert len(seen.pixels) == K
    assert seen.pixels.sum() == 7 * 48 * 60


def test_labels_that_cannot_be_used(samples):
    odd = replace(samples[0], load_label=lambda: np.full((48, 60), 77, np.uint8))
    with pytest.raises(UsageError, match="found 77, e.g. in"):
        supervise.inspect([odd], classes=K, store=Store())
    void = replace(samples[0], load_label=lambda: np.full((48, 60), 255, np.uint8))
    with pytest.raises(DataError, match="No pixel of 1 labels has a class"):
        supervise.inspect([void], classes=None, store=Store())
