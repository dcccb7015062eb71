"""The job pretrain: what it leaves on disk, what it refuses, and how it goes on."""

import io
import json
import signal
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from zerolabel import backbones
from zerolabel.cli.pretrain import pretrain as command
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.pretrain import pretrain
from zerolabel.jobs.pretraining.options import Options
from zerolabel.training import loop

SMALL = {
    "arch": "vit-nano",
    "global_size": 32,
    "hidden": 16,
    "bottleneck": 8,
    "batch": 4,
    "warmup": 0.25,
}


def options(**changes):
    settings = {**SMALL, **changes.pop("settings", {})}
    return Options(**{"preset": "cpu", "side": 32, "steps": 4, "settings": settings, **changes})


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for sample in world(3, images=8, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


def write_pack(path, *, labels=True, count=10):
    blobs = []
    for sample in world(2, images=count, size=(32, 32), per_image=2):
        buffer = io.BytesIO()
        Image.fromarray(sample.load()).save(buffer, "PNG")
        blobs.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, blobs)])
    arrays = {"data": np.concatenate(blobs), "offsets": offsets.astype(np.int64)}
    if labels:
        arrays["labels"] = (np.arange(count) % 2).astype(np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack") / "pack.npz")


@pytest.fixture(autouse=True)
def _no_plug_is_pulled(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def weights(run):
    return backbones.load("mine", weights=run / "backbone.safetensors", device="cpu")


def test_what_a_run_leaves(photos, pack, tmp_path):
    found = pretrain([photos, pack], tmp_path / "run", options=options(knn=pack, shares=(2, 1)))
    assert (found.steps, found.images, found.failures) == (4, 16, {})
    assert found.knn is not None
    assert 0 <= found.knn <= 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4]
    assert np.isfinite(lines[0]["loss"])
    assert lines[0]["knn"] == found.knn
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "4 of 4 steps" in page
    facts = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    assert facts["settings"]["arch"] == "vit-nano"
    # a long image gives two squares
    assert facts["images"] == [[photos.name, 16], ["pack.npz", 10]]
    backbone = weights(tmp_path / "run")
    assert (backbone.dim, backbone.stride, backbone.net.config.conv_stem) == (128, 8, True)
    assert backbone.net.config.grid == 4


def test_minutes_fix_the_number_of_steps(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "RATE_FROM", 1)
    monkeypatch.setattr(loop, "RATE_TO", 3)
    given = options(steps=0, minutes=0.02, save_every=0.0)
    found = pretrain([photos], tmp_path / "run", options=given)
    facts = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    assert facts["total"] == found.steps > 3


class CutError(Exception):
    """The end of a process."""


@pytest.mark.parametrize("how", ["killed", "asked"])
def test_an_interrupted_run_ends_with_the_same_weights(photos, tmp_path, how):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain([photos], whole, options=options())

    def stop(work, done, total):
        if work == "train" and done == 8:
            if how == "killed":
                raise CutError
            signal.raise_signal(signal.SIGINT)

    error = CutError if how == "killed" else KeyboardInterrupt
    # asked to stop it writes a checkpoint at once; killed it has that of the last save
    often = {"save_every": 0.0} if how == "killed" else {}
    with pytest.raises(error):
        pretrain([photos], cut, options=options(**often), progress=stop)
    assert not (cut / "backbone.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = pretrain([photos], cut, options=options())
    assert done.steps == 4
    same = [(run / "backbone.safetensors").read_bytes() for run in (whole, cut)]
    assert same[0] == same[1]
    again = pretrain([photos], cut, options=options())  # nothing is left to do
    assert again.steps == 4
    assert (cut / "backbone.safetensors").read_bytes() == same[0]


def test_another_thread_cannot_hear_signals_and_trains_all_the_same(photos, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(pretrain([photos], tmp_path / "run", options=options(steps=1)))
    )
    thread.start()
    thread.join()
    assert found[0].steps == 1


def test_other_settings_images_or_lengths_are_refused(photos, pack, tmp_path):
    run = tmp_path / "run"
    pretrain([photos], run, options=options(steps=2))
    before = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(StoreError, match=r"other settings: lr was .*another --out"):
        pretrain([photos], run, options=options(steps=2, settings={"lr": 0.5}))
    with pytest.raises(StoreError, match="other length"):
        pretrain([photos], run, options=options(steps=3))
    with pytest.raises(StoreError, match="other data"):
        pretrain([pack], run, options=options(steps=2))
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "one of --steps, --epochs and --minutes"),
        ({"minutes": 1.0}, "one of --steps, --epochs and --minutes"),
        ({"steps": 0, "epochs": 0.01}, "not one batch"),
        ({"preset": "gpu"}, "Unknown preset"),
        ({"amp": "fp8"}, "Unknown amp"),
        ({"shares": (1, 1)}, "one share of at least 1 for each of the 1"),
        ({"settings": {"objective": "dyno"}}, "Did you mean 'dino'"),
        ({"settings": {"dense": "ibot"}}, "symmetric=true"),
        ({"settings": {"batch": 1}}, "at least 2"),
        ({"settings": {"arch": "vit-huge"}}, "Unknown arch"),
        ({"settings": {"global_size": 36}}, "multiple of the patch"),
        ({"settings": {"patch": 12, "global_size": 48, "local_size": 24}}, "patch of 2, 4, 8"),
        ({"settings": {"learning": 1}}, "Unknown setting"),
    ],
)
def test_wrong_options_fail_with_words(photos, tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        pretrain([photos], tmp_path / "run", options=options(**changes))


def test_too_few_images_for_a_batch(photos, tmp_path):
    with pytest.raises(DataError, match="16 images, fewer than a batch of 32"):
        pretrain([photos], tmp_path / "run", options=options(settings={"batch": 32}))


def test_going_on_from_weights(photos, tmp_path):
    first = pretrain([photos], tmp_path / "first", options=options(steps=1))
    start = weights(tmp_path / "first").net.state_dict()
    frozen = {"lr": 1e-12, "lr_end": 1e-12, "decay": "0.001"}
    given = options(steps=1, init=str(first.weights), settings=frozen)
    pretrain([photos], tmp_path / "second", options=given)
    for name, value in weights(tmp_path / "second").net.state_dict().items():
        torch.testing.assert_close(value, start[name], rtol=1e-3, atol=1e-5)
    mini = options(init=str(first.weights), settings={"arch": "vit-mini"})
    with pytest.raises(UsageError, match="has arch vit-nano, but vit-mini was asked for"):
        pretrain([photos], tmp_path / "third", options=mini)


def test_damaged_inputs(photos, pack, tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(pack.read_bytes()[:100])
    with pytest.raises(DataError, match="is not a pack of images"):
        pretrain([broken], tmp_path / "run", options=options())
    unlabelled = write_pack(tmp_path / "unlabelled.npz", labels=False)
    with pytest.raises(DataError, match="needs a labelled pack"):
        pretrain([photos], tmp_path / "run", options=options(knn=unlabelled))
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(StoreError, match="is damaged"):
        pretrain([photos], tmp_path / "run", options=options())


def test_the_command(photos, tmp_path):
    bad = tmp_path / "photos"
    bad.mkdir()
    for path in photos.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "broken.png").write_bytes(b"no picture")
    flags = ["--steps", "1", "--batch", "4", "--arch", "vit-nano", "--side", "32"]
    flags += ["--set", "global_size=32", "--set", "momentum=0.9,1.0", "--shares", "1"]
    out = tmp_path / "run"
    found = CliRunner().invoke(
        command, [str(bad), "--out", str(out), *flags], standalone_mode=False
    )
    assert found.return_value == 3, found.output
    assert "1 image could not be read" in found.output
    assert str(out / "backbone.safetensors") in found.output
    facts = json.loads((out / "pretrain.json").read_text())
    assert facts["settings"]["momentum"] == [0.9, 1.0]
    assert list(facts["failures"]) == ["photos/broken.png"]
    wrong = CliRunner().invoke(command, [str(bad), "--out", str(out), "--shares", "3;1"])
    assert wrong.exit_code == 2
    assert "whole numbers such as 3,1" in wrong.output
