"""The folder of an export: there as a whole or not at all, the same every time."""

import shutil

import pytest
from exported import categories, noise, ring, write_exportable

from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.export import FORMATS, export
from zerolabel.jobs.exporting.folder import whole_folder

pytestmark = pytest.mark.usefixtures("small_worlds")
MASKS = {"a.jpg": ring(), "deep/ü.jpg": noise(2, 4)}


@pytest.fixture
def run(tmp_path):
    return write_exportable(tmp_path, MASKS, categories())


def content(folder):
    """Bytes of every file but the one that says where it is from."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "run.json"}


def test_where_something_is_already(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(run, out, format="png")  # empty is as good as missing
    before = content(out)
    with pytest.raises(UsageError, match=r"out holds files already. Choose another --out"):
        export(run, out, format="coco")
    assert content(out) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        export(run, tmp_path / "file", format="coco")
    with pytest.raises(UsageError, match="among the masks of the run"):
        export(run, run / "masks" / "new", format="png")
    assert export(run, run / "exports" / "png", format="png").images == 2


@pytest.mark.parametrize("way", FORMATS)
def test_nothing_is_left_of_an_export_that_failed(run, tmp_path, way):
    (run / "masks" / "deep" / "ü.png").write_bytes(b"no mask")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="ü.png is not a PNG"):
        export(run, tmp_path / "out", format=way)
    assert sorted(tmp_path.iterdir()) == before


def interrupted(out):
    with whole_folder(out) as folder:
        (folder / "old").write_text("x")
        raise KeyboardInterrupt


def late(out):
    with whole_folder(out):
        out.mkdir()
        (out / "theirs").write_text("x")


def test_what_a_killed_job_left_is_removed(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process cleans nothing
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path / "out")
    assert any(path.name.endswith(".export") for path in tmp_path.iterdir())
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "out", format="png")
    assert not (tmp_path / "out" / "old").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "photos", "out"}


def test_two_jobs_on_one_folder(run, tmp_path):
    with whole_folder(tmp_path / "out") as folder:
        with pytest.raises(StoreError, match="Another job is working"):
            export(run, tmp_path / "out", format="png")
        (folder / "mine").write_text("x")
    assert (tmp_path / "out" / "mine").exists()
    with pytest.raises(UsageError, match="holds files already"):
        late(tmp_path / "later")
    assert (tmp_path / "later" / "theirs").exists()


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        export(run, tmp_path / "file" / "out", format="png")


def test_the_same_masks_make_the_same_files(run, tmp_path):
    for way in FORMATS:
        one, two = (export(run, tmp_path / f"{way}{i}", format=way).path for i in (1, 2))
        assert content(one) == content(two)
