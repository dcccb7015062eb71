"""TransFGU with other students, and with the epoch that labels like best."""

from dataclasses import replace

import pytest
import torch
from planted import broken, fitted, small_bank, tiny_vit
from safetensors.torch import save_file

from zerolabel.data.synthetic import world
from zerolabel.errors import UsageError, WeightsError
from zerolabel.methods import find
from zerolabel.methods.configs import configure
from zerolabel.networks.resnet import ResNetConfig, random_resnet
from zerolabel.networks.students import IMAGES, KINDS, OWN
from zerolabel.stages import exams, learners, parts
from zerolabel.store import Store
from zerolabel.training.selection import SelectingTrainer

BODY = ResNetConfig("basic", (1, 1, 1, 1), width=8)
SMALL = {
    "k": 3,
    "size": (64, 64),
    "zoom": 1.0,
    "crop_size": 32,
    "prior": False,
    "batch": 2,
    "epochs": 3,
    "repeat": 1,
    "start": 1,
    "intervals": (1,),
}


@pytest.fixture(scope="module")
def samples():
    return world(3, images=4, size=(64, 64))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with a small residual network."""
    path = tmp_path_factory.mktemp("weights") / "body.safetensors"
    save_file(random_resnet(BODY, seed=5).state_dict(), path)
    return str(path)


def fit(samples, kind="segmenter", *, weights="", store=None, **changes):
    own = {"student": kind, "student_weights": weights if kind in IMAGES else ""}
    return fitted("transfgu", samples, backbone=tiny_vit(), store=store, **SMALL | own | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_student_learns_and_decides(kind, samples, weights):
    bad = broken("torn.png")
    made, store = fit([*samples, bad], kind, weights=weights)
    found, failures = made.evidence([*samples, bad], store=store)
    assert [sample.id for sample, _ in found] == [sample.id for sample in samples]
    assert set(failures) == {bad.id}
    assert all(e.scores.shape == (3, 8, 8) for _, e in found)
    assert len(made.losses) == 6
    assert made.evidence([bad], store=store) == ([], {bad.id: failures[bad.id]})
    assert made.look_into(samples[0], store=store).parts.shape == (8, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_and_after_a_rest(kind, samples, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "KEEP", 2)
    options = {"weights": weights, "select": "labels"}
    expected, _ = fit(samples, kind, **options)
    learn, done = SelectingTrainer.learn, []

    def stops(self, *args):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return learn(self, *args)

    monkeypatch.setattr(SelectingTrainer, "learn", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(samples, kind, store=Store(tmp_path), **options)
    monkeypatch.setattr(SelectingTrainer, "learn", learn)
    found, _ = fit(samples, kind, store=Store(tmp_path), **options)
    assert found.notes == expected.notes
    assert found.losses == pytest.approx(expected.losses)
    for name, value in expected.arrays.items():
        assert torch.equal(found.arrays[name].reshape(value.shape), value), name


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_a_residual_network_starts_from_its_file_and_learns(kind, samples, weights):
    made, _ = fit(samples, kind, weights=weights, epochs=1)
    start = random_resnet(BODY, seed=5).state_dict()
    name = "layer1.0.conv1.weight"
    moved = made.arrays[f"student.{OWN}{name}"] - start[name]
    assert 0 < moved.abs().max() < 1e-3  # one epoch of two steps, each of about 1e-4


def test_a_model_needs_no_file_of_weights(samples, weights, monkeypatch):
    made, store = fit(samples, "r50-fpn-conv", weights=weights)
    expected = made.evidence(samples, store=store)[0][0][1].scores
    monkeypatch.setattr(learners, "load_file", None)
    kind = find("transfgu")
    again = kind(made.config, made.backbone)
    again.arrays = dict(made.arrays)
    assert torch.equal(again.evidence(samples, store=Store())[0][0][1].scores, expected)


def test_the_best_epoch_by_labels_is_kept(samples, monkeypatch):
    told = iter((0.3, 0.9, 0.5))
    states = []

    def judge(student, exam, *, shards):
        states.append({k: v.clone() for k, v in student.state_dict().items()})
        return next(told)

    monkeypatch.setattr(exams, "judge", judge)
    made, _ = fit(samples, select="labels")
    assert len(states) == 3
    [note] = made.notes
    assert note.startswith("labels: ")
    assert "epoch 2 of 3" in note
    for name, value in states[1].items():
        assert torch.equal(made.arrays[f"student.{name}"], value)
    assert not torch.equal(states[1]["cls_emb"], states[2]["cls_emb"])


def test_judging_changes_nothing_but_the_choice(samples):
    states = []
    for select in ("last", "labels"):
        made, _ = fit(samples, select=select, epochs=1)
        states.append(made.arrays)
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_other_labels_are_another_training(samples):
    store = Store()
    fit(samples, select="labels", store=store)
    before = len(store.computed)
    fit(samples, select="labels", store=store)
    assert len(store.computed) == before
    fit([replace(samples[0], load_label=None), *samples[1:]], select="labels", store=store)
    assert len(store.computed) > before


def test_without_labels_there_is_nothing_to_select_by(samples):
    bare = [replace(sample, load_label=None) for sample in samples]
    with pytest.raises(UsageError, match="select=last"):
        fit(bare, select="labels")
    made, _ = fit(bare)
    assert made.notes == []


def test_settings_that_cannot_be_are_refused(samples, tmp_path):
    kind = find("transfgu")

    def make(backbone=None, **changes):
        return kind(configure(kind.PRESETS, "default", changes), backbone or tiny_vit())

    with pytest.raises(UsageError, match="r50-fpn-conv"):
        make(student="r50")
    with pytest.raises(UsageError, match="labels"):
        make(select="label")
    with pytest.raises(UsageError, match="trains nothing"):
        make(select="labels", train="initial")
    with pytest.raises(UsageError, match="has none"):
        make(student_weights="resnet.pth")
    with pytest.raises(UsageError):
        make(small_bank())
    with pytest.raises(WeightsError, match="is not a file"):
        fit(samples, "r50-fpn-conv", weights=str(tmp_path / "none.pth"))
