"""A training in parts: killed anywhere, it ends as if nothing had happened."""

import pytest
import torch

from zerolabel.stages import parts
from zerolabel.stages.parts import arrays_of, forget, resume, train_in_parts
from zerolabel.store import Store

NAME, KEEP, STEPS = "decoder/0123456789abcdef01234567", 5, 17


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Parts of five steps, and a loss for every two: no part ends where a loss does."""
    monkeypatch.setattr(parts, "KEEP", KEEP)
    monkeypatch.setattr(parts, "LOOKS", 8)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return Store(tmp_path if request.param == "disk" else None)


class Killed(BaseException):
    """Like the end of the process."""


class Sum:
    """Adds up what it learns, in place."""

    def __init__(self):
        self.step, self.total = 0, torch.zeros(2)

    def state(self):
        return {"total": self.total, "step": torch.tensor(self.step)}

    def restore(self, state):
        self.total, self.step = state["total"].clone(), int(state["step"])

    def learn(self):
        self.step += 1
        self.total += torch.tensor([self.step, 1 / self.step])
        return float(self.total[1])


def train(store, *, steps=STEPS, kill=None):
    trainer, done = Sum(), []

    def learn():
        if trainer.step == kill:
            raise Killed
        done.append(trainer.step)
        return trainer.learn()

    losses = train_in_parts(NAME, trainer, learn, steps=steps, store=store)
    return trainer, losses, done


def kept(store):
    if store.root is None:
        names = list(store._memory)
    else:
        names = [path.stem for path in store.root.rglob("*.safetensors")]
    return sorted(int(name.rpartition("-")[2]) for name in names)


@pytest.mark.parametrize("kill", [0, 3, 5, 6, 10, 12, 16])
def test_a_killed_training_goes_on_where_it_was(store, kill):
    trainer, losses, done = train(Store())
    assert done == list(range(STEPS))
    with pytest.raises(Killed):
        train(store, kill=kill)
    assert kept(store) == ([kill // KEEP * KEEP] if kill >= KEEP else [])  # the last one
    again, same, done = train(store)
    assert done == list(range(kill // KEEP * KEEP, STEPS))
    assert torch.equal(trainer.total, again.total)
    assert same == losses
    forget(NAME, steps=STEPS, store=store)
    assert kept(store) == []


def test_kills_upon_kills(store):
    trainer, losses, _ = train(Store())
    for kill in (4, 7, 8, 11, 16):
        with pytest.raises(Killed):
            train(store, kill=kill)
    again, same, _ = train(store)
    assert (again.total.tolist(), same) == (trainer.total.tolist(), losses)


@pytest.mark.parametrize(("steps", "looks"), [(1, [1]), (8, [*range(1, 9)]), (17, [2, 4, 6])])
def test_losses_are_means_since_the_one_before(store, steps, looks):
    _, losses, _ = train(store, steps=steps)
    assert [int(step) for step in losses][: len(looks)] == looks
    assert [*losses][-1] == str(steps)  # the end is always there
    every, trainer, start = [], Sum(), 0
    while trainer.step < steps:
        every.append(trainer.learn())
    for step, loss in losses.items():
        assert loss == pytest.approx(sum(every[start : int(step)]) / (int(step) - start))
        start = int(step)


def test_no_steps_are_none(store):
    trainer, losses, done = train(store, steps=0)
    assert (trainer.step, losses, done) == (0, {}, [])


def test_progress_is_reported_to_the_end():
    said = []
    train(Store(report=lambda *words: said.append(words)))
    assert said[-1] == ("train", STEPS, STEPS)
    assert said == sorted(said)


def test_nothing_to_resume(store):
    trainer = Sum()
    assert resume(NAME, trainer, steps=STEPS, store=store) is None
    assert trainer.step == 0


def test_what_is_kept_does_not_learn_on():
    value = torch.zeros(3, requires_grad=True)
    arrays = arrays_of({"a": value})
    with torch.no_grad():
        value += 1
    assert arrays["a"].tolist() == [0, 0, 0]


def test_a_damaged_part_counts_as_none(tmp_path):
    trainer, losses, _ = train(Store())
    with pytest.raises(Killed):
        train(Store(tmp_path), kill=12)
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    again, same, done = train(Store(tmp_path))
    assert done == list(range(STEPS))
    assert (again.total.tolist(), same) == (trainer.total.tolist(), losses)
