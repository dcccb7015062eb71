"""A student learns masks as a stage: resumed, held out, stopped early, squashed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import broken
from reference.pupils import spoilt

from zerolabel.backbones.pupils import Student, start
from zerolabel.backbones.student import normalise
from zerolabel.data.folder import from_arrays
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, UsageError
from zerolabel.ops.resize import resize
from zerolabel.stages import denoise, parts
from zerolabel.store import Store
from zerolabel.training.denoise import DenoiseTrainer
from zerolabel.training.lessons import Lessons, Pages
from zerolabel.training.scenes import SceneConfig
from zerolabel.training.supervised import SupervisedTraining

K, SIZE = 3, (32, 40)
LESSONS = Lessons(scene=SceneConfig(short=32, crop=32), held=0.25)
STUDENTS = {
    "light": Student(arch="vit-nano", start="random"),
    "deeplabv3": Student(network="deeplabv3", arch="small", start="random"),
}


@pytest.fixture(scope="module")
def samples():
    return spoilt(world(K, images=8, size=(48, 60)), K=K)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(denoise, "LEAST", 1)


class StoppedError(Exception):
    """Somebody pressed a key."""


def run(
    samples,
    store=None,
    *,
    kind="light",
    lessons=LESSONS,
    patience=9,
    seed=0,
    balance=0.0,
    pixels=(1,) * K,
    facts=(),
    **changes,
):
    settings = {"iterations": 8, "batch": 2, "lr": 1e-3, "optimiser": "adamw", "seed": seed}
    training = SupervisedTraining(**settings | changes)
    return denoise.train(
        start(STUDENTS[kind], classes=K, seed=seed),
        training,
        lessons,
        patience=patience,
        samples=samples,
        size=SIZE,
        balance=balance,
        pixels=pixels,
        facts=facts,
        device=torch.device("cpu"),
        store=store or Store(),
    )


@pytest.fixture
def steps(monkeypatch):
    """Steps that were really done; raise in the one whose number is put into `stop`."""
    done, stop = [], []
    learn = DenoiseTrainer.learn

    def watched(self, images, labels):
        if stop and self.step == stop[0]:
            raise StoppedError
        done.append(self.step)
        return learn(self, images, labels)

    monkeypatch.setattr(DenoiseTrainer, "learn", watched)
    return done, stop


def same(one, other):
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert (one.losses, one.held, one.failures) == (other.losses, other.held, other.failures)


def test_weights_losses_and_nothing_done_twice(samples, steps, tmp_path):
    first = run(samples, Store(tmp_path))
    assert steps[0] == list(range(8))
    assert list(first.losses) == list(range(1, 9))
    assert list(first.held) == [3, 6, 8]  # 6 images in batches of 2, and the end
    assert first.failures == {}
    assert {name.split(".")[0] for name in first.weights} == {"encoder", "decoder"}
    again = run(samples, Store(tmp_path))
    assert len(steps[0]) == 8
    same(first, again)
    same(first, run(samples))


def test_whatever_decides_the_result_is_in_the_name(samples, steps, tmp_path):
    for changes in (
        {},
        *({"lr": 2e-3}, {"seed": 1}, {"kind": "deeplabv3"}, {"patience": 8}),
        *({"lessons": replace(LESSONS, distort=False)}, {"facts": ("other",)}),
    ):
        before = len(steps[0])
        run(samples, Store(tmp_path), **changes)
        assert len(steps[0]) == before + 8, changes


@pytest.mark.parametrize("kind", STUDENTS)
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_an_interrupted_training_goes_on_bit_for_bit(
    kind, stop, samples, steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "KEEP", 2)
    monkeypatch.setattr(parts, "LOOKS", 2)
    whole = run(samples, kind=kind)
    store = Store(tmp_path)
    steps[1].append(stop)
    with pytest.raises(StoppedError):
        run(samples, store, kind=kind)
    assert len(list(tmp_path.rglob("*.safetensors"))) <= 1  # only the last part is kept
    steps[1].clear()
    steps[0].clear()
    found = run(samples, store, kind=kind)
    assert steps[0] == list(range(stop // 2 * 2, 8))
    same(whole, found)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1  # and in the end only the result


def rising(monkeypatch, losses):
    """Let the loss on what is held out be these, one after the other."""
    found = iter(losses)
    monkeypatch.setattr(DenoiseTrainer, "measure", lambda self, x, y: next(found))


def test_it_stops_early_and_keeps_the_best(samples, steps, monkeypatch, tmp_path):
    rising(monkeypatch, [3.0, 2.0, 2.5, 2.25])
    found = run(samples, Store(tmp_path), iterations=60, patience=2)
    assert steps[0] == list(range(12))
    assert found.held == {3: 3.0, 6: 2.0, 9: 2.5, 12: 2.25}
    assert max(found.losses) == 12
    assert denoise.words(found, SupervisedTraining(iterations=60)) == (
        "weights of step 6, stopped after 12 of 60: there the loss on masks held out was lowest, "
        "2.000"
    )
    rising(monkeypatch, [3.0, 2.0, 1.0, 0.5])
    same(found, run(samples, Store(tmp_path), iterations=60, patience=2))  # what is kept
    rising(monkeypatch, [2.0])
    steps[1].append(6)
    weights = {}

    def judge(self, loss):
        weights.update({k: v.clone() for k, v in self.net.state_dict().items()})

    monkeypatch.setattr(DenoiseTrainer, "judge", judge)
    rising(monkeypatch, [3.0, 2.0])
    with pytest.raises(StoppedError):
        run(samples, iterations=60, patience=2)
    assert all(torch.equal(found.weights[name], weights[name]) for name in weights)


def test_a_killed_training_that_stops_early_ends_the_same(samples, steps, monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "KEEP", 4)
    losses = [3.0, 2.0, 2.5, 2.25]
    rising(monkeypatch, losses)
    whole = run(samples, iterations=40, patience=2)
    rising(monkeypatch, losses)
    steps[1].append(10)
    with pytest.raises(StoppedError):
        run(samples, Store(tmp_path), iterations=40, patience=2)
    steps[1].clear()
    rising(monkeypatch, losses[2:])  # the first two are kept with the part of step 8
    same(whole, run(samples, Store(tmp_path), iterations=40, patience=2))


def test_what_is_held_out_is_judged_by_its_masks_alone(samples, monkeypatch):
    """Nothing but the photo and the mask of a sample is ever asked for."""

    def never():
        raise AssertionError("somebody looked at the truth")

    closed = [replace(s, load_regions=never, load_bands=never) for s in samples]
    found = run(closed)
    training = SupervisedTraining(iterations=8, batch=2, lr=1e-3, optimiser="adamw")
    most = (SIZE[0] * 2, SIZE[1] * 2)
    pages = Pages([denoise.squashed(s, most) for s in samples], LESSONS, training)
    assert [s.id for s in pages.held] == [samples[0].id, samples[4].id]
    trainer = DenoiseTrainer(start(STUDENTS["light"], classes=K, seed=0).net, training, patience=9)
    for step in range(3):
        images, labels = pages.batch(step)
        trainer.learn(normalise(images), labels)
    by_hand = np.mean([trainer.measure(normalise(x), y) for x, y in pages.exam()])
    assert found.held[3] == pytest.approx(float(by_hand))
    for x, y in pages.exam():  # and these are crops of the masks, noise and all
        assert x.shape[0] == y.shape[0] == 2
        assert (y == 255).any()


@pytest.mark.parametrize(("least", "looks"), [(3, [3, 6, 8]), (4, [6, 8]), (7, [8])])
def test_looks_are_whole_epochs_apart(least, looks, samples, monkeypatch):
    monkeypatch.setattr(denoise, "LEAST", least)
    assert list(run(samples).held) == looks


def test_nothing_held_out_nothing_judged(samples):
    found = run(samples, lessons=replace(LESSONS, held=0.0))
    assert found.held == {}
    assert "none of the images held out" in denoise.words(found, SupervisedTraining(iterations=8))


def test_unreadable_images_are_left_out_and_named(samples):
    torn = replace(broken("world-000-torn.png"), load_label=samples[0].load_label)
    found = run([*samples, torn], iterations=5)
    assert found.failures == {"world-000-torn.png": "cannot be read: torn"}
    with pytest.raises(DataError, match="could be read"):
        run([torn], lessons=replace(LESSONS, held=0.0))
    with pytest.raises(UsageError, match="none to learn from"):
        run(samples[:1])


# --- what a student sees -------------------------------------------------------------------------


def test_images_are_squashed_and_masks_to_the_nearest_pixel():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    mask = rng.integers(0, 250, (60, 88), dtype=np.uint8)  # of another size than the photo
    sample = denoise.squashed(from_arrays("a.png", image, mask), (15, 22))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = resize(tensor, (15, 22), mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert np.array_equal(sample.load(), expected)
    assert sample.load().dtype == np.uint8
    assert np.array_equal(sample.load_label(), mask[2::4, 2::4])
    plain = denoise.squashed(from_arrays("a.png", image), (15, 22))
    assert plain.load_label is None


@pytest.mark.parametrize("kind", STUDENTS)
def test_looking_gives_probabilities(kind):
    net = start(STUDENTS[kind], classes=K, seed=0).net.eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    found = denoise.look(net, images)
    assert found.shape == (2, K, 32 // net.stride, 48 // net.stride)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
    with torch.no_grad():
        torch.testing.assert_close(found, net(normalise(images)).softmax(1))
