"""Several numbers of categories at once: the same runs as one by one, with one set of features."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zerolabel
from zerolabel.backbones.filterbank import FilterBank
from zerolabel.data.synthetic import world
from zerolabel.errors import DataError, StoreError, UsageError
from zerolabel.jobs.levels.page import overlap
from zerolabel.outputs.masks import read_mask
from zerolabel.store import Store

pytestmark = pytest.mark.usefixtures("small_worlds")
IMAGES = 18  # two batches
FAST = {"size": 64, "backbone": "filterbank"}
PLAIN = {"method": "kmeans", **FAST, "report": False, "overlays": False}
SAME = ("masks", "overlays", "categories.json", "failures.json", "model.json", "model.safetensors")


def write_world(folder, images):
    folder.mkdir()
    for sample in world(3, images=images, size=(32, 48), per_image=3):
        Image.fromarray(sample.load()).save(folder / sample.id)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write_world(tmp_path_factory.mktemp("place") / "photos", IMAGES)
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture
def few(tmp_path):
    return write_world(tmp_path / "few", 3)


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "run"
    return zerolabel.segment(photos, out, method="kmeans", granularity=[5, 2, 3], **FAST)


def contents(run):
    """The bytes of all that must not depend on how a run came about."""
    return {
        p.relative_to(run).as_posix(): p.read_bytes()
        for name in SAME
        for p in [run / name, *(run / name).rglob("*")]
        if p.is_file()
    }


def states(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def read(run, name="run.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))


# --- the levels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kmeans", "datus"])
def test_every_level_is_the_run_that_it_would_be_alone(method, photos, tmp_path):
    options = {"method": method, **FAST, "report": False}
    found = zerolabel.segment(photos, tmp_path / "all", granularity=[2, 4], **options)
    for k, run in found.levels.items():
        alone = zerolabel.segment(photos, tmp_path / f"alone-{k}", k=k, **options)
        assert run.path == tmp_path / "all" / f"k{k}"
        assert contents(run.path) == contents(alone.path)
        assert (run.categories, run.failures) == (alone.categories, alone.failures)


@pytest.mark.parametrize("method", ["kmeans", "datus"])
def test_features_are_computed_once(method, photos, tmp_path, monkeypatch):
    calls = []
    encode, learn = FilterBank.encode, FilterBank.learn
    monkeypatch.setattr(FilterBank, "encode", lambda *a, **k: calls.append(0) or encode(*a, **k))
    monkeypatch.setattr(FilterBank, "learn", lambda *a, **k: calls.append(1) or learn(*a, **k))
    options = {**PLAIN, "method": method}
    zerolabel.segment(photos, tmp_path / "one", k=5, **options)
    once, calls[:] = list(calls), []
    zerolabel.segment(photos, tmp_path / "all", granularity=[2, 3, 5], **options)
    assert 1 in once
    assert calls == once
    kept = [p.parent.name for p in (tmp_path / "all" / "k2" / "cache").rglob("*.safetensors")]
    assert sorted(set(kept)) == ["cache", "masks"]  # what depends on k, and nothing else


def test_levels_come_with_the_fewest_categories_first(done):
    assert list(done.levels) == [2, 3, 5]
    assert [len(run.categories) for run in done.levels.values()] == [2, 3, 5]
    assert (done.images, list(done.failures), done.data) == (IMAGES, ["broken.jpg"], "a folder")


def test_run_json_holds_the_levels_and_their_times(done):
    run = read(done.path)
    assert run["status"] == "done"
    assert [(e["level"], e["folder"], e["k"], e["images"], e["failed"]) for e in run["levels"]] == [
        (k, f"k{k}", k, IMAGES, 1) for k in (2, 3, 5)
    ]
    assert run["job"]["method"] == "kmeans"
    assert "k" not in run["job"]["config"]
    for k in (2, 3, 5):
        assert run["seconds"][f"k{k}"] == read(done.path / f"k{k}")["seconds"]["all"] > 0
    parts = [value for name, value in run["seconds"].items() if name != "all"]
    assert run["seconds"]["all"] == pytest.approx(sum(parts))
    assert [entry["id"] for entry in read(done.path, "failures.json")["failures"]] == ["broken.jpg"]


def test_auto_can_be_a_level(few, tmp_path):
    found = zerolabel.segment(few, tmp_path / "run", granularity=["auto", 7], **PLAIN)
    alone = zerolabel.segment(few, tmp_path / "alone", k="auto", **PLAIN)
    assert set(found.levels) == {"auto", 7}
    assert contents(tmp_path / "run" / "kauto") == contents(alone.path)
    assert any("is a guess" in note for note in found.notes)
    counts = [len(run.categories) for run in found.levels.values()]
    assert counts == sorted(counts)


# --- the page ------------------------------------------------------------------------------------


def test_the_page_shows_the_levels_side_by_side_and_links_to_their_reports(done):
    assert done.report == done.path / "report" / "index.html"
    page = done.report.read_text(encoding="utf-8")
    links = re.findall(r'<a href="(\.\./[^"]+)"', page)
    assert links == [f"../k{k}/report/index.html" for k in (2, 3, 5)]
    assert all((done.report.parent / link).is_file() for link in links)
    rows = page.split('<article class="card row"')[1:]
    assert len(rows) == 8
    for row in rows:
        assert re.findall(r"</?span>([^<]+)</span>", row) == ["photo", "k = 2", "k = 3", "k = 5"]
        assert row.count("data:image/jpeg") == 4
    assert "broken.jpg" not in page
    assert "not a union" in page


def test_the_page_says_how_levels_overlap(done):
    page = done.report.read_text(encoding="utf-8")
    _, table = page.split("k = 5 within k = 3")[:2]
    share = float(re.search(r"([\d.]+) % of all pixels lie", table)[1]) / 100
    counts = np.zeros((5, 3), int)
    for path in (done.path / "k5" / "masks").iterdir():
        fine, coarse = read_mask(path), read_mask(done.path / "k3" / "masks" / path.name)
        np.add.at(counts, (fine, coarse), 1)
    assert share == pytest.approx(counts.max(1).sum() / counts.sum(), abs=0.0006)
    largest = counts.sum(1).argmax()
    first = re.search(r"<tbody>\s*<tr>(.*?)</tr>", table, re.DOTALL)[1]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", first)
    assert cells[0] == f"category {largest}"
    assert cells[2] == f"category {counts[largest].argmax()}"
    assert float(cells[3].split()[0]) == pytest.approx(
        100 * counts[largest].max() / counts[largest].sum(), abs=0.06
    )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_overlap_counts_pixels_that_have_a_category_in_both(Ka, Kb, seed):
    rng = np.random.default_rng(seed)
    fine, coarse = (rng.integers(0, K + 1, (4, 5)) for K in (Ka, Kb))
    fine[fine == Ka], coarse[coarse == Kb] = 255, 255
    expected = np.zeros((Ka, Kb), int)
    for a, b in zip(fine.flat, coarse.flat, strict=True):
        if a != 255 and b != 255:
            expected[a, b] += 1
    found = overlap(fine.astype(np.uint8), coarse.astype(np.uint8), (Ka, Kb))
    assert np.array_equal(found, expected)


def test_reports_and_overlays_can_be_left_out(few, tmp_path):
    found = zerolabel.segment(few, tmp_path / "run", granularity=[2, 3], **PLAIN)
    assert found.report is None
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {".lock", "cache", "failures.json", "k2", "k3", "run.json"}
    assert not list((tmp_path / "run").rglob("overlays"))
    assert not list((tmp_path / "run").rglob("*.html"))


# --- again, and interrupted ----------------------------------------------------------------------


def test_levels_can_be_added_without_doing_the_others_again(few, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(few, out, granularity=[3], **PLAIN)
    before = states(out / "k3" / "masks") | states(out / "cache")
    found = zerolabel.segment(few, out, granularity=[2, 3], **PLAIN)
    after = states(out / "k3" / "masks") | states(out / "cache")
    assert after == before
    assert list(found.levels) == [2, 3]
    assert [entry["level"] for entry in read(out)["levels"]] == [2, 3]


class Killed(BaseException):
    """Like the end of the process: nothing in the program expects it."""


def run_limited(few, out, writes):
    """Let so many files get their names, then end the program before the next one does."""
    left, replace = [writes], os.replace

    def counted(*paths):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(*paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted)
        zerolabel.segment(few, out, granularity=[2, 3], **PLAIN)
    return writes - left[0]


def test_interrupted_anywhere_it_ends_with_the_same_bytes(few, tmp_path):
    writes = run_limited(few, tmp_path / "whole", 10**6)
    whole = {k: contents(tmp_path / "whole" / k) for k in ("k2", "k3")}
    for cut in range(0, writes, 4):
        out = tmp_path / f"cut-{cut}"
        with pytest.raises(Killed):
            run_limited(few, out, cut)
        zerolabel.segment(few, out, granularity=[2, 3], **PLAIN)
        assert {k: contents(out / k) for k in ("k2", "k3")} == whole
        assert read(out)["status"] == "done"
        assert not list(out.rglob("*.tmp"))
        shutil.rmtree(out)


def test_a_second_job_is_refused(few, tmp_path):
    with (
        Store(tmp_path / "run").lock(),
        pytest.raises(StoreError, match="Another job is working"),
    ):
        zerolabel.segment(few, tmp_path / "run", granularity=[2, 3], **PLAIN)


# --- whose directory it is -----------------------------------------------------------------------


def test_a_directory_of_another_kind_is_refused_both_ways(few, tmp_path):
    zerolabel.segment(few, tmp_path / "one", k=2, **PLAIN)
    zerolabel.segment(few, tmp_path / "many", granularity=[2], **PLAIN)
    before = contents(tmp_path / "one"), read(tmp_path / "one"), read(tmp_path / "many")
    with pytest.raises(StoreError, match="one holds a run of another kind, not levels"):
        zerolabel.segment(few, tmp_path / "one", granularity=[2], **PLAIN)
    with pytest.raises(StoreError, match=r"many holds results of another kind \(granularity\)"):
        zerolabel.segment(few, tmp_path / "many", k=2, **PLAIN)
    assert (contents(tmp_path / "one"), read(tmp_path / "one"), read(tmp_path / "many")) == before


def test_other_settings_and_images_are_refused_with_what_differs(few, tmp_path):
    out = tmp_path / "run"
    zerolabel.segment(few, out, granularity=[2, 3], **PLAIN)
    before = contents(out / "k2"), read(out)
    with pytest.raises(StoreError, match=r"run holds levels with seed 0 instead of 1\. Choose"):
        zerolabel.segment(few, out, granularity=[4], seed=1, **PLAIN)
    with pytest.raises(StoreError, match="method kmeans instead of datus.* and [0-9]+ more"):
        zerolabel.segment(few, out, granularity=[4], **{**PLAIN, "method": "datus"})
    (few / "new.png").write_bytes((few / "world-000.png").read_bytes())
    with pytest.raises(StoreError, match=r"k3 holds a run on other images \(1 added"):
        zerolabel.segment(few, out, granularity=[2, 3], **PLAIN)
    assert (contents(out / "k2"), read(out)) == before


def test_a_run_without_results_may_be_begun_anew(few, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run_limited(few, out, 2)
    zerolabel.segment(few, out, granularity=[2], seed=1, **PLAIN)
    assert read(out)["job"]["config"]["seed"] == 1


def test_levels_inside_the_photos_are_no_photos(few):
    for _ in range(2):
        found = zerolabel.segment(few, few / "run", granularity=[2, 3], **PLAIN)
        assert found.images == 3
    with pytest.raises(UsageError, match="folder of the images itself"):
        zerolabel.segment(few, few, granularity=[2, 3], **PLAIN)


def test_auto_stays_the_backbone_that_it_was(few, tmp_path, monkeypatch):
    out, options = tmp_path / "run", {**PLAIN, "backbone": "auto"}
    zerolabel.segment(few, out, granularity=[2], **options)

    def choose(name, *, weights=None):  # as if better weights had come in the meantime
        return ("random-vitt16" if name == "auto" else name), ""

    monkeypatch.setattr("zerolabel.backbones.choose", choose)
    zerolabel.segment(few, out, granularity=[2, 3], **options)
    assert read(out / "k3")["job"]["backbone"] == "filterbank"


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "settings", "words"),
    [
        ([], {}, r"found \[\]"),
        ("5,16", {}, "found '5,16'"),
        ([0, 3], {}, "from 1 on"),
        ([2.5], {}, "from 1 on"),
        ([True], {}, "from 1 on"),
        (["many"], {}, "from 1 on"),
        ([3, 5, 3], {}, "names 3 more than once"),
        (["auto", "auto"], {}, "names auto more than once"),
        ([3, 5], {"k": 4}, "k = 4 and granularity"),
        ([3, 70000], {}, r"1\.\.65535, or a range of it, got 70000"),
        ([3], {"sharpnes": 4}, "sharpness"),
    ],
)
def test_wrong_levels_are_refused_before_any_work(levels, settings, words, few, tmp_path):
    with pytest.raises(UsageError, match=words):
        zerolabel.segment(few, tmp_path / "run", granularity=levels, **PLAIN, **settings)
    assert not (tmp_path / "run").exists()


def test_more_categories_than_regions_fail_before_the_other_levels(few, tmp_path):
    out, options = tmp_path / "run", {**PLAIN, "method": "datus"}
    with pytest.raises(UsageError, match="500 categories were asked for, but only"):
        zerolabel.segment(few, out, granularity=[2, 500], **options)
    assert not (out / "k2").exists()
    found = zerolabel.segment(few, out, granularity=[2], **options)
    assert list(found.levels) == [2]


def test_no_readable_image_is_listed_where_one_looks(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"failures\.json|No image could be read"):
        zerolabel.segment(folder, tmp_path / "run", granularity=[2, 3], **PLAIN)
    assert read(tmp_path / "run", "failures.json")["failures"][0]["id"] == "a.jpg"
