import argparse
import os
import pickle
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from reference.layouts import in_training, transformers_4, weights_of
from safetensors.torch import save_file

from zerolabel import backbones
from zerolabel.backbones import registry, weights
from zerolabel.backbones.layouts import convert
from zerolabel.errors import UsageError, WeightsError
from zerolabel.networks.vit import ARCHITECTURES, VitConfig

TINY = VitConfig(patch=4, dim=128, depth=2, heads=2, grid=3)
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize("nest", weights.NESTS)
def test_checkpoints_may_be_nested(nest, tmp_path):
    state = weights_of(TINY)
    torch.save({nest: in_training(state, TINY), "epoch": 3}, tmp_path / "checkpoint.pth")
    back = convert(weights.load_file(tmp_path / "checkpoint.pth"))
    assert weights.digest(back) == weights.digest(state)


def test_of_a_training_checkpoint_the_teacher_is_taken(tmp_path):
    teacher, student = weights_of(TINY, seed=1), weights_of(TINY, seed=2)
    torch.save({"student": student, "teacher": teacher}, tmp_path / "checkpoint.pth")
    back = convert(weights.load_file(tmp_path / "checkpoint.pth"))
    assert weights.digest(back) == weights.digest(teacher)


@pytest.mark.parametrize("zipped", [True, False])
def test_old_and_new_files_of_torch_are_read(zipped, tmp_path):
    path = tmp_path / "weights.bin"
    torch.save(weights_of(TINY), path, _use_new_zipfile_serialization=zipped)
    assert weights.digest(weights.load_file(path)) == weights.digest(weights_of(TINY))


class Malice:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {**weights_of(TINY), "args": Malice()}
    torch.save(content, "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="could run code"):
        weights.load_file("evil.pth")
    assert not Path("pwned").exists()


def test_a_full_dino_checkpoint_is_refused_with_advice(tmp_path):
    path = tmp_path / "full.pth"
    torch.save({"teacher": weights_of(TINY), "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(WeightsError, match=r"torch\.save\(checkpoint\['teacher'\]"):
        weights.load_file(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pth", b"no weights"),
        ("empty.pth", b""),
        ("plain.pth", pickle.dumps({"a": 1})),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        ("empty.safetensors", b""),
    ],
)
def test_files_that_hold_no_weights_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        weights.load_file(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(WeightsError, match="is not a file"):
            weights.load_file(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "log.pth")
    with pytest.raises(WeightsError, match="no tensors"):
        weights.load_file(tmp_path / "log.pth")


def test_the_digest_sees_names_shapes_types_and_values():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    other = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(4), "b": torch.tensor([1.0, 1.0 + 1e-6])},
    ]
    digests = {weights.digest(state) for state in [base, *other]}
    assert len(digests) == 5
    assert weights.digest({"b": torch.ones(2), "a": torch.zeros(4)}) == weights.digest(base)
    unusual = {"scalar": torch.tensor(1.5), "half": torch.ones(2).bfloat16()}
    assert len(weights.digest(unusual)) == 64


# Cache and hub, without a network.


def lay(home, repo, state, filename="model.safetensors"):
    """Lay a file into a Hugging Face cache by hand."""
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    path = folder / "snapshots" / COMMIT / filename
    path.parent.mkdir(parents=True)
    if filename.endswith(".bin"):
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty Hugging Face home, with the hub switched off."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def tiny_dino(monkeypatch):
    """The registry's dino-vits16 with a network small enough for tests."""
    size = replace(ARCHITECTURES["vit-small"], dim=128, depth=2, heads=2)
    monkeypatch.setitem(ARCHITECTURES, "vit-small", size)
    return replace(TINY, patch=16)


@pytest.mark.parametrize("filename", registry.FILENAMES)
def test_cached_weights_are_found_and_loaded(filename, home, tiny_dino):
    state = weights_of(tiny_dino)
    path = lay(home, "facebook/dino-vits16", transformers_4(state, tiny_dino), filename)
    assert weights.find(registry.entry("dino-vits16")) == path
    assert weights.get("dino-vits16") == path
    backbone = backbones.load("dino-vits16", device="cpu")
    assert backbone.digest == weights.digest(state)
    assert (backbone.name, backbone.stride, backbone.dim) == ("dino-vits16", 16, 128)


def test_missing_weights_are_an_error_that_helps(home):
    with pytest.raises(WeightsError) as caught:
        backbones.load("dino-vits16", device="cpu")
    message = str(caught.value)
    for part in ("zerolabel models get dino-vits16", "87 MB", "Apache-2.0", "--weights FILE"):
        assert part in message
    assert "--backbone embedded" in message


def test_getting_weights_offline_fails_at_once(home):
    start = time.perf_counter()
    with pytest.raises(WeightsError, match="on a machine with a network"):
        weights.get("dino-vits16")
    assert time.perf_counter() - start < 5


def test_getting_no_weights_is_an_error():
    with pytest.raises(UsageError, match="needs no weights"):
        weights.get("filterbank")
    with pytest.raises(UsageError, match="Unknown backbone"):
        weights.get("dino-vits17")


def test_a_file_with_another_hash_is_refused(home, monkeypatch):
    item = replace(registry.entry("dino-vits16"), sha256="0" * 64)
    monkeypatch.setitem(registry.BACKBONES, "dino-vits16", item)
    path = lay(home, "facebook/dino-vits16", weights_of(TINY))
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}"):
        weights.get("dino-vits16")
    item = replace(item, sha256=weights._sha256(path))
    monkeypatch.setitem(registry.BACKBONES, "dino-vits16", item)
    assert weights.get("dino-vits16") == path


GET = "from zerolabel.backbones.weights import get; get('dino-vits16')"


def run_get(tmp_path, **env):
    env = {**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": "*", "no_proxy": "*", **env}
    env.pop("HF_HUB_ETAG_TIMEOUT", None)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", GET], env=env, capture_output=True, text=True)
    return done, time.perf_counter() - start


def test_the_offline_switch_of_the_hub_is_obeyed(tmp_path):
    done, seconds = run_get(tmp_path, HF_HUB_OFFLINE="1")
    assert "WeightsError: The weights of dino-vits16 could not be fetched" in done.stderr
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("listening", [True, False], ids=["silent", "closed"])
def test_a_host_that_does_not_answer_is_given_up_soon(listening, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        done, seconds = run_get(tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
    assert "WeightsError: The weights of dino-vits16 could not be fetched" in done.stderr
    assert seconds < weights.PATIENCE + 3  # the start of Python on a busy machine included


def test_waiting_is_bounded_even_where_a_call_knows_no_timeout():
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match="no answer"):
        weights._within(0.05, lambda: time.sleep(2))
    assert time.perf_counter() - start < 1


def test_a_repository_without_the_first_file_is_asked_for_the_second(monkeypatch, tmp_path):
    from huggingface_hub import errors, file_download

    class Missing(errors.EntryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    asked = []

    def metadata(url, **_):
        asked.append(url.rsplit("/", 1)[1])
        if url.endswith(".safetensors"):
            raise Missing

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(file_download, "get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file: f"/{repo}/{file}")
    assert weights.get("dino-vits16") == Path("/facebook/dino-vits16/pytorch_model.bin")
    assert asked == list(registry.FILENAMES)
    item = replace(registry.entry("dino-vits16"), filenames=("model.safetensors",))
    with pytest.raises(WeightsError, match="has none of model.safetensors"):
        weights._download(item)
