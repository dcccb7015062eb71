"""The run directory: whole files only, no stage done twice, one job at a time."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from zerolabel import store as store_module
from zerolabel.backbones import cache
from zerolabel.errors import StoreError, UsageError
from zerolabel.store import (
    BY_CONTENT,
    Stage,
    Store,
    open_whole,
    read_json,
    read_stage,
    write_bytes,
    write_json,
)
from zerolabel.types import Sample


def files(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "er" / "a.bin"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert files(tmp_path) == ["deep/er/a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_refusing_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(StoreError, match=r"a\.bin") as error:
        write_bytes(path, b"new")
    assert ("disk is full" in str(error.value)) == (number == errno.ENOSPC)
    assert ("another folder" in str(error.value)) == (number == errno.EACCES)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_stream_leaves_nothing(tmp_path, error):
    with pytest.raises(error), open_whole(tmp_path / "a.bin") as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert files(tmp_path) == []


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


def test_json_holds_any_name_and_comes_back(tmp_path):
    value = {"b": "ä 日本 \udce9", "a": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]
    assert "日本" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StoreError, match="is not there"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StoreError, match=r"a\.json cannot be read"):
        read_json(tmp_path / "a.json")


# --- stages --------------------------------------------------------------------------------------

ARRAYS = {
    "x": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "none": np.zeros((0, 5), np.int16),
    "flags": np.array([True, False]),
    "count": np.array(7),  # without an axis, as a batch norm counts
}


def check(stage):
    assert stage.info == {"failures": {"ä.jpg": "why"}, "n": 3}
    assert set(stage.arrays) == set(ARRAYS)
    for name, value in ARRAYS.items():
        assert stage.arrays[name].dtype == value.dtype
        assert stage.arrays[name].shape == value.shape
        np.testing.assert_array_equal(stage.arrays[name], value)


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    return Store(tmp_path / "run" if request.param == "disk" else None)


def test_a_stage_is_done_once(place):
    calls = []

    def work():
        calls.append(1)
        return Stage(dict(ARRAYS), {"failures": {"ä.jpg": "why"}, "n": 3})

    assert place.peek("a/b") is None
    for _ in range(3):
        check(place.stage("a/b", work))
    check(place.peek("a/b"))
    assert len(calls) == 1
    assert place.computed == ["a/b"]


def test_what_is_named_by_content_is_shared_and_nothing_else(tmp_path):
    made = []

    def work(name):
        made.append(name)
        return Stage({"a": np.arange(3)})

    content = f"tokens/{'0123456789ab' * 2}"
    for run in ("one", "two"):
        store = Store(tmp_path / run, shared=tmp_path / "shared")
        for name in (content, "model", "masks/00000"):
            store.stage(name, lambda name=name: work(name))
    assert made == [content, "model", "masks/00000", "model", "masks/00000"]
    assert (tmp_path / "shared" / f"{content}.safetensors").exists()
    assert not (tmp_path / "one" / "cache" / "tokens").exists()
    assert Store(tmp_path / "three").peek(content) is None


def test_names_of_features_are_named_by_content():
    sample = Sample("a", load=lambda: None, digest=lambda: "00")
    assert BY_CONTENT.search(cache.key("tokens", [sample], "facts"))
    assert not BY_CONTENT.search("masks/00003")


def test_forgetting_drops_a_stage_and_what_is_below(place):
    for name in ("a", "a/b", "ab"):
        place.stage(name, Stage)
    place.forget("a")
    assert [place.peek(name) is None for name in ("a", "a/b", "ab")] == [True, True, False]
    place.forget("never")


def test_another_process_finds_the_stage(tmp_path):
    Store(tmp_path).stage("a", lambda: Stage({"x": np.ones(2)}, {"n": 1}))
    again = Store(tmp_path)
    assert again.stage("a", lambda: pytest.fail("done twice")).info == {"n": 1}
    assert again.computed == []


def test_a_failed_stage_is_not_done(place):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.stage("a", fail)
    assert place.peek("a") is None
    assert place.stage("a", lambda: Stage(info={"n": 2})).info == {"n": 2}


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_stage_is_done_again(tmp_path, damage, caplog):
    run = Store(tmp_path)
    run.stage("a", lambda: Stage({"x": np.ones(100)}))
    path = tmp_path / "cache" / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    with pytest.raises(StoreError, match="damaged"):
        read_stage(path)
    again = run.stage("a", lambda: Stage({"x": np.zeros(100)}))
    assert not again.arrays["x"].any()
    assert "damaged" in caplog.text


def test_a_full_disk_keeps_the_finished_stages(tmp_path, monkeypatch):
    run = Store(tmp_path)
    run.stage("a", lambda: Stage(info={"n": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(StoreError, match="disk is full"):
            run.stage("b", Stage)
    assert files(tmp_path) == ["cache/a.safetensors"]
    assert run.stage("b", lambda: Stage(info={"n": 2})).info == {"n": 2}


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path).stage("a", Stage)


# --- batches -------------------------------------------------------------------------------------


def test_batches_are_cut_in_order_and_reported():
    said = []
    run = Store(report=lambda *words: said.append(words))
    batches = [(i, list(batch)) for i, batch in run.track("masks", list("abcde"), 2)]
    assert batches == [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["e"])]
    assert said == [("masks", 0, 5), ("masks", 2, 5), ("masks", 4, 5), ("masks", 5, 5)]


def test_time_is_added_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(store_module.time, "perf_counter", lambda: now[0])
    run = Store()
    for _ in range(2):
        for _ in run.track("masks", [1, 2, 3], 1):
            now[0] += 1.5
    with run.timed("k"):
        now[0] += 2
    assert run.seconds == {"masks": 9.0, "k": 2.0}


def test_only_a_store_with_a_directory_has_one(tmp_path):
    assert Store(str(tmp_path)).directory == tmp_path
    with pytest.raises(UsageError, match="give out"):
        _ = Store().directory


# --- the lock ------------------------------------------------------------------------------------


def test_one_job_at_a_time(tmp_path):
    with Store(tmp_path / "run").lock():
        with (
            pytest.raises(StoreError, match="Another job is working in"),
            Store(tmp_path / "run").lock(),
        ):
            pass
        with Store(tmp_path / "other").lock(), Store().lock():
            pass
    with Store(tmp_path / "run").lock():
        pass


def test_the_lock_goes_with_an_exception(tmp_path):
    with pytest.raises(ValueError, match="x"), Store(tmp_path).lock():
        raise ValueError("x")
    with Store(tmp_path).lock():
        pass


HOLD = """
import sys, time
from zerolabel.store import Store
with Store(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="Another job"), Store(tmp_path).lock():
            pass
        process.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:  # the system closes the file in its own time
        try:
            with Store(tmp_path).lock():
                return
        except StoreError:
            time.sleep(0.01)
    pytest.fail("the lock outlived its process")


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"), Store(tmp_path / "file").lock():
        pass
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a place nobody can write")
def test_a_place_that_nobody_can_write():
    with pytest.raises(StoreError, match="cannot be written"), Store("/proc/zerolabel").lock():
        pass
