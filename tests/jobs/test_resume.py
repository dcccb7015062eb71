"""Interrupted at any moment, a job goes on where it stopped and ends with the same bytes."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zerolabel
from zerolabel.backbones import filterbank
from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.synthetic import world
from zerolabel.errors import StoreError
from zerolabel.jobs.run.claim import claim
from zerolabel.methods.base import BATCH
from zerolabel.store import Store

pytestmark = pytest.mark.usefixtures("small_worlds")
IMAGES = BATCH + 4  # two batches
OPTIONS = {"method": "datus", "k": 3, "size": 64, "backbone": "filterbank"}
FEW_PATCHES = partial(filterbank.Config, patches=2000)
SAME = ("masks", "overlays", "categories.json", "failures.json", "model.json", "model.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for sample in world(3, images=IMAGES, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The bytes of a run that was left in peace."""
    out = tmp_path_factory.mktemp("whole") / "run"
    zerolabel.segment(photos, out, **OPTIONS)
    return contents(out)


def contents(run):
    """Hash all files of a run that must not depend on how often it was interrupted."""
    files = [
        p
        for name in SAME
        for p in ((run / name).rglob("*") if (run / name).is_dir() else [run / name])
    ]
    return {
        p.relative_to(run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.is_file()
    }


def states(run):
    return {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def leftovers(run):
    return list(run.rglob("*.tmp"))


def read(run, name="run.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))


# --- interrupted between two writes --------------------------------------------------------------


class Killed(BaseException):
    """Like the end of the process: nothing in the program expects it."""


def limit_writes(monkeypatch, writes):
    """Let so many files get their names, then end the program before the next one does."""
    left = [writes]
    replace = os.replace

    def counted(*paths):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(*paths)

    monkeypatch.setattr(os, "replace", counted)
    return left


def interrupt(photos, out, *, writes, **options):
    with pytest.MonkeyPatch.context() as patch:
        limit_writes(patch, writes)
        with pytest.raises(Killed):
            zerolabel.segment(photos, out, **OPTIONS | options, report=False)


def count_writes(photos, out):
    with pytest.MonkeyPatch.context() as patch:
        left = limit_writes(patch, 10**6)
        zerolabel.segment(photos, out, **OPTIONS, report=False)
    return 10**6 - left[0]


@pytest.mark.slow
def test_any_write_may_be_the_last(photos, whole, tmp_path):
    total = count_writes(photos, tmp_path / "counted")
    assert total > 2 * IMAGES
    places = sorted({0, 1, 4, 8, total // 2, total - 4, total - 1})
    for place in places:
        out = tmp_path / f"run-{place}"
        interrupt(photos, out, writes=place)
        zerolabel.segment(photos, out, **OPTIONS, report=False)
        assert contents(out) == whole, f"killed after {place} of {total} writes"
        assert read(out)["attempts"] == (2 if place else 1)
        assert not leftovers(out)


def test_what_is_done_is_not_done_again(photos, whole, tmp_path, monkeypatch):
    encoded = []
    encode = FilterBank.encode

    def counted(self, images, **options):
        encoded.append(len(images))
        return encode(self, images, **options)

    monkeypatch.setattr(FilterBank, "encode", counted)
    out, killed = tmp_path / "run", 0
    for writes in (4, 2, 15, 25):  # as many as it gets each time
        interrupt(photos, out, writes=writes)
        killed += 1
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert contents(out) == whole
    # every image once, and the batch at work at each interruption at most once more
    assert IMAGES <= sum(encoded) <= IMAGES + killed * BATCH

    before, seconds = states(out), read(out)["seconds"]
    encoded.clear()
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert not encoded
    after = states(out)
    changed = {p.relative_to(out).parts[0] for p in after if after[p] != before.get(p)}
    assert changed <= {
        "run.json",
        "model.json",
        "model.safetensors",
        "categories.json",
        "failures.json",
    }
    assert read(out)["seconds"] == seconds  # what the work cost, not the look at it


@pytest.mark.parametrize("step", ["encode", "label_map", "save"])
def test_an_error_inside_a_stage_leaves_a_resumable_run(photos, whole, tmp_path, monkeypatch, step):
    from zerolabel.jobs.run.model import Model

    owner = FilterBank if step == "encode" else Model
    original, calls = getattr(owner, step), []

    def failing(self, *args, **options):
        calls.append(1)
        if len(calls) == (1 if step == "save" else 2):
            raise RuntimeError("out of luck")
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, failing)
        with pytest.raises(RuntimeError, match="out of luck"):
            zerolabel.segment(photos, tmp_path / "run", **OPTIONS, report=False)
    assert read(tmp_path / "run")["status"] == "started"
    zerolabel.segment(photos, tmp_path / "run", **OPTIONS, report=False)
    assert contents(tmp_path / "run") == whole
    assert read(tmp_path / "run")["status"] == "done"


def test_deleted_results_come_back(photos, whole, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    (out / "masks" / "world-003.png").unlink()
    (out / "overlays" / "world-018.jpg").unlink()
    (out / "model.json").unlink()
    (out / "categories.json").unlink()
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert contents(out) == whole


def test_overlays_may_be_asked_for_later(photos, whole, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(photos, out, **OPTIONS, report=False, overlays=False)
    assert not (out / "overlays").exists()
    segments = states(out / "cache" / "segments")
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert contents(out) == whole
    assert states(out / "cache" / "segments") == segments


def test_the_cache_is_safe_to_delete(photos, whole, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    shutil.rmtree(out / "cache")
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert contents(out) == whole


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [0, 3, 12, 40])
def test_a_full_disk_is_an_error_and_no_damage(photos, whole, tmp_path, monkeypatch, writes):
    fsync, left = os.fsync, [writes]

    def full(descriptor):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        fsync(descriptor)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="disk is full"):
            zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert not leftovers(out)
    for path in (out / "masks").glob("*.png"):
        with Image.open(path) as mask:
            mask.load()
    zerolabel.segment(photos, out, **OPTIONS, report=False)
    assert contents(out) == whole


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(photos, whole, tiny_disk):
    (tiny_disk / "ballast").write_bytes(b"x" * 600_000)
    with pytest.raises(StoreError, match="disk is full"):
        zerolabel.segment(photos, tiny_disk / "run", **OPTIONS, report=False)
    assert not leftovers(tiny_disk)
    (tiny_disk / "ballast").unlink()
    zerolabel.segment(photos, tiny_disk / "run", **OPTIONS, report=False)
    assert contents(tiny_disk / "run") == whole


# --- real processes ------------------------------------------------------------------------------


def job(photos, out, ready):
    """Run in a process of its own, forked from one that has imported everything."""
    torch.set_num_threads(1)
    filterbank.Config = FEW_PATCHES
    ready.set()
    zerolabel.segment(photos, out, **OPTIONS)


@pytest.fixture(scope="module")
def start(photos):
    """Start the job in a process that can be killed."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zerolabel.api", "zerolabel.methods.datus"])

    def begin(out):
        ready = context.Event()
        process = context.Process(target=job, args=(photos, out, ready), daemon=True)
        process.start()
        assert ready.wait(60)
        return process

    return begin


@pytest.mark.slow
def test_kill_9_at_random_moments(start, photos, whole, tmp_path):
    process = start(tmp_path / "timed")
    began = time.perf_counter()
    process.join(120)
    assert process.exitcode == 0
    assert contents(tmp_path / "timed") == whole
    length = time.perf_counter() - began
    moments = np.random.default_rng(0).uniform(0, length, 3)
    interrupted = 0
    for i, moment in enumerate(sorted(moments)):
        out = tmp_path / f"run-{i}"
        for share in (1.0, 0.5):  # twice, the second time while it resumes
            process = start(out)
            time.sleep(moment * share)
            process.kill()
            process.join()
            interrupted += process.exitcode != 0
        zerolabel.segment(photos, out, **OPTIONS)
        assert contents(out) == whole, f"killed after {moment:.2f} of {length:.2f} s"
        assert (out / "report" / "index.html").stat().st_size > 10_000
        assert not leftovers(out / "masks") + leftovers(out / "cache") + leftovers(out / "overlays")
    assert interrupted >= 3


@pytest.mark.slow
def test_a_second_job_is_refused_and_the_first_unharmed(start, photos, whole, tmp_path):
    out = tmp_path / "run"
    process = start(out)
    refused = 0
    while process.is_alive():
        if (out / "run.json").exists():
            try:
                zerolabel.segment(photos, out, **OPTIONS)
            except StoreError as error:
                assert f"Another job is working in {out}" in str(error)  # noqa: PT017
                refused += 1
            else:
                break  # the first was done
        time.sleep(0.02)
    process.join(60)
    assert refused
    assert process.exitcode == 0
    assert contents(out) == whole


PROGRAM = """
from functools import partial
from zerolabel.backbones import filterbank
from zerolabel.cli.main import main
filterbank.Config = partial(filterbank.Config, patches=2000)
main()
"""
COMMAND = [sys.executable, "-c", PROGRAM, "segment"]
FLAGS = ["--k", "3", "--size", "64", "--backbone", "filterbank"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_a_resumable_run(photos, whole, tmp_path):
    out = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*COMMAND, str(photos), "--out", str(out), *FLAGS]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 60
        while not (out / "cache" / "segments").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == ""
    lines = [line for line in complaint.splitlines() if line and ": 21 in " not in line]
    assert lines == ["zerolabel: Interrupted. Run the same command again to go on from here."]
    assert not leftovers(out)
    before = states(out / "cache")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3, done.stderr  # one of the photos is broken
    assert contents(out) == whole
    after = states(out / "cache")
    assert {p: after[p] for p in before} == before


# --- whose directory it is -----------------------------------------------------------------------


def small(photos, out, **options):
    return zerolabel.segment(
        photos, out, **{**OPTIONS, "method": "kmeans", "report": False, **options}
    )


@pytest.fixture
def few(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for sample in world(3, images=3, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


def test_other_settings_are_refused_with_what_differs(few, tmp_path):
    out = tmp_path / "run"
    small(few, out)
    before = contents(out)
    with pytest.raises(
        StoreError, match=r"a run with k 3 instead of 4, seed 0 instead of 1\. Choose"
    ):
        small(few, out, k=4, seed=1)
    with pytest.raises(StoreError, match="method kmeans instead of datus.* more"):
        small(few, out, method="datus")
    with pytest.raises(StoreError, match="backbone filterbank instead of random-vitt16"):
        small(few, out, backbone="random-vitt16")
    assert contents(out) == before
    assert read(out)["status"] == "done"


def test_other_images_are_refused_with_what_changed(few, tmp_path):
    out = tmp_path / "run"
    small(few, out)
    before = contents(out)
    picture = (few / "world-000.png").read_bytes()
    (few / "new.png").write_bytes(picture)
    with pytest.raises(StoreError, match=r"other images \(1 added since: new\.png\)"):
        small(few, out)
    (few / "new.png").unlink()
    (few / "world-000.png").unlink()
    with pytest.raises(StoreError, match=r"1 removed since: world-000\.png"):
        small(few, out)
    (few / "world-000.png").write_bytes((few / "world-001.png").read_bytes())
    with pytest.raises(StoreError, match=r"1 changed since: world-000\.png"):
        small(few, out)
    (out / "cache" / "data.json").unlink()
    with pytest.raises(StoreError, match=r"a run on other images\. Choose"):
        small(few, out)
    assert contents(out) == before
    (few / "world-000.png").write_bytes(picture)
    small(few, out)
    assert contents(out) == before


def test_an_unfinished_run_without_results_may_be_begun_anew(few, tmp_path):
    out = tmp_path / "run"
    interrupt(few, out, writes=3, method="kmeans")
    assert not (out / "masks").exists()
    small(few, out, k=2)
    assert read(out)["job"]["config"]["k"] == 2
    assert read(out)["attempts"] == 1
    small(few, tmp_path / "other", k=2)
    assert contents(out) == contents(tmp_path / "other")


def test_runs_of_other_versions_and_foreign_files_are_refused(few, tmp_path):
    out = tmp_path / "run"
    small(few, out)
    run = read(out)
    (out / "run.json").write_text(json.dumps({**run, "zerolabel": "9.9"}))
    with pytest.raises(StoreError, match=r"a run of zerolabel 9\.9"):
        small(few, out)
    for content in ("[]", '{"job": 3}'):
        (out / "run.json").write_text(content)
        with pytest.raises(StoreError, match="not written by zerolabel"):
            small(few, out)
    (out / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json cannot be read"):
        small(few, out)
    (out / "run.json").unlink()
    with pytest.raises(StoreError, match="files that are no run of zerolabel"):
        small(few, out)


def test_a_store_in_memory_claims_nothing():
    claim(Store(), {"method": "x"}, [])


def test_a_job_may_change_directory_names(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small(Path("few"), Path("run"))
    before = contents(tmp_path / "run")
    small(few, tmp_path / "run")  # the same folder by another name
    assert contents(tmp_path / "run") == before
